"""Per-bin figures of a split as numpy arrays, for diagrams and tables."""

import dataclasses
import functools

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics import (
    BinStats,
    bin_edges,
    bin_index,
    bin_stats,
    class_bin_stats,
    effective_rows,
    wilson_interval,
)


@dataclasses.dataclass(frozen=True)
class Bins:
    """M bins of confidence (of a class: of the probability given to it).

    Attributes:
      edges: [M + 1] float32.
      counts: [M] questions in the bin.
      accuracy: [M] share of them answered right (of a class: having it as their answer); NaN in an
        empty bin.
      confidence: [M] their mean confidence (of a class: its mean probability); NaN in an empty bin.
      effective: [M] how many independent questions they are worth (``metrics.effective_rows``),
        where some depend on each other; None: as many as there are.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray
    effective: np.ndarray | None = None

    @functools.cached_property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """[M] each: the ends of Wilson's 95 % interval of the accuracy; NaN in an empty bin."""
        worth = np.asarray(self.counts if self.effective is None else self.effective)
        low, high = wilson_interval(np.where(worth > 0, self.accuracy, 0) * worth, worth)
        unknown = (np.asarray(self.counts) > 0) & (worth == 0)  # a single cluster tells nothing
        return np.where(unknown, 0, low), np.where(unknown, 1, high)

    @functools.cached_property
    def consistency(self) -> tuple[np.ndarray, np.ndarray]:
        """[M] each: between which accuracies a calibrated model's lies in 95 % of cases, or more.

        The 2.5 % and 97.5 % quantiles of Binomial(n, p) / n, p the bin's mean confidence, after
        Broecker and Smith 2007; NaN in an empty bin. Confidences that differ within the bin make
        the true range narrower by a hair. Where questions depend on each other, n is how many
        independent ones they are worth, rounded down; anything is possible where that is none.
        """
        n = np.floor(self.counts if self.effective is None else self.effective).astype(np.float64)
        p = np.clip(np.asarray(self.confidence, np.float64), 0, 1)
        unknown = (np.asarray(self.counts) > 0) & (n == 0)
        with np.errstate(invalid="ignore"):
            low, high = (binomial_quantile(q, n, p) / n for q in (0.025, 0.975))
        return np.where(unknown, 0, low), np.where(unknown, 1, high)


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


def bins_from(stats: BinStats, num_bins: int, effective: np.ndarray | None = None) -> Bins:
    """The bins of statistics as `calib_jax.metrics` gives them."""
    return Bins(
        edges=bin_edges(num_bins),
        counts=np.asarray(stats.count),
        accuracy=np.asarray(stats.accuracy()),
        confidence=np.asarray(stats.mean_confidence()),
        effective=effective,
    )


def bins_of(scores: Scores, num_bins: int = 10, edges: str = "right") -> Bins:
    """Bins the scores' confidences; see `calib_jax.metrics.bin_stats`."""
    right = scores.predictions == np.asarray(scores.answers)
    return bins_from(
        bin_stats(scores.probs, scores.answers, scores.mask, num_bins, edges),
        num_bins,
        effective_of(scores.confidences, right, scores.units, num_bins, edges),
    )


def effective_of(
    confidence: np.ndarray,
    right: np.ndarray,
    clusters: np.ndarray | None,
    num_bins: int = 10,
    edges: str = "right",
) -> np.ndarray | None:
    """[M] how many independent rows those of each bin are worth; None without clusters.

    Args:
      confidence: [N] float32, by which rows are binned.
      right: [N] bool.
      clusters: [N] int or None.
      num_bins, edges: as in `bins_of`.
    """
    if clusters is None:
        return None
    order = np.argsort(index := np.asarray(bin_index(confidence, num_bins, edges)), kind="stable")
    parts = np.split(order, np.searchsorted(index[order], np.arange(1, num_bins)))
    return np.array([effective_rows(right[rows], clusters[rows]) for rows in parts])


def class_bins_of(scores: Scores, num_bins: int = 10, edges: str = "right") -> list[Bins]:
    """K + 1 sets of bins: each class's own, then all the N·K probabilities pooled.

    See `calib_jax.metrics.class_bin_stats`. Options that a question does not have count nowhere.
    """
    stats = class_bin_stats(scores.probs, scores.answers, scores.mask, num_bins, edges)
    counts, correct = np.asarray(stats.count), np.asarray(stats.correct)
    sums = counts * np.nan_to_num(np.asarray(stats.mean_confidence(), np.float64))
    found = []
    pooled = (counts.sum(axis=0), correct.sum(axis=0), sums.sum(axis=0))
    sets = [*zip(counts, correct, sums, strict=True), pooled]
    options = [*([k] for k in range(len(counts))), [*range(len(counts))]]
    for (count, right, total), classes in zip(sets, options, strict=True):
        n = np.where(count > 0, count, np.nan)
        worth = _effective_of_classes(scores, classes, num_bins, edges)
        found.append(Bins(bin_edges(num_bins), count, right / n, total / n, worth))
    return found


def _effective_of_classes(
    scores: Scores, classes: list[int], num_bins: int, edges: str
) -> np.ndarray | None:
    """`effective_of` over the options that some of the classes are."""
    if scores.units is None:
        return None
    rows, columns = np.nonzero(np.asarray(scores.mask, bool)[:, classes])
    columns = np.array(classes)[columns]
    answered = np.asarray(scores.answers)[rows] == columns
    return effective_of(
        np.asarray(scores.probs)[rows, columns], answered, scores.units[rows], num_bins, edges
    )
