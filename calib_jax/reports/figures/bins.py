"""Per-bin figures of a split as numpy arrays, for diagrams and tables."""

import dataclasses
import functools

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics import BinStats, bin_edges, bin_stats, class_bin_stats, wilson_interval


@dataclasses.dataclass(frozen=True)
class Bins:
    """M bins of confidence (of a class: of the probability given to it).

    Attributes:
      edges: [M + 1] float32.
      counts: [M] questions in the bin.
      accuracy: [M] share of them answered right (of a class: having it as their answer); NaN in an
        empty bin.
      confidence: [M] their mean confidence (of a class: its mean probability); NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @functools.cached_property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """[M] each: the ends of Wilson's 95 % interval of the accuracy; NaN in an empty bin."""
        correct = np.where(self.counts > 0, self.accuracy, 0) * self.counts
        return wilson_interval(correct, np.asarray(self.counts))


def bins_from(stats: BinStats, num_bins: int) -> Bins:
    """The bins of statistics as `calib_jax.metrics` gives them."""
    return Bins(
        edges=bin_edges(num_bins),
        counts=np.asarray(stats.count),
        accuracy=np.asarray(stats.accuracy()),
        confidence=np.asarray(stats.mean_confidence()),
    )


def bins_of(scores: Scores, num_bins: int = 10, edges: str = "right") -> Bins:
    """Bins the scores' confidences; see `calib_jax.metrics.bin_stats`."""
    return bins_from(
        bin_stats(scores.probs, scores.answers, scores.mask, num_bins, edges), num_bins
    )


def class_bins_of(scores: Scores, num_bins: int = 10, edges: str = "right") -> list[Bins]:
    """K + 1 sets of bins: each class's own, then all the N·K probabilities pooled.

    See `calib_jax.metrics.class_bin_stats`. Options that a question does not have count nowhere.
    """
    stats = class_bin_stats(scores.probs, scores.answers, scores.mask, num_bins, edges)
    counts, correct = np.asarray(stats.count), np.asarray(stats.correct)
    sums = counts * np.nan_to_num(np.asarray(stats.mean_confidence(), np.float64))
    found = []
    pooled = (counts.sum(axis=0), correct.sum(axis=0), sums.sum(axis=0))
    for count, right, total in [*zip(counts, correct, sums, strict=True), pooled]:
        n = np.where(count > 0, count, np.nan)
        found.append(Bins(bin_edges(num_bins), count, right / n, total / n))
    return found
