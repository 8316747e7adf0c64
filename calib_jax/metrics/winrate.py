"""Win rates of a model against a baseline: plain, weighted, and with length controlled.

In numpy and float64: a tally of a thousand judgements, on the host.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calib_jax.metrics.shares import wilson_interval

# Strength of the ridge that keeps the fit finite where one side wins everything; see
# ``length_controlled``. sklearn's C = 100.
RIDGE = 0.01
_STEPS = 50


class LengthControlled(NamedTuple):
    """A fit of ``length_controlled``.

    Attributes:
      win_rate: at equal lengths, sigmoid(theta).
      theta: log-odds of a win at equal lengths.
      phi: how the log-odds grow with tanh(difference in length / its standard deviation).
    """

    win_rate: float
    theta: float
    phi: float


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


def effective_games(wins: ArrayLike, games: ArrayLike | None = None) -> float:
    """How many won-or-lost games would tell as much of the win rate as these questions do.

    The rate r has the variance V over questions (``standard_error``, with N in place of N - 1), and
    n single games without ties have r (1 - r)/n: so n = r (1 - r)/V. To know V of a handful, one
    question won and one lost, of mean weight, are added to both before, and n is scaled back by
    N/(N + 2). Of single games it is N itself, however they end, more of games with ties, fewer of
    questions whose weights differ.

    Example:
        >>> [round(effective_games(wins)) for wins in ([1] * 20, [0.5] * 18 + [1, 0])]
        [20, 110]
    """
    wins, games = _checked(wins, games)
    n, mean = len(wins), games.mean()
    wins, games = np.append(wins, [mean, 0]), np.append(games, [mean, mean])
    rate = wins.sum() / games.sum()
    variance = ((wins - rate * games) ** 2).sum() / games.sum() ** 2
    return float(rate * (1 - rate) / variance * n / (n + 2))


def win_rate_interval(
    wins: ArrayLike, games: ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of the win rate, of as many games as ``effective_games`` says.

    Of single games that are won or lost it is Wilson's own. Ties and preferences between 0 and 1
    make it narrower, weights and questions of several games wider; a question's games stay
    together. It is never a point. (Arena-Hard resamples single games, as if the two games of a
    question were independent, and states 90 %.)

    Source: Wilson 1927 (``wilson_interval``); Korn and Graubard 1998, Confidence
    intervals for proportions with small expected number of positive counts estimated from survey
    data (the effective number).

    Example:
        >>> low, high = win_rate_interval([1] * 20)
        >>> round(low, 3), high
        (0.839, 1.0)
    """
    rate, count = win_rate(wins, games), effective_games(wins, games)
    low, high = wilson_interval(rate * count, count, level)
    return float(low), float(high)


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
    wins, games, x = _standard(wins, games, lengths, baseline_lengths)
    theta, phi, _ = _fit(wins, games, x)
    return LengthControlled(_sigmoid(theta), theta, phi)


def length_controlled_interval(
    wins: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    games: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Profile likelihood interval of ``length_controlled``'s win rate.

    It holds every theta that, with the best phi for it, loses at most half the chi-squared
    quantile of ``level`` (1.92 at 95 %) against the fit. The log-likelihood is scaled to
    ``effective_games``, which allows for ties and weights. Where one side wins everything, one end
    is next to 0 or 1, and the other as far away as so many games make it.

    Args:
        wins, lengths, baseline_lengths, games: as in ``length_controlled``.
        level: nominal coverage, strictly between 0 and 1.

    Example:
        >>> low, high = length_controlled_interval([1] * 20, range(20), [10] * 20)
        >>> 0.8 < low < 0.95, high > 0.999
        (True, True)
    """
    won, played, x = _standard(wins, games, lengths, baseline_lengths)
    scale = effective_games(won, played) / played.sum()
    won, played = scale * won, scale * played
    theta, _, least = _fit(won, played, x)
    bound = least + statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2 / 2

    def end(sign: int) -> float:
        inside, outside = theta, theta + sign
        while _fit(won, played, x, outside)[2] < bound:
            inside, outside = outside, outside + 2 * (outside - theta)
        for _ in range(30):
            middle = (inside + outside) / 2
            if _fit(won, played, x, middle)[2] < bound:
                inside = middle
            else:
                outside = middle
        return _sigmoid(outside)

    return end(-1), end(+1)


def _standard(
    wins: ArrayLike, games: ArrayLike | None, lengths: ArrayLike, baseline_lengths: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """wins, games and tanh(difference in length / its standard deviation), [N] each."""
    wins, games = _checked(wins, games)
    ours, theirs = (np.asarray(x, np.float64) for x in (lengths, baseline_lengths))
    if ours.shape != wins.shape or theirs.shape != wins.shape:
        raise ValueError(f"lengths must have shape {wins.shape}, got {ours.shape}, {theirs.shape}")
    difference = ours - theirs
    spread = difference.std(ddof=1) if len(wins) > 1 else 0.0
    # Lengths that never differ say nothing.
    return wins, games, np.tanh(difference / spread) if spread else np.zeros(len(wins))


def _sigmoid(theta: float) -> float:
    return 1 / (1 + math.exp(-theta))


def _fit(
    wins: np.ndarray, games: np.ndarray, x: np.ndarray, theta: float | None = None
) -> tuple[float, float, float]:
    """theta, phi and their loss, by Newton's method; with a ``theta``, the best phi for it."""
    at = np.array([theta or 0.0, 0.0])
    free = slice(0, 2) if theta is None else slice(1, 2)
    columns = np.stack([np.ones(len(x)), x])

    def loss(at: np.ndarray) -> float:
        z = at @ columns
        return float((games * np.logaddexp(0, z) - wins * z).sum() + RIDGE / 2 * (at @ at))

    value = loss(at)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(at @ columns)))
        gradient = columns @ (games * p - wins) + RIDGE * at
        curve = (columns * (games * p * (1 - p))) @ columns.T + RIDGE * np.eye(2)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curve[free, free], gradient[free])
        for _ in range(30):  # a step that overshoots is halved
            if loss(at - step) <= value + 1e-12:
                break
            step /= 2
        at = at - step
        value = loss(at)
        if np.abs(step).max() < 1e-10:
            break
    return float(at[0]), float(at[1]), value


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
