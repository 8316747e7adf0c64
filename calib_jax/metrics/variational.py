"""The calibration error as what a recalibration gains on rows that it has not seen; on the host."""

import math
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.draws import group_codes
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.validation import validate

# Of more rows than these one division into folds is as good as ten.
_MANY = 100_000


@dataclass(frozen=True)
class VariationalError:
    """Estimates of the top label's calibration error, E|c - P(right | c)|, and of its two parts.

    Attributes:
        error: over + under. Its expectation is at most the true error, so values below 0 occur
            where there is none.
        over: the part of confidences above the accuracy.
        under: the part of confidences below it.
    """

    error: float
    over: float
    under: float


@checked_settings
def variational_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    folds: int = 5,
    repeats: int | None = None,
    seed: int = 0,
    clusters: ArrayLike | None = None,
) -> VariationalError:
    """Variational estimate of the top label's L1 calibration error, and its over- and under-part.

        error = (1/N) sum_i sign(g(c_i) - c_i) (a_i - c_i)

    c_i is the confidence, a_i 1 if the prediction is right, and g an isotonic regression of a on c,
    fitted without the fold that holds row i. The sum is what g gains over the stated confidences in
    the proper loss sign(z - c) (c - a), whose excess risk is |c - P(right | c)|: no recalibration
    gains more in expectation, so the estimate does not overestimate, unlike binned errors of few
    rows, and it reaches the error as g finds the true accuracies. It needs no bins. Rows with
    g(c_i) < c_i make up ``over``, those with g(c_i) > c_i ``under``; g(c_i) = c_i adds 0.

    Source: Berta, Braun, Holzmueller, Bach and Jordan 2026 (arXiv 2602.24230): the loss, the
    cross-fitting and the isotonic g for p = 1, after the authors' package probmetrics 1.2 and
    summaries of the paper; its tables were not reproduced. They measure over- and underconfidence
    of binary predictions from 1/2, so that a confidence below 1/2 that is too high is
    underconfident there; here, as in ``overconfidence_error``, too high is over. The two agree
    above 1/2.

    Args:
        probs: [N, K] option probabilities; used in the precision given.
        answers: [N] int.
        mask: [N, K] bool or None.
        weights: [N] >= 0, how often each row counts, in the fit and in the mean; None means once.
        folds: as many, or as many as there are clusters.
        repeats: divisions into folds, over which the mean is taken; None: 10, and 1 of more than
            100,000 rows.
        seed: of the folds: fold numbers are ``default_rng([seed, r]).permutation(n) % folds``.
        clusters: [N] labels of rows that belong together (variants of one question), which share
            a fold; None: every row by itself.

    Returns:
        ``VariationalError``; NaN in all of it where fewer than two clusters have a weight.

    Raises:
        ValueError: arrays that ``validate`` refuses, weights or clusters that do not fit them, or
            fewer than 2 folds or 1 repeat.

    Example:
        >>> probs = [[0.9, 0.1]] * 50 + [[0.6, 0.4]] * 50   # right 35 and 40 times of 50
        >>> answers = ([0] * 7 + [1] * 3) * 5 + ([0] * 4 + [1]) * 10
        >>> found = variational_ece(probs, answers)
        >>> round(found.over, 3), round(found.under, 3)   # halves of 0.9 - 0.7 and 0.8 - 0.6
        (0.1, 0.1)
    """
    validate(probs, answers, mask)
    p = np.asarray(probs).astype(np.float64)
    rows = len(p)
    share = np.ones(rows) if weights is None else np.asarray(weights).astype(np.float64)
    names = np.arange(rows) if clusters is None else group_codes(clusters, rows, "clusters")[1]
    if share.shape != (rows,):
        raise ValueError(f"weights must have shape ({rows},), got {share.shape}")
    if not ((share >= 0) & np.isfinite(share)).all():
        raise ValueError("weights must be finite and not negative")
    if folds < 2 or (repeats is not None and repeats < 1):
        raise ValueError(
            f"folds must be 2 or more and repeats 1 or more, got {folds} and {repeats}"
        )
    kept = share > 0
    p, share, chosen = p[kept], share[kept], np.asarray(answers)[kept]
    code = np.unique(names[kept], return_inverse=True)[1]
    number = int(code.max(initial=-1)) + 1
    if number < 2:
        return VariationalError(math.nan, math.nan, math.nan)
    if mask is not None:
        p = np.where(np.asarray(mask)[kept], p, -1)
    best = p.argmax(axis=1)
    confidence, right = p[np.arange(len(p)), best], (best == chosen).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    confidence, right, share, code = confidence[order], right[order], share[order], code[order]
    folds, repeats = min(folds, number), repeats or (10 if rows <= _MANY else 1)
    gains = np.zeros(2)
    for r in range(repeats):
        fold = (np.random.default_rng([seed, r]).permutation(number) % folds)[code]
        for f in range(folds):
            own, rest = fold == f, fold != f
            fitted = _isotonic(confidence[rest], right[rest], share[rest], confidence[own])
            gap = share[own] * (right[own] - confidence[own])
            gains[0] -= gap[fitted < confidence[own]].sum()
            gains[1] += gap[fitted > confidence[own]].sum()
    over, under = gains / (repeats * share.sum())
    return VariationalError(float(over + under), float(over), float(under))


def _isotonic(values, labels, weights, at) -> np.ndarray:
    """The increasing fit to sorted values, at others: linear in between, constant beyond."""
    from scipy.optimize import isotonic_regression

    corners, first = np.unique(values, return_index=True)
    total = np.add.reduceat(weights, first)
    means = np.add.reduceat(weights * labels, first) / total  # equal values have one mean
    return np.interp(at, corners, isotonic_regression(means, weights=total).x)
