"""The reliability curve without bins, with a band under calibration and one for the true accuracy.

On the host, in float64.
"""

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.validation import validate

# Where the caller names no points, one stands for the rows in each of so many parts of [0, 1].
_PARTS = 128
# The draws of the consistency band see more distinct confidences than this pooled into as many.
_MOST_GROUPS = 2048
# Halvings of a piece of [0, 1]: below the resolution of float64.
_BISECTIONS = 55

_Blocks = tuple[np.ndarray, np.ndarray]


class ReliabilityCurve(NamedTuple):
    """Accuracy as a function of confidence; float64 arrays [P].

    Attributes:
        confidence: where the curve is given.
        accuracy: the isotonic fit there.
        low, high: the confidence band: where the true accuracy at that confidence may lie.
        consistency_low, consistency_high: the consistency band: where the curve of a calibrated
            model with these confidences would lie by chance.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    consistency_low: np.ndarray
    consistency_high: np.ndarray


@checked_settings
def reliability_curve(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    at: ArrayLike | None = None,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> ReliabilityCurve:
    """CORP reliability curve: isotonic regression of correctness on confidence, with two bands.

    The curve is the non-decreasing function of c = max_k p_k under which the predictions' being
    right or wrong is most likely; there are no bins and no bandwidth to choose. It presupposes
    that accuracy does not fall as confidence rises: where it does, the curve and its confidence
    band show the flat compromise, and ``bin_stats`` is what to look at.

    Confidence band, for the true accuracy: at confidence t it holds every value v that the
    likelihood ratio of the hypothesis "the accuracy at t is v" does not reject,

        2 (max_f l(f) - max_{f : f(t) = v} l(f)) <= q,   f non-decreasing, l the Bernoulli l.-l.

    q is the quantile of chi^2 with one degree of freedom, 3.84 for 95 %: right where many rows
    share few confidences. Where confidences are all different the quantile would be 2.27
    (Banerjee and Wellner 2001), so that the band holds the truth more often there than it says:
    measured at 95 %, 96 to 100 % of the time, and 94 to 97 % where few confidences recur.

    Consistency band, for what chance shows: correctness is drawn from the confidences, the curve
    is fitted anew, and the band lies between the quantiles of the draws at t. Of a calibrated
    model's curve a share of ``1 - level`` is outside of it. A curve outside speaks against
    calibration at that confidence; one inside does not prove it.

    Both bands hold point by point, not for all of the curve at once, and take rows to be
    independent.

    Conventions: rows of one confidence are one point. Between two confidences that occur, the
    curve and the consistency band are interpolated linearly, and the confidence band holds what
    the rows on either side allow. One row, all right and all wrong are no exceptions: the
    confidence band then ends at 0 or 1.

    Source: Dimitriadis, Gneiting and Jordan 2021 (the CORP curve and its consistency band);
    Banerjee and Wellner 2001 (the likelihood ratio for a monotone function at a point).

    Args:
        probs: [N, K] option probabilities; used in the precision given.
        answers: [N] int.
        mask: [N, K] bool or None.
        at: [P] confidences at which the curve is wanted, in any order; NaN outside of those that
            occur. None: [0, 1] is cut into 128 parts, and in each that has rows it is their
            median.
        level: nominal coverage of both bands, strictly between 0 and 1.
        num_draws, seed: of the consistency band. Of more than 2048 different confidences,
            neighbours are drawn together; the curve and the confidence band see every row.

    Returns:
        ``ReliabilityCurve``; empty for no rows and no ``at``.

    Raises:
        ValueError: arrays that ``validate`` refuses, ``at`` of another shape, a level outside
            (0, 1), or num_draws < 1.

    Example:
        >>> curve = reliability_curve([[0.75, 0.25]] * 40, [0] * 20 + [1] * 20)
        >>> curve.confidence.tolist(), curve.accuracy.tolist()   # overconfident at 0.75:
        ([0.75], [0.5])
        >>> curve.low.round(2).tolist(), curve.high.round(2).tolist()
        ([0.35], [0.65])
        >>> curve.consistency_low.round(1).tolist(), curve.consistency_high.round(2).tolist()
        ([0.6], [0.88])
    """
    validate(probs, answers, mask)
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    confidence, right, rows = _pooled_rows(np.asarray(probs), np.asarray(answers))
    points = _points(confidence, rows) if at is None else np.asarray(at, np.float64)
    if points.ndim != 1:
        raise ValueError(f"at must have shape [P], got {points.shape}")
    inside = np.zeros(len(points), bool)
    if len(rows):
        inside = (points >= confidence[0]) & (points <= confidence[-1])
    curves = np.full((5, len(points)), np.nan)
    if inside.any():
        t, inverse = np.unique(points[inside], return_inverse=True)
        fitted = np.interp(t, confidence, _fit(right, rows))
        band = _confidence_band(t, fitted, confidence, right, rows, level)
        chance = _consistency_band(t, confidence, rows, level, num_draws, seed)
        curves[:, inside] = np.stack([fitted, *band, *chance])[:, inverse]
    return ReliabilityCurve(points, *curves)


def _pooled_rows(probs: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, ...]:
    """The different confidences [C] in order, and of each the right rows and all rows."""
    probs = probs.astype(np.float64)
    predicted = probs.argmax(axis=1)  # masked options hold 0, and some valid one does not
    top = np.minimum(probs[np.arange(len(probs)), predicted], 1)
    confidence, index, rows = np.unique(top, return_inverse=True, return_counts=True)
    right = np.bincount(index, predicted == answers, len(rows))
    return confidence, right, rows.astype(np.float64)


def _points(confidence: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Per part of [0, 1] that has rows, their (lower) median: a confidence that occurs."""
    part = np.minimum((confidence * _PARTS).astype(int), _PARTS - 1)
    first = np.flatnonzero(np.diff(part, prepend=-1))
    upto = np.append(0, rows.cumsum())
    middle = (upto[first] + upto[np.append(first[1:], len(rows))[: len(first)]]) / 2
    return confidence[np.searchsorted(upto[1:], middle)]


def _pool(right: np.ndarray, rows: np.ndarray) -> _Blocks:
    """Adjacent violators pooled: right answers and rows of blocks whose shares increase."""
    # Loaded here: scipy.optimize takes longer to import than the rest of the package.
    from scipy.optimize import isotonic_regression

    if not len(rows):
        return right, rows
    first = isotonic_regression(right / rows, weights=rows).blocks[:-1]
    return np.add.reduceat(right, first), np.add.reduceat(rows, first)


def _fit(right: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[C] the isotonic regression itself."""
    right_B, rows_B = _pool(right, rows)
    block = np.searchsorted(rows_B.cumsum(), rows.cumsum() - rows / 2)
    return (right_B / rows_B)[block]


def _prefixes(right: np.ndarray, rows: np.ndarray, ends: np.ndarray) -> Iterator[_Blocks]:
    """The blocks of the first ``end`` confidences alone, for each of the ascending ``ends``."""
    blocks, done = (right[:0], rows[:0]), 0
    for end in ends:
        # What has been pooled once stays so as more comes on the right.
        both = zip(blocks, (right[done:end], rows[done:end]), strict=True)
        blocks, done = _pool(*(np.concatenate(pair) for pair in both)), end
        yield blocks


def _log_likelihood(right: np.ndarray, wrong: np.ndarray, share: np.ndarray) -> np.ndarray:
    from scipy.special import xlog1py, xlogy

    return xlogy(right, share) + xlog1py(wrong, -share)


def _confidence_band(
    t: np.ndarray,
    fitted: np.ndarray,
    confidence: np.ndarray,
    right: np.ndarray,
    rows: np.ndarray,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """[P] each: the ends of the likelihood ratio's set, at ascending points among the confidences.

    With f(t) = v the most likely f is, left of t, the isotonic fit of the rows there alone, cut at
    v from above; right of t that of those rows, cut at v from below (Banerjee and Wellner 2001).
    As v moves from one share of a block to the next, the log-likelihood is
    c + a log v + b log(1 - v): the piece that holds an end is looked up, then bisected.
    """
    drop = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2 / 2
    before = np.searchsorted(confidence, t, "left")
    after = np.searchsorted(confidence, t, "right")
    lefts = _prefixes(right, rows, before)
    wrong = rows - right
    mirrored = _prefixes(wrong[::-1], rows[::-1], len(rows) - after[::-1])
    rights = [((r - w)[::-1], r[::-1]) for w, r in mirrored][::-1]
    right_B, rows_B = _pool(right, rows)
    lowest = _log_likelihood(right_B, rows_B - right_B, right_B / rows_B).sum() - drop
    pieces = np.empty(
        (2, 5, len(t))
    )  # the low and the high end's: c, a, b, and from where to where
    for p, (left, above) in enumerate(zip(lefts, rights, strict=True)):
        here = slice(before[p], after[p])
        knots = np.unique(
            np.concatenate([[0, 1, fitted[p]], left[0] / left[1], above[0] / above[1]])
        )
        # With v between a knot and the next, the left's blocks above it stand at v, and the right's
        # below it; the others keep their own share.
        c, a, b = np.array(0.0), right[here].sum(), wrong[here].sum()
        for (k, n), cut_from_above in ((left, True), (above, False)):
            passed = np.searchsorted(k / n, knots, "right")
            sums = np.stack([_log_likelihood(k, n - k, k / n), k, n - k]).cumsum(axis=1)
            sums = np.concatenate([np.zeros((3, 1)), sums], axis=1)
            below, over = sums[:, passed], sums[:, -1:] - sums[:, passed]
            kept, moved = (below, over) if cut_from_above else (over, below)
            c, a, b = c + kept[0], a + moved[1], b + moved[2]
        inside = np.flatnonzero(c + _log_likelihood(a, b, knots) >= lowest)
        first, last = inside[0], inside[-1]
        for end, i, j in (
            (0, max(first - 1, 0), first),
            (1, last, min(last + 1, len(knots) - 1)),
        ):
            pieces[end, :, p] = c[i], a[i], b[i], knots[i], knots[j]
    return _root(pieces[0], lowest, 1), _root(pieces[1], lowest, -1)


def _root(pieces: np.ndarray, lowest: float, sign: int) -> np.ndarray:
    """[P] where c + a log v + b log(1 - v) crosses ``lowest``: upwards (sign 1) or downwards (-1).

    It does so between the last two rows of ``pieces``; the bracket's outer end is given.
    """
    c, a, b, start, stop = pieces
    for _ in range(_BISECTIONS):
        middle = (start + stop) / 2
        inside = c + _log_likelihood(a, b, middle) >= lowest
        early = inside == (sign < 0)
        start, stop = np.where(early, middle, start), np.where(early, stop, middle)
    return start if sign > 0 else stop


def _consistency_band(
    t: np.ndarray,
    confidence: np.ndarray,
    rows: np.ndarray,
    level: float,
    num_draws: int,
    seed: int,
) -> np.ndarray:
    """[2, P]: quantiles at t of the curves of draws under calibration."""
    from scipy.optimize import isotonic_regression

    if len(rows) > _MOST_GROUPS:
        # Neighbours of about as many rows each.
        group = ((rows.cumsum() - rows / 2) * (_MOST_GROUPS / rows.sum())).astype(int)
        first = np.flatnonzero(np.diff(group, prepend=-1))
        total = np.add.reduceat(rows * confidence, first)
        rows = np.add.reduceat(rows, first)
        confidence = total / rows
    rng = np.random.default_rng(seed)
    draws = rng.binomial(rows.astype(int), np.clip(confidence, 0, 1), (num_draws, len(rows)))
    curves = [
        np.interp(t, confidence, isotonic_regression(draw / rows, weights=rows).x) for draw in draws
    ]
    return np.quantile(curves, ((1 - level) / 2, (1 + level) / 2), axis=0)
