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

    @functools.cached_property
    def consistency(self) -> tuple[np.ndarray, np.ndarray]:
        """[M] each: between which accuracies a calibrated model's lies in 95 % of cases, or more.

        The 2.5 % and 97.5 % quantiles of Binomial(n, p) / n, p the bin's mean confidence, after
        Broecker and Smith 2007; NaN in an empty bin. Confidences that differ within the bin make
        the true range narrower by a hair.
        """
        n = np.asarray(self.counts, np.float64)
        p = np.clip(np.asarray(self.confidence, np.float64), 0, 1)
        return binomial_quantile(0.025, n, p) / n, binomial_quantile(0.975, n, p) / n


def binomial_quantile(q: float, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The least k with P(Binomial(n, p) <= k) >= q; NaN where n is 0.

    >>> binomial_quantile(0.025, np.array([10.0, 10.0, 0.0]), np.array([0.5, 1.0, 0.5])).tolist()
    [2.0, 10.0, nan]
    """
    from scipy.special import bdtr, bdtrik  # here: slow to import, and only figures need it

    inside = (n > 0) & (p > 0) & (p < 1)
    safe_n, safe_p = np.where(inside, n, 1).astype(int), np.where(inside, p, 0.5)
    above = np.ceil(bdtrik(q, safe_n, safe_p)).clip(0, safe_n)
    below = np.maximum(above - 1, 0)
    found = np.where(bdtr(below, safe_n, safe_p) >= q, below, above)
    return np.where(inside, found, np.where(n > 0, n * (p >= 1), np.nan))


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
