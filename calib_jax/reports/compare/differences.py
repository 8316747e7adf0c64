"""Methods against the reference: accuracies by their flips, and p-values of all of a table."""

import dataclasses
import math
import statistics
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.confidence_set import step_down_p_values
from calib_jax.metrics.paired_accuracy import accuracy_change
from calib_jax.metrics.winrate import effective_games, win_rate_interval
from calib_jax.reports import catalogue
from calib_jax.reports.compare.comparison import DOMAINS, Estimate, Versus

# Method -> part -> metric -> estimate.
Rows = Mapping[str, dict[str, dict[str, Estimate]]]


def of_accuracy(
    reference: Sequence[Scores],
    method: Sequence[Scores],
    splits: Collection[str],
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The interval of a change of accuracy, the mean over seeds, and its p-value: see ``of_flips``.

    Args:
      reference, method: S pooled scores of the same questions each, ids "split/id".
      splits: whose questions count.
      level: nominal coverage.
    """
    moved: dict[str, float] = {}
    weights: dict[str, float] = {}
    for one, other in zip(reference, method, strict=True):
        kept = [i for i, key in enumerate(one.ids) if key.partition("/")[0] in splits]
        first, last = ((s.predictions == s.answers)[kept].astype(int) for s in (one, other))
        part = 1 / (len(reference) * len(kept))
        for i, change in zip(kept, last - first, strict=True):
            moved[one.ids[i]] = moved.get(one.ids[i], 0.0) + part * change
            weights[one.ids[i]] = weights.get(one.ids[i], 0.0) + part
    return of_flips(np.array([*moved.values()]), np.array([*weights.values()]), level)


def of_flips(
    moved: np.ndarray, weights: np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """The interval of a mean change, from what moves question by question, and its p-value.

    Where questions weigh alike and flip wholly or not at all, as of one seed, it is Tango's score
    interval (``metrics.accuracy_change``). What k of S seeds gain is k/S of a flip: the change is
    then a win rate in which what no seed moves is tied, (1 + change)/2, with Wilson's interval of
    as many games as tell as much (``metrics.winrate``). Neither is ever a point.

    Args:
      moved: [N] a question's part of the change, between -weights and weights.
      weights: [N] a question's part of the questions, above 0.
      level: nominal coverage.
    """
    share = moved / weights
    if np.ptp(weights) < 1e-9 * weights.max() and np.abs(share - np.rint(share)).max() < 1e-9:
        found = accuracy_change(share < -0.5, share > 0.5, level)
        return found.low, found.high, found.p_value
    wins = np.clip((weights + moved) / 2, 0, weights)
    low, high = win_rate_interval(wins, weights, level)
    change, count = float(moved.sum() / weights.sum()), effective_games(wins, weights)
    p_value = 2 * statistics.NormalDist().cdf(-abs(change) * math.sqrt(count))
    return 2 * low - 1, 2 * high - 1, p_value


def by_chance(estimate: Estimate, limit: float) -> Estimate:
    """A calibration error whose interval holds 0 exactly where chance alone explains it.

    Args:
      estimate: of the error.
      limit: what a perfectly calibrated model exceeds in one sample of 20; see
        ``metrics.low_by_test``.
    """
    if estimate.interval is None or math.isnan(limit):
        return estimate
    low, high = estimate.interval
    if estimate.value <= limit:
        low = 0.0
    elif low <= 0:
        low = estimate.value - limit
    return dataclasses.replace(estimate, interval=(low, high))


def adjusted(rows: Rows, reference: str, draws: Mapping[tuple[str, str, str], np.ndarray]) -> None:
    """Sets the adjusted p-values of the differences that the table against the reference holds.

    Those of one model are a family: all methods, both domains, all metrics of the table.

    Args:
      rows: what ``Comparison.rows`` holds; changed in place.
      reference: the method that the others are compared with.
      draws: (method, part, metric) -> [R], on the same resampled questions.
    """
    shown = {metric.key for metric in catalogue.at(catalogue.VERSUS)}
    found: dict[tuple[str, str, str], Versus] = {}
    for name, by_part in rows.items():
        for part in DOMAINS:
            for metric, estimate in by_part.get(part, {}).items():
                if metric in shown and estimate.versus is not None:
                    found[name, part, metric] = estimate.versus
    if not found:
        return
    table = np.stack([draws[key] - draws[reference, *key[1:]] for key in found], axis=1)
    p_values = step_down_p_values([versus.difference for versus in found.values()], table)
    for (name, part, metric), p_value in zip(found, p_values.tolist(), strict=True):
        versus = found[name, part, metric]
        if not math.isnan(p_value) and not math.isnan(versus.p_value):
            versus = dataclasses.replace(versus, adjusted_p=max(p_value, versus.p_value))
            cell = rows[name][part]
            cell[metric] = dataclasses.replace(cell[metric], versus=versus)
