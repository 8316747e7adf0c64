"""Per-bin figures of a split as numpy arrays, for diagrams and tables."""

import dataclasses

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics import bin_edges, bin_stats


@dataclasses.dataclass(frozen=True)
class Bins:
    """M bins of confidence.

    Attributes:
      edges: [M + 1] float32.
      counts: [M] questions in the bin.
      accuracy: [M] share of them answered right; NaN in an empty bin.
      confidence: [M] their mean confidence; NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray


def bins_of(scores: Scores, num_bins: int = 10, edges: str = "right") -> Bins:
    """Bins the scores' confidences; see `calib_jax.metrics.bin_stats`."""
    stats = bin_stats(scores.probs, scores.answers, scores.mask, num_bins, edges)
    return Bins(
        edges=bin_edges(num_bins),
        counts=np.asarray(stats.count),
        accuracy=np.asarray(stats.accuracy()),
        confidence=np.asarray(stats.mean_confidence()),
    )
