"""The scoring engine: token log-probabilities of continuations, shared beginnings computed once.

The pairs of a question become one prefix tree, so its context is computed once and its options
attend to it; trees are packed into rows of few lengths; and a long beginning that many questions
share (few-shot examples) is computed once and kept as keys and values. The LM head is applied to
the places that are read alone, a few hundred at a time.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from calib_jax.confidence.forest import (
    Family,
    Size,
    Tree,
    build_tree,
    find_families,
    group_prefix,
    join_trees,
    pack,
    tree_size,
)
from calib_jax.confidence.forward import compute_prefix, score_rows, states_at
from calib_jax.confidence.shapes import (
    Costs,
    Flops,
    Shapes,
    cached_lengths,
    read_chunks,
    row_lengths,
)
from calib_jax.errors import UserError
from calib_jax.models import splash
from calib_jax.models.attention import Prefix
from calib_jax.models.model import Model
from calib_jax.parallel import mesh as meshes
from calib_jax.questions.batches import MAX_BUCKETS, rows_per_batch
from calib_jax.questions.pairs import Pair

# Tokens that are saved at least by keeping a prefix for several rows.
CACHING_SAVES = 512


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """What the model says at every target of one pair.

    Attributes:
      log_probs: [T] float32, natural log, of the targets among the whole vocabulary.
      top_log_probs: [T] float32, of the most probable token at each target's place.
      top_tokens: [T] int32, that token, the first of equals; -1 from an engine that was not asked.
      state: [D] float32, the normalised hidden state that the LM head reads the first target from,
        one array for all pairs of a group that read it there; None from an engine that was not
        asked, and for a pair without targets.
    """

    log_probs: np.ndarray
    top_log_probs: np.ndarray
    top_tokens: np.ndarray
    state: np.ndarray | None = None

    @property
    def greedy(self) -> np.ndarray:
        """[T] bool, whether the target is the most probable token, or as probable."""
        return self.log_probs == self.top_log_probs


NOTHING = TokenScores(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

Group = Sequence[Pair]


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row's tree, and where its results go."""

    tree: Tree
    pairs: tuple[tuple[int, int], ...]  # (group, pair) in the order of tree.found


def _first_reads(rows: Sequence[_Row]) -> dict[tuple[int, int], int]:
    """(row, read) of every pair's first target, each once -> its number."""
    found = ((b, int(one[0, 0])) for b, row in enumerate(rows) for one in row.tree.found)
    return {key: i for i, key in enumerate(dict.fromkeys(found))}


class Engine:
    """Scores groups of pairs with one model.

    Args:
      model: with parameters, and adapters where it has some.
      token_budget: tokens of a batch, padding included; 0 for 1,024 on a CPU and 16,384 elsewhere.
      max_shapes: programs compiled, at most; below 4, no prefix is kept for several rows.
      length_multiple: of the rows' lengths; 0 for 8 on a CPU and 128 elsewhere.
      shapes: of an engine that has planned already; None to plan.
      top_tokens: whether scores name the most probable tokens too.
      states: whether scores hold hidden states.

    Attributes:
      shapes: what it compiles, once it is known.
      costs: of everything scored so far.
    """

    def __init__(
        self,
        model: Model,
        *,
        token_budget: int = 0,
        max_shapes: int = MAX_BUCKETS,
        length_multiple: int = 0,
        shapes: Shapes | None = None,
        top_tokens: bool = False,
        states: bool = False,
    ):
        self.decoder, self.variables = model.decoder(), model.variables
        self.mesh = model.mesh or meshes.default_mesh()
        cpu = jax.default_backend() == "cpu"
        self.token_budget = token_budget or (1024 if cpu else 16384)
        self.max_shapes = max_shapes
        self.multiple = length_multiple or (8 if cpu else 128)
        # Places that the LM head is applied to at a time, on each device.
        self.reads_at_a_time = 128 if cpu else 2048
        self.top_tokens, self.states = top_tokens, states
        self.flops = Flops.of(model.config)
        self.shapes = shapes or Shapes()
        self.costs = Costs()

    def plan(self, groups: Sequence[Group]) -> Shapes:
        """Chooses the row lengths for all groups of a run, so that none is added on the way."""
        self.shapes = Shapes()
        index = [i for i, group in enumerate(groups) if any(pair.num_targets for pair in group)]
        families, sizes = self._families(groups, index)
        plain = [sizes[i].room + len(f.prefix) for f in families if not f.cached for i in f.members]
        shared = [(len(f.prefix), [sizes[i].room for i in f.members]) for f in families if f.cached]
        cached: tuple[tuple[int, int], ...] = ()
        if shared:
            cached = cached_lengths(shared, 2, self.multiple, self.flops)
            for P, rooms in shared:  # what is too long for the rows after a prefix stands alone
                row = next(row for length, row in cached if length >= P)
                plain += [P + room for room in rooms if room > row]
        left = max(1, self.max_shapes - len(cached) - bool(cached))
        lengths: tuple[int, ...] = ()
        if plain:
            lengths = row_lengths(plain, left, self.multiple, self.flops, self._batch_rows)
        self.shapes = Shapes(lengths, cached)
        return self.shapes

    def score(
        self,
        groups: Sequence[Group],
        on_group: Callable[[int, list[TokenScores]], None] | None = None,
        check: Callable[[], None] = lambda: None,
        name_of: Callable[[int], str] = lambda i: f"group {i}",
    ) -> list[list[TokenScores]]:
        """Scores every target of every pair.

        Args:
          groups: pairs that share what they begin with, such as a question's options. A pair
            without targets gets empty scores.
          on_group: called as (group, scores of its pairs) when they are there, in any order.
          check: called between batches; may raise to stop.
          name_of: what messages call a group.

        Returns:
          For each group the scores of its pairs, in order; float32 whatever the weights.

        Raises:
          UserError: a token outside the model's vocabulary, or log-probabilities that are not
            numbers.
        """
        self._check_vocabulary(groups)
        results: list[list[TokenScores]] = [[NOTHING] * len(group) for group in groups]
        index = [i for i, group in enumerate(groups) if any(pair.num_targets for pair in group)]
        if on_group:
            for i in sorted(set(range(len(groups))) - set(index)):
                on_group(i, results[i])

        def collect(rows: list[_Row], out: dict) -> None:
            out = {name: np.asarray(value) for name, value in out.items()}
            done: list[int] = []
            at = _first_reads(rows) if self.states else {}
            for b, row in enumerate(rows):
                seen: dict[int, list[int]] = {}
                for (group, pair), found in zip(row.pairs, row.tree.found, strict=True):
                    reads, columns = found[:, 0], found[:, 1]
                    log_probs = out["log_probs"][b, reads, columns]
                    if not np.isfinite(log_probs).all():
                        raise UserError(
                            f"{name_of(group)}: the model's probabilities are not numbers (NaN). "
                            "Its weights hold NaN or infinity, or overflow in this dtype."
                        )
                    tokens = np.full(len(reads), -1, np.int32)
                    if self.top_tokens:
                        tokens = out["top_tokens"][b, reads]
                    top_log_probs = out["top_log_probs"][b, reads]
                    state = out["states"][at[b, reads[0]]] if self.states else None
                    results[group][pair] = TokenScores(log_probs, top_log_probs, tokens, state)
                    seen.setdefault(group, []).append(pair)
                done += seen
            for group in done:
                if on_group:
                    on_group(group, results[group])
            check()

        pending = None
        with meshes.use(self.mesh):
            for rows, out in self.batches(groups, index):
                # Fetched one batch late, so that the devices are never idle.
                if pending:
                    collect(*pending)
                pending = (rows, out)
            if pending:
                collect(*pending)
        return results

    def _families(
        self, groups: Sequence[Group], index: Sequence[int]
    ) -> tuple[list[Family], dict[int, Size]]:
        """The families of the groups at ``index``, and each group's size beyond its prefix."""
        read = [[pair for pair in groups[i] if pair.num_targets] for i in index]
        prefixes = [group_prefix(pairs) for pairs in read]
        longest = max(self.shapes.plain, default=0)

        def worth(members: Sequence[int], length: int) -> bool:
            if self.max_shapes < 4:
                return False
            if (len(members) - 1) * length >= CACHING_SAVES:
                return True
            # What is left of a family, in a run that continues, needs its kept prefix all the same.
            return bool(self.shapes.cached) and any(
                tree_size(read[m]).room > longest for m in members
            )

        families: list[Family] = []
        sizes: dict[int, Size] = {}
        for family in find_families(prefixes, worth):
            prefix = family.prefix
            if family.cached and self.shapes.cached:
                prefix = prefix[: self.shapes.cached[-1][0]]
            sizes |= {index[m]: tree_size(read[m], len(prefix)) for m in family.members}
            members = tuple(index[m] for m in family.members)
            families.append(Family(members, prefix, family.cached))
        return families, sizes

    def batches(
        self, groups: Sequence[Group], index: list[int]
    ) -> Iterator[tuple[list[_Row], dict]]:
        """Batches as they are sent off: their rows, and what will be their results."""
        families, sizes = self._families(groups, index)
        if not all(self._shape(f, sizes[i]) for f in families for i in f.members):
            self.plan(groups)
            families, sizes = self._families(groups, index)
        for family in families:
            self.costs.least_flops += sum(
                (len(family.prefix) + sizes[i].tokens) * self.flops.token
                + (len(family.prefix) ** 2 // 2 + sizes[i].keys) * self.flops.key
                + sizes[i].reads * self.flops.read
                for i in family.members
            )
        plain: dict[int, list[_Row]] = {length: [] for length in self.shapes.plain}
        for family in families:
            by_shape: dict[Any, list[int]] = {}
            for i in family.members:
                by_shape.setdefault(self._shape(family, sizes[i]), []).append(i)
            P = len(family.prefix)
            for (short, length), members in sorted(by_shape.items()):
                if short:
                    rows = self._rows(groups, members, sizes, length, P)
                    yield from self._batches(rows, length, self._prefix(family.prefix, short))
                else:  # the prefix stands in every row once
                    plain[length] += self._rows(groups, members, sizes, length - P, 0)
        for length in reversed(self.shapes.plain):  # longest first: memory fails at the start
            yield from self._batches(plain[length], length, None)

    def _shape(self, family: Family, size: Size) -> tuple[int, int] | None:
        """Padded length of the cached prefix (0 for none), and row length; None if none holds."""
        P = len(family.prefix)
        if family.cached:
            for short, row in self.shapes.cached:
                if P <= short and size.room <= row:
                    return short, row
        row = next((n for n in self.shapes.plain if n >= P + size.room), 0)
        return (0, row) if row else None

    def _prefix(self, tokens_P: np.ndarray, short: int) -> Prefix:
        """Keys and values of a prefix, padded to ``short``."""
        longest, P = self.shapes.cached[-1][0], len(tokens_P)
        # One row for every part of the batch axis, all the same: a batch must divide.
        tokens = np.zeros((meshes.batch_shards(self.mesh), longest), np.int32)
        tokens[:, :P] = tokens_P
        keys, values = compute_prefix(
            self.decoder, self.variables, meshes.put_batch(tokens, self.mesh)
        )
        self.costs.tokens += P
        self.costs.computed += longest
        self.costs.flops += longest * (self.flops.token + self.flops.key * longest)
        length = jax.device_put(np.int32(P), meshes.replicated(self.mesh))
        return Prefix(keys[:, :short], values[:, :short], length)

    def _rows(
        self,
        groups: Sequence[Group],
        members: list[int],
        sizes: dict[int, Size],
        capacity: int,
        skip: int,
    ) -> list[_Row]:
        """Packs groups into rows, and the pairs of each row into one tree."""
        rows = []
        for items in pack([sizes[i].room for i in members], capacity):
            pairs = [
                (members[item], k)
                for item in items
                for k, pair in enumerate(groups[members[item]])
                if pair.num_targets
            ]
            if self.decoder.attention == "splash" and not skip and capacity >= splash.SHORTEST:
                # The kernel knows sequences, not trees: a few first tokens are computed again.
                tree = join_trees(
                    [build_tree([p for p in groups[members[i]] if p.num_targets]) for i in items]
                )
            else:
                tree = build_tree([groups[i][k] for i, k in pairs], skip)
            rows.append(_Row(tree, tuple(pairs)))
        return rows

    def _batch_rows(self, length: int) -> int:
        return rows_per_batch(length, self.token_budget, meshes.batch_shards(self.mesh))

    def _batches(
        self, rows: list[_Row], length: int, prefix: Prefix | None
    ) -> Iterator[tuple[list[_Row], dict]]:
        shards, B = meshes.batch_shards(self.mesh), self._batch_rows(length)
        chunk, R = read_chunks(length, B, self.reads_at_a_time * shards)
        # Whole sequences, which the kernel of TPUs computes; decided for all batches of a length.
        whole = self.decoder.attention == "splash" and prefix is None
        whole = whole and not any(row.tree.branches for row in rows)
        # Rows with as many reads go together: a batch takes as long as its longest.
        rows = sorted(rows, key=lambda row: -len(row.tree.reads))
        keys = length + (prefix.keys.shape[1] if prefix is not None else 0)
        for start in range(0, len(rows), B):
            part = rows[start : start + B]
            place = np.arange(length, dtype=np.int32)
            arrays = {
                "tokens": np.zeros((B, length), np.int32),
                "positions": np.zeros((B, length), np.int32),
                "ends": np.tile(place + 1, (B, 1)),
                "reads": np.zeros((B, R), np.int32),
                "targets": np.zeros((B, R, part[0].tree.targets.shape[1]), np.int32),
            }
            for b, row in enumerate(part):
                for name in ("tokens", "positions", "ends"):
                    arrays[name][b, : len(row.tree)] = getattr(row.tree, name)
                for name in ("reads", "targets"):
                    arrays[name][b, : len(row.tree.reads)] = getattr(row.tree, name)
            if whole:
                arrays["segments"] = arrays["ends"]
            count = max(len(row.tree.reads) for row in part)
            out = self._send(arrays, count, prefix, chunk)
            if self.states:
                out["states"] = self._states(part, out.pop("hidden"))
            self._count(part, B * length, keys, B * (-(-count // chunk) * chunk))
            yield part, out

    def _send(self, arrays: dict, count: int, prefix: Prefix | None, chunk: int) -> dict:
        """Sends a batch off; returns what will be its results."""
        batch = meshes.put_batch(arrays, self.mesh)
        batch["count"] = jax.device_put(np.int32(count), meshes.replicated(self.mesh))
        asked = self.top_tokens, self.states
        return score_rows(self.decoder, self.variables, batch, prefix, chunk, *asked)

    def _states(self, rows: list[_Row], hidden_BxLxD: jax.Array) -> jax.Array:
        """[G, D] float32, in the order of ``_first_reads``; G is rounded up to a power of two."""
        read = list(_first_reads(rows))
        places = np.zeros((1 << (len(read) - 1).bit_length(), 2), np.int32)
        places[: len(read)] = [(b, rows[b].tree.reads[r]) for b, r in read]
        return states_at(hidden_BxLxD, jax.device_put(places, meshes.replicated(self.mesh)))

    def _count(self, rows: list[_Row], computed: int, keys: int, reads: int) -> None:
        self.costs.tokens += sum(len(row.tree) for row in rows)
        self.costs.reads += sum(len(row.tree.reads) for row in rows)
        self.costs.computed += computed
        self.costs.flops += computed * (self.flops.token + self.flops.key * keys)
        self.costs.flops += reads * self.flops.read

    def _check_vocabulary(self, groups: Sequence[Group]) -> None:
        """Raises UserError for a token that the model has no embedding of: JAX would clamp it."""
        V = self.decoder.config.vocab_size
        highest = max((int(p.tokens.max(initial=0)) for g in groups for p in g), default=0)
        if highest >= V:
            raise UserError(
                f"the tokenizer gives token {highest}, and the model's vocabulary is {V} tokens: "
                "the tokenizer files belong to another model."
            )
