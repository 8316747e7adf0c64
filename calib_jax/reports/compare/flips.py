"""A change of accuracy between two methods, from the questions that flip."""

import math
import statistics

import numpy as np

from calib_jax.metrics.winrate import effective_games, win_rate_interval

# Of a change: the difference, its interval's ends, and the p-value.
Change = tuple[float, float, float, float]


def weighted_change(moved: np.ndarray, weights: np.ndarray, level: float = 0.95) -> Change:
    """The change of a mean over seeds, with a score interval over questions and its p-value.

    A question that k of S seeds gain weighs as k/S of a flip. The change is a win rate in which
    what no seed moves is tied, (1 + change)/2, so its interval is Wilson's of as many games as
    tell as much (``metrics.winrate``): never a point. The p-value is that interval's own.

    Args:
      moved: [N] a question's part of the difference, between -weights and weights.
      weights: [N] a question's part of the questions; their sum is 1.
      level: nominal coverage.
    """
    wins = np.clip((weights + moved) / 2, 0, weights)
    low, high = win_rate_interval(wins, weights, level)
    rate, count = float(wins.sum() / weights.sum()), effective_games(wins, weights)
    z = abs(rate - 0.5) * 2 * math.sqrt(count)
    p_value = 2 * statistics.NormalDist().cdf(-z)
    return float(moved.sum()), 2 * low - 1, 2 * high - 1, p_value
