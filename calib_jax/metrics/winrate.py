"""Win rates of a model against a baseline: plain, weighted, and with length controlled.

In numpy and float64: a tally of a thousand judgements, on the host.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calib_jax.metrics.intervals import interval

# Strength of the ridge that keeps the fit finite where one side wins everything; see
# ``length_controlled``. sklearn's C = 100.
RIDGE = 0.01
_STEPS = 50
# Resampled counts held at once.
_CHUNK_ELEMENTS = 1 << 22


class LengthControlled(NamedTuple):
    """A fit of ``length_controlled``.

    Attributes:
      win_rate: at equal lengths, sigmoid(theta).
      theta: log-odds of a win at equal lengths.
      phi: how the log-odds grow with tanh(difference in length / its standard deviation).
    """

    win_rate: np.ndarray
    theta: np.ndarray
    phi: np.ndarray


def win_rate(wins: ArrayLike, games: ArrayLike | None = None) -> float:
    """The share of games won, a tie being half a win: sum(wins) / sum(games).

    Args:
        wins: [N] how much each question's games won, between 0 and games; NaN is not allowed.
        games: [N] the weight of each question's games; None: 1 each. Arena-Hard's tally has 2
            games a question, each of weight 3 where the verdict is >>.

    Example:
        >>> win_rate([1, 0.5, 0, 1])
        0.625
    """
    wins, games = _checked(wins, games)
    return float(wins.sum() / games.sum())


def standard_error(wins: ArrayLike, games: ArrayLike | None = None) -> float:
    """The win rate's standard error over questions; NaN for fewer than two.

    With one game of weight 1 a question it is the standard deviation (N - 1) over sqrt(N), as
    AlpacaEval states it; else that of a ratio, linearised: the residuals are wins - rate * games.

    Example:
        >>> round(standard_error([1, 0, 1, 0]), 4)
        0.2887
    """
    wins, games = _checked(wins, games)
    n = len(wins)
    if n < 2:
        return float("nan")
    residuals = wins - wins.sum() / games.sum() * games
    return float(np.sqrt((residuals**2).sum() * n / (n - 1)) / games.sum())


def bootstrap_win_rate(
    wins: ArrayLike,
    games: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the win rate over resampled questions.

    A question's games stay together. (Arena-Hard resamples single games, as if the two games of a
    question were independent, and states 90 %.)
    """
    wins, games = _checked(wins, games)
    draws = np.concatenate(
        [
            (counts @ wins) / (counts @ games)
            for counts in _resamples(len(wins), num_resamples, seed)
        ]
    )
    return _percentiles(draws, level)


def length_controlled(
    wins: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike, games: ArrayLike | None = None
) -> LengthControlled:
    """The win rate that a model would have with answers as long as the baseline's.

        P(win_i) = sigmoid(theta + phi * tanh(d_i / sd(d))),   d_i = length_i - baseline_length_i

    fitted by maximum likelihood on fractional wins, with 0.01 / 2 * (theta^2 + phi^2) added to the
    sum of log losses, without which a model that wins (or loses) everything has no finite fit. The
    length-controlled win rate is sigmoid(theta): d = 0 everywhere. sd is over N - 1.

    It is the idea of AlpacaEval 2, and not its number. The official ``length_controlled_v1``
    (a) has a third term, the instruction's difficulty times a slope of the model's own, with
    difficulties that were fitted once on the leaderboard; (b) adds the judgements of two "gamed"
    baselines (asked to be brief, and to be verbose) with weight 0.2, to steady phi; and (c)
    penalises |weights| (L1) with a strength chosen by 5-fold cross-validation. All three need
    files that it downloads. Ours is its "minimal" formula, tanh(length) + model, with a fixed
    small ridge.

    Source: Dubois et al. 2024, Length-Controlled AlpacaEval (arXiv 2404.04475), section 3.

    Args:
        wins: [N] as in ``win_rate``.
        lengths, baseline_lengths: [N] of the two answers, in characters (AlpacaEval) or tokens.
        games: [N] as in ``win_rate``.

    Example:
        >>> fit = length_controlled([1, 1, 1, 0, 0, 1], [30, 40, 35, 9, 8, 10], [10] * 6)
        >>> round(float(fit.win_rate), 2), bool(fit.phi > 0)   # it wins where it is longer
        (0.44, True)
    """
    wins, games = _checked(wins, games)
    difference = _difference(lengths, baseline_lengths, len(wins))
    fit = _fit(np.ones((1, len(wins))), wins, games, difference)
    return LengthControlled(*(x[0] for x in fit))


def bootstrap_length_controlled(
    wins: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    games: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of ``length_controlled``'s win rate; every resample is fitted anew, the
    standard deviation of the lengths' differences too."""
    wins, games = _checked(wins, games)
    difference = _difference(lengths, baseline_lengths, len(wins))
    draws = np.concatenate(
        [
            _fit(counts, wins, games, difference).win_rate
            for counts in _resamples(len(wins), num_resamples, seed)
        ]
    )
    return _percentiles(draws, level)


def _fit(
    counts: np.ndarray, wins: np.ndarray, games: np.ndarray, difference: np.ndarray
) -> LengthControlled:
    """Newton's method on R fits at once; counts [R, N] says how often each question counts."""
    total = counts.sum(axis=1)
    mean = (counts @ difference) / total
    spread = counts @ difference**2 - total * mean**2
    spread = np.sqrt(np.maximum(spread, 0) / np.maximum(total - 1, 1))
    # Lengths that never differ say nothing.
    scale = np.where(spread > 0, spread, np.inf)
    x = np.tanh(difference / scale[:, None])
    weight, won = counts * games, counts * wins
    theta, phi = np.zeros(len(counts)), np.zeros(len(counts))

    def loss(theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        z = theta[:, None] + phi[:, None] * x
        return (weight * np.logaddexp(0, z) - won * z).sum(axis=1) + RIDGE / 2 * (theta**2 + phi**2)

    value = loss(theta, phi)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * x)))
        residual, curve = weight * p - won, weight * p * (1 - p)
        g0, g1 = residual.sum(1) + RIDGE * theta, (residual * x).sum(1) + RIDGE * phi
        a, b, c = curve.sum(1) + RIDGE, (curve * x).sum(1), (curve * x * x).sum(1) + RIDGE
        determinant = a * c - b * b
        step0, step1 = (c * g0 - b * g1) / determinant, (a * g1 - b * g0) / determinant
        size = np.ones(len(counts))
        for _ in range(30):  # a step that overshoots is halved
            new = loss(theta - size * step0, phi - size * step1)
            worse = new > value + 1e-12
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        theta, phi = theta - size * step0, phi - size * step1
        value = loss(theta, phi)
        if max(np.abs(step0).max(), np.abs(step1).max()) < 1e-10:
            break
    return LengthControlled(1 / (1 + np.exp(-theta)), theta, phi)


def _checked(wins: ArrayLike, games: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    wins = np.asarray(wins, np.float64)
    games = np.ones(len(wins)) if games is None else np.asarray(games, np.float64)
    if wins.ndim != 1 or games.shape != wins.shape or not len(wins):
        raise ValueError(
            f"wins and games must both have shape [N], N >= 1, got {wins.shape} and {games.shape}"
        )
    if not ((games > 0) & (wins >= 0) & (wins <= games)).all():
        raise ValueError("every question must have 0 <= wins <= games and games > 0")
    return wins, games


def _difference(lengths: ArrayLike, baseline_lengths: ArrayLike, count: int) -> np.ndarray:
    ours, theirs = (np.asarray(x, np.float64) for x in (lengths, baseline_lengths))
    if ours.shape != (count,) or theirs.shape != (count,):
        raise ValueError(f"lengths must have shape ({count},), got {ours.shape} and {theirs.shape}")
    return ours - theirs


def _resamples(count: int, num_resamples: int, seed: int):
    """[chunk, N] counts of questions drawn with replacement, ``num_resamples`` in all."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ELEMENTS // count)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def _percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    low, high = interval(draws, np.float64(np.nan), level, "percentile")
    return float(low), float(high)
