"""What is bold in a table: the one rule for every table that holds methods against one another.

A method is bold where the model confidence set of its column holds it: it is not shown to be worse
than the best, at 5 % for the column as a whole, on the same resampled questions.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.clusters import units_of
from calib_jax.metrics.confidence_set import change_p_value, model_confidence_set
from calib_jax.metrics.draws import map_draws, row_counts
from calib_jax.metrics.tails import call
from calib_jax.reports import catalogue, zeros

LEVEL = 0.95
# Of fewer questions nothing is bold: resamples of a handful hardly differ.
MIN_QUESTIONS = 30
NOTE = (
    "Bold: not shown to be worse than the best of the column at 5% (model confidence set, on the "
    "same questions); where all are bold, these questions do not tell them apart. Of fewer than "
    f"{MIN_QUESTIONS} questions none is bold."
)
# split -> metric -> state -> p-value of the model confidence set.
Sets = Mapping[str, Mapping[str, Mapping[str, float]]]
# Row weights that are held at once.
_CHUNK = 1 << 18


def column(
    direction: int,
    values: np.ndarray,
    draws: np.ndarray,
    eligible: Sequence[bool],
    questions: int | None = None,
) -> list[float | None]:
    """The p-values of a column's methods, that they are as good as the best.

    Those of the model confidence set, and no smaller than the p-value of the difference to the best
    alone, which allows for each side's bias (``metrics.intervals.change_interval``).

    Args:
      direction: of the metric; of 0 there is no best.
      values: [P] of the methods.
      draws: [R, P] on the same resampled questions.
      eligible: [P], who may be the best.
      questions: how many there are; None where that is not known.

    Returns:
      [P]; None for a method that is not eligible or has no finite value, and for all where fewer
      than two remain, or of fewer than ``MIN_QUESTIONS`` questions.
    """
    kept = np.flatnonzero(eligible)
    found: list[float | None] = [None] * len(values)
    if not direction or len(kept) < 2 or (questions is not None and questions < MIN_QUESTIONS):
        return found
    p_values = model_confidence_set(values[kept], draws[:, kept], direction, LEVEL).p_values
    known = [(int(i), float(p)) for i, p in zip(kept, p_values, strict=True) if not np.isnan(p)]
    if len(known) < 2:
        return found
    top = max((i for i, _ in known), key=lambda i: direction * values[i])
    first = np.append(draws[:, top], values[top])
    for i, p in known:
        # Noise makes errors larger, a better model's most; the set does not allow for that.
        alone = change_p_value(first, np.append(draws[:, i], values[i])) if i != top else 0.0
        found[i] = max(p, alone)
    return found


def is_bold(p_value: float | None) -> bool:
    """Whether a method of this p-value is in the set; not where it is not known.

    >>> is_bold(0.3), is_bold(0.05), is_bold(None)
    (True, False, False)
    """
    return p_value is not None and p_value > 1 - LEVEL


def judged() -> tuple[catalogue.Metric, ...]:
    """Those of the tables of methods and readings, as far as one direction is better."""
    places = catalogue.OVERVIEW, catalogue.METHODS
    found = (metric for place in places for metric in catalogue.computed(place))
    return tuple(dict.fromkeys(metric for metric in found if metric.direction))


def sets(
    states: Mapping[str, Mapping[str, Scores]],
    calibrated: Mapping[str, Mapping[str, Scores]] | None = None,
    *,
    num_bins: int,
    edges: str,
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """The model confidence sets of all splits.

    A split whose states were not all asked the same questions, in the same order and with the same
    answers, has none, nor has one of a single state or of fewer than ``MIN_QUESTIONS`` questions.

    Args:
      states: state -> split -> scores: models or readings.
      calibrated: the same of what stands beside them in the table of methods.
      num_bins, edges: of the bins.
      seed, num_resamples: of the bootstrap.

    Returns:
      "states", and "methods" (with what was calibrated) -> split -> metric -> state -> p-value.
    """
    every = {**states, **(calibrated or {})}
    families = {"states": states} | ({"methods": every} if calibrated else {})
    found: dict[str, Any] = {name: {} for name in families}
    for split in dict.fromkeys(split for splits in every.values() for split in splits):
        scores = {state: splits[split] for state, splits in every.items() if split in splits}
        first = next(iter(scores.values()))
        same = all(_same_questions(first, other) for other in scores.values())
        units = units_of(len(first), None, first.units)
        if len(scores) < 2 or units.num_units < MIN_QUESTIONS or not same:
            continue
        how = units.plan, jnp.uint32(seed), num_bins, edges, num_resamples
        drawn = [np.asarray(_resampled(*_arrays(one), *how)) for one in scores.values()]
        table = np.stack(drawn, axis=1).astype(np.float64)
        for family, members in families.items():
            among = [state in members for state in scores]
            found[family][split] = {
                metric.key: {
                    state: p
                    for state, p in zip(
                        scores,
                        column(metric.direction, table[-1, :, m], table[:-1, :, m], among),
                        strict=True,
                    )
                    if p is not None
                }
                for m, metric in enumerate(judged())
            }
    return found


def _arrays(scores: Scores) -> tuple[np.ndarray, ...]:
    return scores.probs, zeros.as_read(scores), scores.answers, scores.mask


def _same_questions(one: Scores, other: Scores) -> bool:
    return one.ids == other.ids and np.array_equal(one.answers, other.answers)


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "num_resamples"))
def _resampled(
    probs: Any,
    log_scores: Any,
    answers: Any,
    mask: Any,
    plan: Any,
    seed: jax.Array,
    num_bins: int,
    edges: str,
    num_resamples: int,
) -> jax.Array:
    """[R + 1, F]: the metrics on R resamples, then on all questions; the same rows of any state."""
    every = {
        **catalogue.functions(catalogue.OVERVIEW, num_bins, edges),
        **catalogue.functions(catalogue.METHODS, num_bins, edges),
    }
    functions = [every[metric.key] for metric in judged()]

    def one(key: jax.Array, number: jax.Array) -> list[jax.Array]:
        weights = jnp.where(number == num_resamples, 1, row_counts(key, plan))
        arrays = probs, answers, mask, weights, log_scores
        return [jnp.stack([call(function, *arrays) for function in functions])]

    chunk = _CHUNK // max(answers.shape[0], 1)
    return map_draws(one, seed, num_resamples + 1, chunk)[0]
