"""Figures of every class, where the options are classes and no letters."""

from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures.bins import class_bins_of


def by_class(scores: Scores, num_bins: int = 10, edges: str = "right") -> list[dict[str, Any]]:
    """A row of figures for each of the K classes.

    Args:
      scores: N questions whose options are ``scores.classes``.
      num_bins, edges: of the bins.

    Returns:
      For every class: class (its name), n (questions whose answer it is), chosen (questions it is
      predicted for), recall and precision (None where undefined), mean_probability over all
      questions beside share, how often it is the answer, and ece, the binned error of its
      probabilities against being the answer, whose mean over the classes is the cw-ECE (Xiao et
      al. 2025).
    """
    answers, predictions = np.asarray(scores.answers), np.asarray(scores.predictions)
    probs = np.asarray(scores.probs, np.float64)
    rows = []
    for k, bins in enumerate(class_bins_of(scores, num_bins, edges)[:-1]):
        right, chosen = answers == k, predictions == k
        hits = int((right & chosen).sum())
        gaps = np.abs(np.nan_to_num(bins.accuracy - bins.confidence))
        rows.append(
            {
                "class": scores.classes[k],
                "n": int(right.sum()),
                "chosen": int(chosen.sum()),
                "recall": hits / int(right.sum()) if right.any() else None,
                "precision": hits / int(chosen.sum()) if chosen.any() else None,
                "mean_probability": float(probs[:, k].mean()),
                "share": float(right.mean()),
                "ece": float((bins.counts * gaps).sum() / max(bins.counts.sum(), 1)),
            }
        )
    return rows
