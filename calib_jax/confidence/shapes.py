"""Which row lengths a run compiles: few of them, little padding, little attention across trees."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from calib_jax.confidence.forest import pack
from calib_jax.models.config import ModelConfig
from calib_jax.questions.batches import choose_buckets

# Packing is tried on so many items when lengths are compared.
SAMPLE = 2000
_BASES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


@dataclasses.dataclass(frozen=True)
class Flops:
    """Floating-point operations of a forward pass, counted as two for each multiply-add.

    Attributes:
      token: of every matrix product of the layers, a token.
      key: of attention, for each key that a token is compared with.
      read: of the LM head, for each place that is read.
    """

    token: int
    key: int
    read: int

    @classmethod
    def of(cls, config: ModelConfig) -> "Flops":
        D, F, H, G, C = (
            config.hidden_size,
            config.intermediate_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
        )
        attention = 2 * D * H * C + 2 * D * G * C
        mlp = (3 if config.gated else 2) * D * F
        return cls(
            token=2 * config.num_layers * (attention + mlp),
            key=4 * config.num_layers * H * C,
            read=2 * D * config.vocab_size,
        )


@dataclasses.dataclass
class Costs:
    """What scoring took, and the least that it could: each context once, each option once.

    Attributes:
      tokens: fed, shared ones once.
      computed: tokens of all rows and prefixes, padding included.
      reads: places that the LM head was needed at.
      flops: of everything computed.
      least_flops: with every group's tree computed by itself, unpadded, attending to its ancestors.
    """

    tokens: int = 0
    computed: int = 0
    reads: int = 0
    flops: int = 0
    least_flops: int = 0


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a run compiles.

    Attributes:
      plain: lengths of rows that stand for themselves, increasing.
      cached: padded length of a cached prefix, and length of the rows after it, both increasing.
        Every prefix is computed at the longest length, by one program.
    """

    plain: tuple[int, ...] = ()
    cached: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """Programs: one a row length, one a pair, and one for the prefixes themselves."""
        return len(self.plain) + len(self.cached) + bool(self.cached)


def row_lengths(
    sizes: Sequence[int],
    max_lengths: int,
    multiple: int,
    flops: Flops,
    batch_rows: Callable[[int], int],
) -> tuple[int, ...]:
    """The row lengths that compute the least, padding and attention counted.

    Items up to the first length are packed into rows of it; longer ones get rows of the shortest
    length that holds them, which are packed too.

    Args:
      sizes: tokens of every item, at least one.
      max_lengths: how many lengths there may be.
      multiple: of the lengths.
      flops: of the model.
      batch_rows: how many rows of a length make a batch; the last one is computed whole.
    """
    ordered = np.sort(np.asarray(sizes))
    step = -(-len(ordered) // SAMPLE)
    sample = ordered[step // 2 :: step]
    longest = _round_up(int(ordered[-1]), multiple)
    bases = {_round_up(base, multiple) for base in _BASES}
    best: tuple[int, ...] = (longest,)
    least = np.inf
    for base in sorted({base for base in bases if base >= ordered[0]} | {longest}):
        above = ordered[ordered > base]
        if len(above) and max_lengths == 1:
            continue
        for more in range(1, max_lengths) if len(above) else (0,):
            lengths = (base, *(choose_buckets(above, more, multiple) if more else ()))
            cost = 0
            for low, high in zip((0, *lengths), lengths, strict=False):
                members = sample[(sample > low) & (sample <= high)]
                rows = step * len(pack(members.tolist(), high)) if len(members) else 0
                B = batch_rows(high)
                cost += -(-rows // B) * B * high * (flops.token + flops.key * high)
            if cost < least:
                best, least = lengths, cost
    return best


def cached_lengths(
    families: Sequence[tuple[int, Sequence[int]]], max_shapes: int, multiple: int, flops: Flops
) -> tuple[tuple[int, int], ...]:
    """Padded prefix lengths, and for each the row length that computes the least.

    An item longer than the row length is computed together with its prefix, in a row of its own.

    Args:
      families: prefix length, and the items' tokens beyond it.
      max_shapes: how many pairs there may be.
      multiple, flops: as in ``row_lengths``.
    """
    shapes = []
    buckets = choose_buckets([prefix for prefix, _ in families], max_shapes, multiple)
    for low, high in zip((0, *buckets), buckets, strict=False):
        items = [(P, size) for P, sizes in families if low < P <= high for size in sizes]
        if not items:
            continue
        prefixes, sizes = np.array(items).T
        longest = _round_up(int(sizes.max()), multiple)
        best, least = longest, np.inf
        for base in sorted({min(_round_up(base, multiple), longest) for base in _BASES}):
            long = sizes > base
            alone = ((prefixes + sizes) * (flops.token + flops.key * (prefixes + sizes)))[long]
            cost = sizes[~long].sum() * (flops.token + flops.key * (high + base)) + alone.sum()
            if cost < least:
                best, least = base, cost
        # Short rows hold few items each: room for several wastes less of it.
        shapes.append((high, max(best, _round_up(256, multiple))))
    return tuple(shapes)


def read_chunks(length: int, batch_rows: int, at_a_time: int) -> tuple[int, int]:
    """Places of a row that the LM head is applied to at a time, and room for places of a row.

    Args:
      length: of the rows.
      batch_rows: rows of a batch.
      at_a_time: places of a whole batch that the LM head is applied to at a time.
    """
    chunk = max(1, min(length, at_a_time // batch_rows))
    return chunk, -(-2 * length // chunk) * chunk


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
