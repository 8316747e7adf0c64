"""Out-of-fold calibration, and splits that keep the fitted rows and the test rows apart."""

import dataclasses
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics.draws import group_codes
from calib_jax.posthoc.calibrator import Calibrator, method_class
from calib_jax.posthoc.inputs import check_inputs, check_states, checked_settings


@checked_settings
def fold_numbers(
    num_rows: int,
    folds: int = 5,
    seed: int = 0,
    answers: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> np.ndarray:
    """Which fold each row is held out in, int32 [N] in 0..folds-1.

    Rows are dealt out in a seeded order; with ``answers`` each answer is spread evenly over the
    folds, and fold sizes differ by at most one. With ``clusters`` all rows of a cluster share a
    fold (questions of one passage, or variants of one question, must not stand on both sides); the
    clusters are dealt out, largest first, to the smallest fold, and ``answers`` are not looked at.

    Example:
        >>> np.bincount(fold_numbers(10, folds=5)).tolist()
        [2, 2, 2, 2, 2]
        >>> a, b, c = fold_numbers(3, folds=2, clusters=["q1", "q1", "q2"])
        >>> bool(a == b), bool(a == c)
        (True, False)
    """
    rng = np.random.default_rng(seed)
    numbers = np.empty(num_rows, np.int32)
    if clusters is not None:
        names, index = _coded(clusters, num_rows)
        counts = np.bincount(index)
        _enough(len(names), "clusters", folds)
        order = rng.permutation(len(names))
        fold_of = np.empty(len(names), np.int32)
        filled = np.zeros(folds)
        for cluster in order[np.argsort(-counts[order], kind="stable")]:
            fold_of[cluster] = filled.argmin()
            filled[fold_of[cluster]] += counts[cluster]
        return fold_of[index]
    _enough(num_rows, "rows", folds)
    order = rng.permutation(num_rows)
    if answers is not None:
        order = order[np.argsort(np.asarray(answers)[order], kind="stable")]
    numbers[order] = np.arange(num_rows) % folds
    return numbers


def _coded(clusters: ArrayLike, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    if np.asarray(clusters).dtype == bool:
        clusters = np.asarray(clusters).astype(int)
    try:
        group_codes(clusters, num_rows, "clusters")
    except ValueError as error:
        raise UserError(*error.args) from None
    # By name, whatever the type: the folds of a file's clusters do not hang on how it was read.
    return group_codes(np.asarray(clusters).astype(str), num_rows, "clusters")


def _enough(available: int, what: str, folds: int) -> None:
    if available >= folds:
        return
    if available == 1 and what == "clusters":
        raise UserError(
            f"all rows lie in one cluster, which cannot be divided into {folds} parts: name "
            "smaller clusters, or none where rows are independent"
        )
    remedy = "use fewer folds" if available > 1 else "more rows are needed"
    raise UserError(f"{available} {what} cannot make {folds} folds: {remedy}")


@checked_settings
def cross_fit(
    method: str | type[Calibrator],
    log_scores: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
    clusters: ArrayLike | None = None,
    **options: Any,
) -> np.ndarray:
    """Calibrated probabilities out of fold: each row by a calibrator that has not seen it.

    A metric of the result is not flattered by the fit, as that of a calibrator on its own rows
    is. Every fold's fit sees the same arrays with weight 0 on the rows held out, so all folds
    share one compilation.

    Args:
        method: a name in ``METHODS``, or a class.
        log_scores: [N, K] as in ``fit_temperature``; hidden states [N, D] for a method that
            reads these.
        answers: [N] int; label-free methods use them to spread the folds alone.
        mask: [N, K] bool or None.
        folds: how many times to fit.
        seed: of the folds; see ``fold_numbers``, which also has ``clusters``.
        **options: passed to the method's ``fit``; arrays of N rows stay aligned.

    Returns:
        float32 [N, K]; rows sum to 1, 0 where masked.

    Example:
        >>> scores = [[2.0, 0.0]] * 8
        >>> probs = cross_fit("temperature", scores, [0, 0, 0, 1] * 2, folds=2)
        >>> round(float(probs[0, 0]), 4)
        0.75
    """
    return _cross_fit(method, log_scores, answers, mask, folds, seed, clusters, options)[0]


@checked_settings
def cross_fit_scores(
    method: str | type[Calibrator],
    scores: Any,
    folds: int = 5,
    seed: int = 0,
    clusters: ArrayLike | None = None,
    **options: Any,
) -> Any:
    """``cross_fit`` from scores to scores, which keep the logarithms and each row's fold.

    A metric that ranks rows (AUROC, AUPRC, AURC) is to be taken within the folds: see
    ``metrics.within_folds``.

    Args:
        scores: ``calib_jax.Scores``, or any dataclass with log_scores, answers, mask, probs, folds.
        clusters: as in ``cross_fit``; None: those that the scores name, if they do.
        method, folds, seed, options: as in ``cross_fit``.
    """
    if clusters is None:
        clusters = getattr(scores, "units", None)
    arrays = read_from(method, scores), scores.answers, scores.mask
    probs, log_probs, numbers = _cross_fit(method, *arrays, folds, seed, clusters, options)
    return dataclasses.replace(scores, probs=probs, log_scores=log_probs, folds=numbers)


def read_from(method: str | type[Calibrator], scores: Any) -> Any:
    """What a method reads of scores, [N, K] or [N, D]; raises UserError where they lack it."""
    cls = method_class(method)
    found = getattr(scores, cls.reads, None)
    if found is None:
        raise UserError(
            f"{cls.name} reads the hidden states that the letters are read from, and these scores "
            "hold none: give scores with states, or leave the method out"
        )
    return found


def fit_scores(method: str | type[Calibrator], scores: Any, **options: Any) -> Calibrator:
    """A method fitted to all rows of scores.

    Args:
        method: a name in ``METHODS``, or a class.
        scores: ``calib_jax.Scores``, or anything with what the method reads, answers and mask.
        **options: passed to the method's ``fit``.

    Example:
        >>> from types import SimpleNamespace as Scores
        >>> scores = Scores(log_scores=[[2.0, 0.0]] * 4, answers=[0, 0, 0, 1], mask=None)
        >>> round(fit_scores("temperature", scores).temperature, 4)
        1.8205
    """
    cls = method_class(method)
    values = read_from(cls, scores)
    if cls.reads == "states":
        options.setdefault("clusters", getattr(scores, "units", None))
    return cls.fit(values, scores.answers, scores.mask, **options)


def calibrated_scores(calibrator: Calibrator, scores: Any) -> Any:
    """A calibrator applied to scores, giving scores as ``cross_fit_scores`` does."""
    arrays = read_from(type(calibrator), scores), scores.mask
    return dataclasses.replace(
        scores,
        probs=np.asarray(calibrator(*arrays)),
        log_scores=np.asarray(calibrator.log_probs(*arrays)),
    )


def _cross_fit(
    method, values, answers, mask, folds, seed, clusters, options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and their logarithms, out of fold; and the folds."""
    if "groups" in options:  # else it would reach the method's fit
        raise UserError("groups= is now called clusters=: rows that must stay in one fold")
    cls = method_class(method)
    if cls.reads == "states":
        values, inputs = check_states(values, answers, mask)
        options = {"clusters": clusters, **options}
    else:
        inputs = check_inputs(values, answers, mask)
        values = inputs.log_scores
    numbers = fold_numbers(len(inputs.answers), folds, seed, inputs.answers, clusters)
    probs = np.empty(inputs.mask.shape, np.float32)
    log_probs = np.empty_like(probs)
    for fold in range(folds):
        held_out = numbers == fold
        weights = (~held_out).astype(np.float32)
        fitted = cls.fit(values, inputs.answers, inputs.mask, weights=weights, **options)
        arrays = values, inputs.mask
        probs[held_out] = np.asarray(fitted(*arrays))[held_out]
        log_probs[held_out] = np.asarray(fitted.log_probs(*arrays))[held_out]
    return probs, log_probs, numbers


@checked_settings
def split_rows(
    num_rows: int,
    share: float = 0.5,
    seed: int = 0,
    answers: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A seeded split into rows to fit on and rows to test on, disjoint, each ascending.

    Args:
        num_rows: N.
        share: of the rows to fit on, in (0, 1); rounded, at least one row on each side.
        seed: of the order.
        answers: [N] or None; with it every answer is spread over both sides in proportion.
        clusters: [N] names or None; with it no cluster stands on both sides, and the share is met
            as nearly as whole clusters, in a seeded order, allow; ``answers`` are not looked at.

    Example:
        >>> fit_rows, test_rows = split_rows(10, share=0.3)
        >>> len(fit_rows), len(test_rows), len(set(fit_rows) & set(test_rows))
        (3, 7, 0)
    """
    if not 0 < share < 1:
        raise UserError(f"share must lie strictly between 0 and 1, got {share!r}")
    rng = np.random.default_rng(seed)
    wanted = min(max(round(share * num_rows), 1), num_rows - 1)
    fitted = np.zeros(num_rows, bool)
    if clusters is not None:
        names, index = _coded(clusters, num_rows)
        counts = np.bincount(index)
        _enough(len(names), "clusters", 2)
        order = rng.permutation(len(names))
        taken = np.abs(np.cumsum(counts[order])[:-1] - wanted).argmin() + 1
        fitted = np.isin(index, order[:taken])
    else:
        _enough(num_rows, "rows", 2)
        order = rng.permutation(num_rows)
        if answers is not None:
            order = order[np.argsort(np.asarray(answers)[order], kind="stable")]
        # Every (N / wanted)-th of the order: the answers keep their proportions.
        fitted[order[(np.arange(wanted) * num_rows) // wanted]] = True
    return np.flatnonzero(fitted), np.flatnonzero(~fitted)


def fit_split(
    method: str | type[Calibrator], train: Any, test: Any, **options: Any
) -> tuple[Calibrator, np.ndarray]:
    """Fit on one set of scores and apply to another, refusing questions that stand in both.

    Args:
        method: a name in ``METHODS``, or a class.
        train: ``calib_jax.Scores``, or anything with log_scores, answers, mask and ids.
        test: the same; its answers are not looked at.
        **options: passed to the method's ``fit``.

    Returns:
        (the fitted calibrator, float32 [N_test, K] calibrated probabilities).

    Raises:
        UserError: an id stands in both sets (naming the first and how many), or ids are missing.

    Example:
        >>> from types import SimpleNamespace as Scores
        >>> train = Scores(log_scores=[[2.0, 0.0]] * 4, answers=[0, 0, 0, 1], mask=None, ids="abcd")
        >>> test = Scores(log_scores=[[2.0, 0.0]], answers=[0], mask=None, ids=["e"])
        >>> round(float(fit_split("temperature", train, test)[1][0, 0]), 4)
        0.75
    """
    for name, scores in (("train", train), ("test", test)):
        if len(scores.ids) != len(scores.log_scores):
            raise UserError(
                f"{name} has {len(scores.ids)} ids for {len(scores.log_scores)} rows: every row "
                "needs an id, so that rows in both sets are found"
            )
    common = set(train.ids) & set(test.ids)
    if common:
        first = next(name for name in test.ids if name in common)
        raise UserError(
            f'{len(common)} ids stand in both sets, the first is "{first}": a calibrator must be '
            "fitted on questions that are not in the test set; see split_rows and cross_fit"
        )
    fitted = fit_scores(method, train, **options)
    return fitted, np.asarray(fitted(read_from(method, test), test.mask))
