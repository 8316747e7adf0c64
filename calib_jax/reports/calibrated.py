"""What post-hoc calibrators make of the same scores, out of fold: summary["posthoc"]."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax import posthoc
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError, UserNotice
from calib_jax.reports import measure as measuring

# Methods of calib_jax.posthoc that scores and answers alone do not feed.
NEEDS_MORE = {
    "daca": "the pre-trained model's log-scores of the same questions",
    "contextual_calibration": "log-scores of content-free prompts",
    "pride": "log-scores of the questions with permuted options",
}
# Of a ROW, what a calibrator's part of the summary leaves out.
_LEFT_OUT = frozenset({"groups", "answer_counts", "num_options", "questions_needed"})


def check(names: Sequence[str]) -> None:
    """Raises UserError for an unknown method, or that needs more than scores."""
    for name in names:
        if name in NEEDS_MORE:
            raise UserError(
                f"config.posthoc.methods names {name!r}, which needs {NEEDS_MORE[name]}; a report "
                "has the scores and the answers only. Call calib_jax.posthoc from Python for it."
            )
        if name not in posthoc.METHODS:
            known = ", ".join(sorted(set(posthoc.METHODS) - set(NEEDS_MORE)))
            raise UserError(f"config.posthoc.methods names {name!r}; choose from: {known}.")


def measure(
    names: Sequence[str],
    states: Mapping[str, Mapping[str, Scores]],
    domains: Mapping[str, str],
    *,
    folds: int,
    seed: int,
    **options: Any,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The calibrators on the scores before training, every fold's fitted on the other folds.

    Args:
      names: of calibrators.
      states: state -> split -> scores; "before" is taken, or every state where there is none.
      domains: split -> "in", "out" or "".
      folds, seed: of the cross-fit.
      **options: as in ``measure.measure``.

    Returns:
      method -> split -> figures; "<state> + <method>" where there is more than one state.

    Raises:
      UserError: a split with too few questions for the folds.
    """
    chosen = {"before": states["before"]} if "before" in states else states
    result = {}
    for name in names:
        for state, splits in chosen.items():
            label = name if len(chosen) == 1 else f"{state} + {name}"
            result[label] = {
                split: _measure(name, split, scores, domains[split], folds, seed, options)
                for split, scores in splits.items()
            }
    return result


def _measure(name, split, scores: Scores, domain, folds, seed, options) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", posthoc.CalibrationWarning)
            fitted = posthoc.cross_fit_scores(name, scores, folds=folds, seed=seed)
    except ValueError as error:
        raise UserError(f"config.posthoc: {name} on {split}: {error}") from None
    fitted = dataclasses.replace(fitted, subjects=(), mass=None)
    row = measuring.measure(fitted, domain, seed=seed, **options)
    result = {key: value for key, value in row.items() if key not in _LEFT_OUT}
    result["folds"] = folds
    said = dict.fromkeys(
        str(w.message) for w in caught if issubclass(w.category, posthoc.CalibrationWarning)
    )
    if said:
        result["warnings"] = list(said)
        for text in said:
            warnings.warn(f"{name} on {split}: {text}", UserNotice, stacklevel=2)
    return result
