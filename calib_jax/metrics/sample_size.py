"""How many questions a calibration error needs in order to be seen; on the host, in float64."""

import math

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_index
from calib_jax.metrics.settings import checked_settings

# Draws of the normal limit: the power is known to 0.004, and N to about one percent.
_DRAWS = 10_000
_MOST = 1e12


@checked_settings
def questions_needed(
    ece: float,
    confidences: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    *,
    power: float = 0.8,
    level: float = 0.05,
) -> int:
    """About how many questions are needed to see a conf-ECE of this size.

    The least N at which ``consistency_test`` of ``conf_ece`` rejects calibration at ``level`` with
    probability ``power``, where the model states these confidences and is right less often by
    ``ece``: its accuracy at confidence c is max(c - d, 0), with d such that the mean gap is
    ``ece``. Errors of other signs in other bins need as many, for conf-ECE adds up sizes.

    With w_m the share of bin m and v_m the mean of c (1 - c) in it, sqrt(N) times the error tends
    to sum_m |Z_m sqrt(w_m v_m)| under calibration, and to sum_m |Z_m sqrt(w_m u_m) + sqrt(N) w_m
    g_m| under the error (u_m for the accuracy, g_m the gap), Z standard normal. Quantile and power
    come from the same 10,000 seeded draws of Z. Nothing that tells two models apart with n rows has
    more power than level + 1 - (1 - ece)^n, the probability that an answer differs, so N is never
    below what that asks for.

    Args:
        ece: the true conf-ECE, above 0 and below the mean confidence.
        confidences: [n] probabilities of the predicted options, of questions like those to come;
            None: evenly spread between 0.25 and 1, as of four options.
        num_bins, edges: of the conf-ECE.
        power: the probability of seeing it, between ``level`` and 1.
        level: of the test.

    Returns:
        N. The limit is that of large N: in bins of a few rows it is a rough figure.

    Raises:
        ValueError: arguments out of their ranges, or confidences that are not probabilities.

    Example:
        >>> [round(questions_needed(ece), -1) for ece in (0.02, 0.05, 0.1)]
        [6400, 1030, 260]
        >>> round(questions_needed(0.05, [0.75]), -1)   # every confidence 0.75
        600
    """
    if confidences is None:
        c = np.linspace(0.25, 1, 3001)
    else:
        c = np.asarray(confidences).astype(np.float64)
        if c.ndim != 1:
            raise ValueError(f"confidences must have shape [N], one of each row, got {c.shape}")
    if not c.size or not ((c >= 0) & (c <= 1 + 1e-6)).all():
        raise ValueError("confidences must be one or more probabilities, between 0 and 1")
    c = np.minimum(c, 1)
    if not 0 < ece < c.mean():
        raise ValueError(
            f"ece must lie between 0 and the mean confidence, {c.mean():.3f}, got {ece}"
        )
    if not 0 < level < power < 1:
        raise ValueError(f"0 < level < power < 1 must hold, got level {level}, power {power}")
    right = np.maximum(c - _shift(c, ece), 0)
    index = np.asarray(bin_index(c.astype(np.float32), num_bins, edges))

    def shares(values):  # of the bins that hold something
        return np.bincount(index, values, minlength=num_bins)[np.unique(index)] / c.size

    gap = shares(c - right)
    spread, other = (np.sqrt(shares(p * (1 - p))) for p in (c, right))
    normal = np.random.default_rng(0).standard_normal((_DRAWS, len(gap)))
    limit = np.quantile(np.abs(normal * spread).sum(axis=1), 1 - level)

    def seen(rows):
        error = np.abs(normal * other + math.sqrt(rows) * gap).sum(axis=1)
        return np.mean(error > limit) >= power

    low, high = 1.0, _MOST
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if seen(middle) else (middle, high)
    fewest = math.log1p(level - power) / math.log1p(-ece)
    return math.ceil(max(high, fewest))


def _shift(confidences: np.ndarray, ece: float) -> float:
    """d with mean min(c, d) = ece."""
    ordered = np.sort(confidences)
    # mean min(c, c_(i)) at every order statistic; linear in d between them.
    below = (np.cumsum(ordered) + ordered * np.arange(len(ordered) - 1, -1, -1)) / len(ordered)
    return float(np.interp(ece, np.append(0, below), np.append(0, ordered)))
