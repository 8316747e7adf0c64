"""Bootstrap intervals of means and of ratios of sums, alone or as a difference of two models."""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.intervals import interval
from calib_jax.metrics.settings import checked_settings

# (what is summed above [N], what is summed below [N])
Ratio = tuple[ArrayLike, ArrayLike]
# Row counts held at once.
_CHUNK = 1 << 22


@checked_settings
def bootstrap_ratios(
    ratios: Mapping[str, Sequence[Ratio]],
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float, float]]:
    """Values and percentile intervals of sum(a) / sum(b) over rows that are redrawn.

    N rows are drawn with replacement, the same ones for every name and both models. With b = 1 a
    ratio is a mean; with a the loss of a document and b its tokens, it is the loss of a token,
    and documents are what is drawn. An entry of two ratios stands for second - first: a paired
    change, in which what the two share cancels.

    Args:
        ratios: name -> one pair (a [N], b [N]), or two for their difference. A row whose a or b is
            NaN makes the value NaN.
        num_resamples, seed: of the bootstrap; the same seed and N give the same draws.
        level: nominal coverage.

    Returns:
        name -> (value, low, high), float64. NaN where a value is undefined.

    Raises:
        ValueError: arrays of different lengths, no rows, or an entry of neither one pair nor two.

    Example:
        >>> bootstrap_ratios({"mean": [([2.0, 2.0], [1, 1])]})["mean"]
        (2.0, 2.0, 2.0)
        >>> change = bootstrap_ratios({"loss": [([6.0, 4.0], [3, 2]), ([3.0, 2.0], [3, 2])]})
        >>> change["loss"]
        (-1.0, -1.0, -1.0)
    """
    columns: list[np.ndarray] = []
    spans = []
    for name, pairs in ratios.items():
        if len(pairs) not in (1, 2):
            raise ValueError(f"{name}: expected one pair (above, below) or two, got {len(pairs)}")
        spans.append((len(columns), len(pairs)))
        columns += [np.asarray(side, np.float64) for pair in pairs for side in pair]
    lengths = {column.shape for column in columns}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1 or not len(columns[0]):
        raise ValueError(f"expected arrays of one length N >= 1, got the shapes {sorted(lengths)}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    table = np.column_stack(columns)
    N = len(table)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // N)
    drawn = []
    for first in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - first)
        # Not counts of a multinomial: 0 * inf of a row that was not drawn would be NaN.
        rows = rng.integers(0, N, (size, N), dtype=np.int32)
        drawn += [table[row].sum(axis=0) for row in rows]
    totals = np.vstack([*drawn, table.sum(axis=0)])  # the estimate last
    found = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, (first, count) in zip(ratios, spans, strict=True):
            values = totals[:, first] / totals[:, first + 1]
            if count == 2:
                values = totals[:, first + 2] / totals[:, first + 3] - values
            low, high = interval(values[:-1], values[-1], level, "percentile")
            found[name] = (float(values[-1]), float(low), float(high))
    return found
