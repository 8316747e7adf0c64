"""What weights in few bits do to a model: the same questions scored with and without."""

from typing import Any

import ml_collections
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import measure
from calib_jax.reports.words import interval
from calib_jax.runs import split_scores
from calib_jax.runs.run import say


def shift(
    config: ml_collections.ConfigDict,
    unquantized: dict[str, Scores],
    quantized: dict[str, Scores],
) -> dict[str, Any]:
    """How far confidences and figures move, for ``summary.json``; also said, a line a split.

    Args:
      unquantized: split -> scores; empty where they were not asked for.
      quantized: of the same splits.

    Returns:
      {"quantization": split -> figures}; {} without splits. The figures: n;
      {mean_abs, max_abs, mean}_confidence_shift, quantised - unquantised, the last signed (max p
      against max p, whichever option it belongs to); argmax_agreement, the share of questions with
      the same prediction; and for conf_ece, accuracy and nll {"unquantized", "quantized",
      "change", "change_ci"}, the interval from the paired bootstrap.
    """
    result: dict[str, dict[str, Any]] = {}
    for split, before in unquantized.items():
        after = quantized[split]
        moved = after.confidences - before.confidences
        changes = measure.change(
            before,
            after,
            config.em.num_bins,
            config.em.edges,
            config.seed,
            config.report.num_resamples,
        )
        first, last = (split_scores.figures(scores, config) for scores in (before, after))
        result[split] = {
            "n": len(moved),
            "mean_abs_confidence_shift": float(np.abs(moved).mean()),
            "max_abs_confidence_shift": float(np.abs(moved).max()),
            "mean_confidence_shift": float(moved.mean()),
            "argmax_agreement": float((before.predictions == after.predictions).mean()),
        }
        for name in ("conf_ece", "accuracy", "nll"):
            result[split][name] = {
                "unquantized": first[name],
                "quantized": last[name],
                "change": changes[name],
                "change_ci": changes[f"{name}_ci"],
            }
        row = result[split]
        say(
            f"{config.model.quantize} on {split}: confidence moves by "
            f"{row['mean_abs_confidence_shift']:.4f} on average "
            f"(mean {row['mean_confidence_shift']:+.4f}, at most "
            f"{row['max_abs_confidence_shift']:.4f}), same prediction in "
            f"{row['argmax_agreement']:.1%}, conf-ECE {row['conf_ece']['change']:+.4f} "
            f"{interval(row['conf_ece']['change_ci'], signed=True, digits=4)}"
        )
    return {"quantization": result} if result else {}
