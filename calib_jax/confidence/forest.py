"""Pairs as prefix trees: what several sequences begin with in common stands once.

A tree in depth-first order is three arrays: the tokens, their positions (depths), and where the
subtree of each ends. Rows are filled with whole trees, a group's pairs in one of them.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from calib_jax.questions.pairs import Pair

# Tokens that a family must save to be worth rows of its own, the last of which is half empty.
SHARING_SAVES = 256
# Targets that one read holds; a place with more of them is read again.
TARGETS = 8


@dataclasses.dataclass(frozen=True)
class Tree:
    """The fed tokens of a group's pairs, shared beginnings once, in depth-first order.

    Attributes:
      tokens: [L] int32.
      positions: [L] int32, depth in the tree, counted from the sequences' first token.
      ends: [L] int32, where each token's subtree ends, counted in this tree.
      reads: [R] int32, the places after which targets are read, in order; a place stands again for
        every further ``TARGETS`` of them.
      targets: [R, J] int32, the tokens scored at each read; 0 where there are fewer than J.
      found: one array [T, 2] for each pair: read and column of each of its targets.
    """

    tokens: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    reads: np.ndarray
    targets: np.ndarray
    found: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def branches(self) -> bool:
        """Whether any sequence shares its beginning with another: if not, they stand in a row."""
        return bool(((self.positions[1:] > 0) & (self.ends[1:] != self.ends[:-1])).any())


def common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens a and b begin with in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def group_prefix(pairs: Sequence[Pair]) -> np.ndarray:
    """The tokens that all pairs begin with and that come before every place that is read."""
    first, *rest = pairs
    length = min(len(pair.tokens) - pair.num_targets - 1 for pair in pairs)
    for pair in rest:
        length = min(length, common_prefix(first.tokens, pair.tokens))
    return first.tokens[: max(length, 0)]


def build_tree(pairs: Sequence[Pair], skip: int = 0) -> Tree:
    """Merges pairs into one tree.

    Args:
      pairs: each with at least one target.
      skip: so many tokens, common to all and not read, are left out: they stand elsewhere.
    """
    fed = [pair.tokens[skip:-1] for pair in pairs]
    order = sorted(range(len(fed)), key=lambda i: fed[i].tolist())
    pieces, depths = [], []
    count = 0
    ends = np.zeros(sum(map(len, fed)), np.int32)
    path = np.zeros(max(map(len, fed)), np.int32)  # of the sequence at hand: depth -> place
    height = 0
    places = {}
    last = fed[order[0]][:0]
    for i in order:
        shared = common_prefix(last, fed[i])
        ends[path[shared:height]] = count
        new = len(fed[i]) - shared
        path[shared : shared + new] = np.arange(count, count + new)
        height = shared + new
        pieces.append(fed[i][shared:])
        depths.append(np.arange(shared, height))
        count += new
        last = fed[i]
        places[i] = path[height - pairs[i].num_targets : height].copy()
    ends[path[:height]] = count
    reads, targets, found = _reads([places[i] for i in range(len(fed))], pairs)
    return Tree(
        tokens=np.concatenate(pieces).astype(np.int32),
        positions=np.concatenate(depths).astype(np.int32) + np.int32(skip),
        ends=ends[:count],
        reads=reads,
        targets=targets,
        found=found,
    )


def join_trees(trees: Sequence[Tree]) -> Tree:
    """Trees one after the other as one, beginnings that two of them share standing in both."""
    places = np.cumsum([0, *(len(tree) for tree in trees)])[:-1]
    reads = np.cumsum([0, *(len(tree.reads) for tree in trees)])[:-1]
    J = max(tree.targets.shape[1] for tree in trees)
    return Tree(
        tokens=np.concatenate([tree.tokens for tree in trees]),
        positions=np.concatenate([tree.positions for tree in trees]),
        ends=np.concatenate([t.ends + np.int32(p) for t, p in zip(trees, places, strict=True)]),
        reads=np.concatenate([t.reads + np.int32(p) for t, p in zip(trees, places, strict=True)]),
        targets=np.concatenate(
            [np.pad(t.targets, ((0, 0), (0, J - t.targets.shape[1]))) for t in trees]
        ),
        found=tuple(
            pair + np.array([first, 0])
            for tree, first in zip(trees, reads, strict=True)
            for pair in tree.found
        ),
    )


def _reads(places: list[np.ndarray], pairs: Sequence[Pair]):
    """``Tree.reads``, ``targets`` and ``found``: each (place, token) is scored once."""
    tokens = [pair.tokens[len(pair.tokens) - pair.num_targets :] for pair in pairs]
    keys = np.concatenate(places).astype(np.int64) << 32 | np.concatenate(tokens)
    unique, which = np.unique(keys, return_inverse=True)
    place = (unique >> 32).astype(np.int32)
    rank = np.arange(len(unique)) - np.searchsorted(place, place)
    column = rank % TARGETS
    read = np.cumsum(column == 0) - 1
    targets = np.zeros((read[-1] + 1, TARGETS), np.int32)
    targets[read, column] = (unique & 0xFFFFFFFF).astype(np.int32)
    found = np.stack([read, column], axis=1)[which.reshape(-1)]
    split = np.split(found, np.cumsum([len(t) for t in tokens])[:-1])
    return place[column == 0], targets, tuple(split)


@dataclasses.dataclass(frozen=True)
class Size:
    """What a tree takes, without building it.

    Attributes:
      room: places that it takes in a row: its tokens, or more where it has very many targets.
      tokens: of the tree, the skipped ones left out.
      keys: that its tokens attend to, themselves and skipped ones included.
      reads: places that are read.
    """

    room: int
    tokens: int
    keys: int
    reads: int


def tree_size(pairs: Sequence[Pair], skip: int = 0) -> Size:
    """The size of the tree that ``build_tree`` would give."""
    fed = sorted((pair.tokens[skip:-1].tolist(), pair.num_targets) for pair in pairs)
    tokens = keys = reads = last_start = 0
    last: list[int] = []
    for this, num_targets in fed:
        shared = next((i for i, (a, b) in enumerate(zip(last, this, strict=False)) if a != b), -1)
        if shared < 0:
            shared = min(len(last), len(this))
        start, n = len(this) - num_targets, len(this)
        tokens += n - shared
        keys += (n - shared) * (2 * skip + n + shared + 1) // 2
        reads += num_targets - max(0, shared - max(start, last_start))
        last, last_start = this, start
    return Size(max(tokens, sum(n for _, n in fed) // TARGETS), tokens, keys, reads)


def pack(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Fills rows with items, whole: best fit, largest first.

    Args:
      sizes: of the items, each at most ``capacity``.
      capacity: of a row.

    Returns:
      The items of every row.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (space left, row), sorted
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[item]
        best = bisect.bisect_left(room, (size, -1))
        if best < len(room):
            left, row = room.pop(best)
        else:
            rows.append([])
            left, row = capacity, len(rows) - 1
        rows[row].append(item)
        bisect.insort(room, (left - size, row))
    return rows


@dataclasses.dataclass(frozen=True)
class Family:
    """Groups that begin alike.

    Attributes:
      members: indices of the groups.
      prefix: [P] int32, the tokens that all their pairs begin with; none of them is read.
      cached: whether the prefix is computed once for all of them, rather than once a row.
    """

    members: tuple[int, ...]
    prefix: np.ndarray
    cached: bool


def find_families(
    prefixes: Sequence[np.ndarray],
    worth: Callable[[Sequence[int], int], bool],
    *,
    shortest: int = 4,
    cached_from: int = 64,
) -> list[Family]:
    """Sorts groups into families by what they begin with; every group is in one.

    Args:
      prefixes: of each group, see ``group_prefix``.
      worth: (groups, tokens that they share) -> whether to compute these once for several rows, as
        few-shot examples are.
      shortest: tokens that are shared within a row.
      cached_from: fewest tokens that ``worth`` is asked about.
    """
    order = sorted(range(len(prefixes)), key=lambda i: prefixes[i].tolist())
    families, rest = [], []
    for run, length in _runs(order, prefixes, cached_from):
        if worth(run, length):
            families.append(Family(tuple(run), prefixes[run[0]][:length], True))
        else:
            rest += run
    alone: list[int] = []  # one family, or each would take a row of its own
    for run, length in _runs(rest, prefixes, shortest):
        if (len(run) - 1) * length >= SHARING_SAVES:
            families.append(Family(tuple(run), prefixes[run[0]][:length], False))
        else:
            alone += run
    if alone:
        families.append(Family(tuple(sorted(alone)), prefixes[alone[0]][:0], False))
    return families


def _runs(
    order: list[int], prefixes: Sequence[np.ndarray], shortest: int
) -> Iterator[tuple[list[int], int]]:
    """Neighbours that share ``shortest`` tokens or more, and how many all of them share."""
    run: list[int] = []
    length = 0
    for i in order:
        shared = common_prefix(prefixes[run[-1]], prefixes[i]) if run else 0
        if run and shared >= shortest:
            run.append(i)
            length = min(length, shared)
            continue
        if run:
            yield run, length
        run, length = [i], len(prefixes[i])
    if run:
        yield run, length
