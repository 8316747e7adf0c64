"""What post-hoc calibrators make of the same scores, out of fold: summary["posthoc"]."""

import dataclasses
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax import posthoc
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError, UserNotice
from calib_jax.reports import measure as measuring
from calib_jax.reports.figures.reliability import file_name

# Methods of calib_jax.posthoc that scores and answers alone do not feed.
NEEDS_MORE = {
    "daca": "the pre-trained model's log-scores of the same questions",
    "contextual_calibration": "log-scores of content-free prompts",
    "pride": "log-scores of the questions with permuted options",
}
# Of a ROW, what a calibrator's part of the summary leaves out.
_LEFT_OUT = frozenset({"groups", "answer_counts", "num_options", "questions_needed"})
# Where a run keeps the calibrators fitted to all rows.
FOLDER = "calibrators"
# Those whose fit takes a prior count.
_COUNTING = (posthoc.HistogramBinning, posthoc.IsotonicRegression)


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """What calibrators make of scores.

    Attributes:
      figures: method -> split -> figures out of fold, "<state> + <method>" where there is more than
        one state. "calibrator" names the file of the fit to all rows; "parameters" holds that
        fit's numbers where they are few (``Calibrator.scalars``), and temperature_ci.
      scores: method -> split -> the calibrated scores, out of fold.
      files: file -> the calibrator fitted to all rows.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    scores: dict[str, dict[str, Scores]]
    files: dict[str, posthoc.Calibrator]


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


def settings(name: str, pseudo_count: float) -> dict[str, Any]:
    """What a method's fit is given of the config: the prior count, where it takes one."""
    return {"pseudo_count": pseudo_count} if issubclass(posthoc.METHODS[name], _COUNTING) else {}


def measure(
    names: Sequence[str],
    states: Mapping[str, Mapping[str, Scores]],
    domains: Mapping[str, str],
    *,
    folds: int,
    seed: int,
    pseudo_count: float = 1.0,
    **options: Any,
) -> Calibrated:
    """The calibrators on the scores before training, every fold's fitted on the other folds.

    Args:
      names: of calibrators.
      states: state -> split -> scores; "before" is taken, or every state where there is none.
      domains: split -> "in", "out" or "".
      folds, seed: of the cross-fit.
      pseudo_count: of ``HistogramBinning`` and ``IsotonicRegression``.
      **options: as in ``measure.measure``.

    Raises:
      UserError: a split with too few questions for the folds.
    """
    chosen = {"before": states["before"]} if "before" in states else states
    found = Calibrated({}, {}, {})
    for name in names:
        fit = settings(name, pseudo_count)
        for state, splits in chosen.items():
            label = name if len(chosen) == 1 else f"{state} + {name}"
            found.figures[label], found.scores[label] = {}, {}
            for split, scores in splits.items():
                row, crossed, fitted = _measure(
                    name, split, scores, domains[split], folds, seed, fit, options
                )
                stem = f"{FOLDER}/{file_name(label)}_{file_name(split)}"
                # Two splits may differ in characters that no file's name has.
                paths = (f"{stem}{'_' * more}.json" for more in itertools.count())
                path = next(path for path in paths if path not in found.files)
                found.files[path] = fitted
                found.figures[label][split] = {**row, "calibrator": path}
                found.scores[label][split] = crossed
    return found


def _measure(
    name: str, split: str, scores: Scores, domain: str, folds: int, seed: int, fit, options
) -> tuple[dict[str, Any], Scores, posthoc.Calibrator]:
    """The figures and scores out of fold, and the calibrator fitted to all rows."""
    arrays = scores.log_scores, scores.answers, scores.mask
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", posthoc.CalibrationWarning)
            crossed = posthoc.cross_fit_scores(name, scores, folds=folds, seed=seed, **fit)
            fitted = posthoc.fit_scores(name, scores, **fit)
            interval = None
            if name == "temperature":
                interval = posthoc.temperature_interval(*arrays, clusters=scores.units)
    except ValueError as error:
        raise UserError(f"config.posthoc: {name} on {split}: {error}") from None
    crossed = dataclasses.replace(crossed, subjects=(), mass=None)
    row = measuring.measure(crossed, domain, seed=seed, **options)
    result = {key: value for key, value in row.items() if key not in _LEFT_OUT}
    result["folds"] = folds
    if fitted.scalars:
        result["parameters"] = {key: getattr(fitted, key) for key in fitted.scalars}
    if interval:
        result["parameters"]["temperature_ci"] = list(interval)
    said = dict.fromkeys(
        str(w.message) for w in caught if issubclass(w.category, posthoc.CalibrationWarning)
    )
    if said:
        result["warnings"] = list(said)
        for text in said:
            warnings.warn(f"{name} on {split}: {text}", UserNotice, stacklevel=2)
    return result, crossed, fitted
