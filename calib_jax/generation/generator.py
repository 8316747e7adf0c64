"""Prompts in, answers out, in batches of few shapes."""

import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from calib_jax.errors import UserError
from calib_jax.generation.programs import Rows, decode, prefill
from calib_jax.generation.sampler import Sampling
from calib_jax.models.model import Model
from calib_jax.parallel import mesh as meshes

GREEDY = Sampling()
SHORTEST = 32
# Steps between two looks at the rows: a stop is heeded, and finished batches are noticed.
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says to one prompt.

    Attributes:
      tokens: without the one that stopped it.
      stopped: whether a stopping token came; else the room was used up, and the answer is cut.
    """

    tokens: tuple[int, ...]
    stopped: bool


@dataclasses.dataclass
class Costs:
    """What generation took; the first batch of a shape, which compiles, is in no time.

    Attributes:
      prefill_tokens, prefill_seconds: real prompt tokens, timed.
      decode_tokens, decode_seconds: tokens of answers beyond each one's first, timed.
      compiled: batches that were the first of their shape.
    """

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    compiled: int = 0


def bucket_length(length: int) -> int:
    """The padded length of a prompt: a power of two, a function of the prompt alone.

    >>> [bucket_length(n) for n in (1, 32, 33, 700)]
    [32, 32, 64, 1024]
    """
    return max(SHORTEST, 1 << (length - 1).bit_length())


class Generator:
    """Generates with one model.

    An answer depends on the prompt, its name and the settings, but not on what else is in its
    batch: shapes are the same whatever the company, rows do not see each other, and each has
    random numbers of its own. Another batch size or another mesh changes roundings alone.

    Args:
      model: with parameters, and adapters where it has some.
      sampling: how tokens are chosen.
      max_new_tokens: of an answer; fewer where the model's length ends before.
      stops: tokens that end an answer.
      batch_size: prompts at a time; rounded up to what the mesh can split.
      seed: of the draws.
      copies: equal prompts that stand beside each other are computed once for up to so many.

    Attributes:
      costs: of everything so far.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling = GREEDY,
        *,
        max_new_tokens: int = 256,
        stops: Sequence[int] = (),
        batch_size: int = 8,
        seed: int = 0,
        copies: int = 1,
    ):
        if max_new_tokens < 1:
            raise UserError(
                f"config.generate.max_new_tokens is {max_new_tokens}; expected 1 or more."
            )
        if batch_size < 1:
            raise UserError(f"config.generate.batch_size is {batch_size}; expected 1 or more.")
        self.decoder, self.variables = model.decoder(), model.variables
        self.mesh = model.mesh or meshes.default_mesh()
        self.sampling, self.room = sampling, max_new_tokens
        shards = meshes.batch_shards(self.mesh)
        self.batch_size = -(-batch_size // shards) * shards
        # Of few sizes, so that other stops are no other program; -1 is no token.
        self.stops = np.full(-(-max(len(set(stops)), 1) // 8) * 8, -1, np.int32)
        self.stops[: len(set(stops))] = sorted(set(stops))
        self.seed, self.copies = seed, copies
        self.costs = Costs()
        self._compiled: set[int] = set()

    def limit(self, length: int) -> int:
        """How many tokens may follow a prompt of this length."""
        return min(self.room, self.decoder.config.max_length - length)

    def check(self, prompts: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """Raises UserError for a prompt that cannot be answered."""
        V, longest = self.decoder.config.vocab_size, self.decoder.config.max_length
        for tokens, name in zip(prompts, names, strict=True):
            if not len(tokens):
                raise UserError(f"{name}: the prompt has no tokens.")
            if max(tokens) >= V:
                raise UserError(
                    f"the tokenizer gives token {max(tokens)}, and the model's vocabulary is {V} "
                    "tokens: the tokenizer files belong to another model."
                )
            if self.limit(len(tokens)) < 1:
                raise UserError(
                    f"{name}: the prompt has {len(tokens)} tokens, and the model was made for "
                    f"{longest}, which leaves no room for an answer. Shorten or remove it; "
                    "prompts are never cut."
                )

    def generate(
        self,
        prompts: Sequence[np.ndarray],
        names: Sequence[str] | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """Answers every prompt.

        Args:
          prompts: [L] int each, tokens.
          names: of the prompts, in messages and in the random numbers; None for their numbers.
          on_answer: called as (prompt's number, answer) when a batch is done, in any order.
          check: called every few steps; may raise to stop.

        Returns:
          The answers in the order of the prompts.

        Raises:
          UserError: see ``check``; or logits that are no numbers.
        """
        names = names or [f"prompt {i}" for i in range(len(prompts))]
        self.check(prompts, names)
        by_length: dict[int, list[range]] = {}
        for block in self._blocks(prompts):
            by_length.setdefault(bucket_length(len(prompts[block[0]])), []).append(block)
        answers: dict[int, Answer] = {}
        for P in sorted(by_length, reverse=True):  # longest first: memory fails at the start
            members = by_length[P]
            for start in range(0, len(members), self.batch_size):
                part = members[start : start + self.batch_size]
                found = self._batch(prompts, names, part, P, check)
                for i, answer in found:
                    answers[i] = answer
                    if on_answer:
                        on_answer(i, answer)
        return [answers[i] for i in range(len(prompts))]

    def _blocks(self, prompts: Sequence[np.ndarray]) -> list[range]:
        """The prompts' numbers, those of equal neighbours together, at most ``copies``."""
        blocks: list[range] = []
        for i, tokens in enumerate(prompts):
            last = blocks[-1] if blocks else range(0)
            same = 0 < len(last) < self.copies and np.array_equal(prompts[last[0]], tokens)
            if same:
                blocks[-1] = range(last.start, i + 1)
            else:
                blocks.append(range(i, i + 1))
        return blocks

    def _batch(
        self,
        prompts: Sequence[np.ndarray],
        names: Sequence[str],
        blocks: Sequence[range],
        P: int,
        check: Callable[[], None],
    ) -> list[tuple[int, Answer]]:
        """(number of a prompt, its answer), of the prompts of a batch's blocks."""
        C, B = self.copies, self.batch_size * self.copies
        tokens_BxP = np.zeros((self.batch_size, P), np.int32)
        lengths, limits = np.ones(B, np.int32), np.zeros(B, np.int32)
        salts = np.zeros(B, np.uint32)
        number = {}  # row -> prompt
        for block, members in enumerate(blocks):
            tokens = prompts[members[0]]
            tokens_BxP[block, : len(tokens)] = tokens
            lengths[block * C : (block + 1) * C] = len(tokens)
            for b, i in enumerate(members, block * C):
                limits[b], salts[b] = self.limit(len(tokens)), zlib.crc32(names[i].encode())
                number[b] = i
        batch = meshes.put_batch({"tokens": tokens_BxP}, self.mesh)
        everywhere = meshes.replicated(self.mesh)
        # Small arrays lie whole on every device, so that every process can read them.
        rows = Rows(*jax.device_put((lengths, limits, salts), everywhere))
        stops, seed = jax.device_put((self.stops, np.uint32(self.seed)), everywhere)
        first = P not in self._compiled
        self._compiled.add(P)
        fixed = self.decoder, self.variables, self.sampling, seed
        with meshes.use(self.mesh):
            began = time.monotonic()
            state = prefill(*fixed, batch["tokens"], rows, stops, self.room, C)
            state.count.block_until_ready()
            filled = time.monotonic()
            count, last = 1, int(limits.max())
            while count < last:
                check()
                until = jax.device_put(np.int32(min(count + _CHUNK, last)), everywhere)
                state = decode(*fixed, state, rows, stops, until)
                before, count = count, int(state.count)
                if count < int(until) or count == before:
                    break
            done = time.monotonic()
        out, sizes, stopped, broken = (
            np.asarray(x) for x in (state.tokens, state.sizes, state.stopped, state.broken)
        )
        if broken.any():
            name = names[number[int(np.argmax(broken))]]
            raise UserError(
                f"{name}: the model's logits are not numbers. The weights "
                'are damaged, or overflow in this dtype: try --config.model.dtype="float32".'
            )
        if first:
            self.costs.compiled += 1
        else:
            self.costs.prefill_tokens += int(lengths[: len(blocks) * C : C].sum())
            self.costs.prefill_seconds += filled - began
            self.costs.decode_tokens += int((sizes[list(number)] - 1).sum())
            self.costs.decode_seconds += done - filled
        return [
            (i, Answer(tuple(int(x) for x in out[b, : sizes[b] - stopped[b]]), bool(stopped[b])))
            for b, i in number.items()
        ]
