"""What the base model repairs of the aligned one's confidence, without labels.

DACA takes a temperature from it, BaseCal-ReEval the probability of the aligned model's answer. All
are compared as a confidence [N] in the aligned model's prediction, which neither of them changes.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax import metrics, posthoc
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.posthoc import CalibrationWarning
from calib_jax.reports import catalogue, tables
from calib_jax.reports.study import changes
from calib_jax.reports.tables import Cell, Column, Row, Table

# Who says how sure the aligned model is of its own answer.
LABELS = {"aligned": "as it is", "daca": "DACA", "reeval": "BaseCal-ReEval"}
METRICS = tuple(
    metric
    for metric in catalogue.METRICS
    if metric.key in ("accuracy", "conf_ece", "auroc", "mean_confidence")
)
NOTE = (
    "Confidence in the aligned model's answers: its own, its own under a temperature that DACA "
    "takes from the base, and the base's probability of the answer (BaseCal-ReEval). Both look at "
    "the measured questions, and at no label. The answers, and so the accuracy, stay. AUROC comes "
    "without an interval."
)


def measure(
    base: Scores,
    aligned: Scores,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """A row for every entry of ``LABELS``.

    Args:
      base, aligned: of one method and the same N questions, in one order.
      num_bins, edges: of conf-ECE.
      seed, num_resamples: of the bootstrap, over the clusters of the questions.

    Returns:
      name -> n, accuracy, mean_confidence, conf_ece, each with ``_ci``, auroc; of DACA temperature
      and agreement (questions on which the two models agree), or, where they agree on none, no row.
    """
    first, second, _ = changes.comparable(base, aligned)
    correct = second.predictions == np.asarray(second.answers)
    told: dict[str, dict[str, Any]] = {"aligned": {"confidence": second.confidences}}
    arrays = second.log_scores, None, second.mask
    with warnings.catch_warnings():
        # What it says of zeros and bounds is said of labelled fits; the temperature is shown here.
        warnings.simplefilter("ignore", CalibrationWarning)
        try:
            fitted = posthoc.DACA.fit(*arrays, reference_log_scores=first.log_scores)
        except UserError:  # they agree on no question
            pass
        else:
            probs = np.asarray(fitted(second.log_scores, second.mask))
            told["daca"] = {
                "confidence": probs.max(axis=1),
                "temperature": fitted.temperature,
                "agreement": fitted.agreement,
            }
        again = posthoc.re_evaluated(second.log_scores, first.log_scores, second.mask)
    told["reeval"] = {"confidence": again}
    rows = {}
    for name, row in told.items():
        confidence = row.pop("confidence")
        ends = metrics.cluster_bootstrap(
            confidence,
            correct,
            clusters=second.units,
            num_bins=num_bins,
            edges=edges,
            seed=seed,
            num_resamples=num_resamples,
        )
        rows[name] = {
            "n": len(correct),
            "accuracy": float(correct.mean()),
            "mean_confidence": float(confidence.mean()),
            "conf_ece": metrics.binary_ece(confidence, correct, num_bins, edges),
            "auroc": _auroc(confidence, correct),
            **{f"{key}_ci": list(interval) for key, interval in ends.items()},
            **row,
        }
    return rows


def _auroc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """``metrics.auroc`` of a confidence and an outcome: the second option is masked."""
    probs = np.column_stack([confidence, np.zeros_like(confidence)])
    mask = np.tile([True, False], (len(probs), 1))
    return float(metrics.auroc.kernel(probs, np.where(correct, 0, 1), mask))


def table(found: Mapping[str, Any]) -> Table:
    """pair -> task -> method -> rows of ``measure``, a line each.

    Args:
      found: as ``summary.json`` holds it.
    """
    texts = (Column(name, text=True) for name in ("task", "pair", "method", "confidence"))
    heads = (Column(metric.label, direction=metric.direction) for metric in METRICS)
    rows = []
    for pair, task, method, by_name in changes.each(found):
        for name, row in by_name.items():
            note = f"T = {row['temperature']:.3g}" if "temperature" in row else ""
            if note:
                note += f", agree on {row['agreement']:,} of {row['n']:,}"
            figures = (tables.figure(row, metric) for metric in METRICS)
            rows.append(
                Row((*map(Cell, (task, pair, method)), Cell(LABELS[name], note=note), *figures))
            )
    return Table(
        "unlabelled", (*texts, *heads), tuple(rows), "Repaired by the base, without labels"
    )
