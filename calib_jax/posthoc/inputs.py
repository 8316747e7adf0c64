"""Option scores as the fits and the calibrators read them: checked, shifted, and without NaN."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics import settings
from calib_jax.metrics.zeros import find_zeros
from calib_jax.posthoc.calibrator import CalibrationWarning
from calib_jax.posthoc.floor import most_likely_floor

# Of posthoc every complaint is a UserError.
checked_settings = functools.partial(settings.checked_settings, error=UserError)

# exp(-104) is the largest power that float32 rounds to 0: what a probability of 0 may have been.
ZERO_LOG_SCORE = -104.0


def centred_scores(
    log_scores: ArrayLike, mask: ArrayLike | None = None, floor: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Scores whose largest valid one is 0 in each row, and which options are valid.

    Without a mask an option at -inf does not exist. With a mask, a valid option at -inf has a
    probability of exactly 0: it is read as the probability e^floor beside the others of its row,
    or as the row's lowest finite score where that is lower still. Without a floor (a kernel that
    was given none, or a calibrator fitted to rows without zeros) it is read as the row's largest
    score - 104, the most that float32 rounds to 0. So nothing becomes NaN, and an option of
    probability 0 may regain some.

    Args:
        log_scores: [N, K], any offset per row; cast to float32.
        mask: [N, K] bool, True where the option exists; None: where the score is not -inf.
        floor: scalar, ln of a probability; see ``floor.most_likely_floor``.

    Returns:
        (scores [N, K] float32, 0 where masked; valid [N, K] bool).
    """
    scores = jnp.asarray(log_scores)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise UserError(f"log_scores must have shape [N, K] with K >= 1, got {scores.shape}")
    scores = scores.astype(jnp.float32)
    if mask is None:
        valid = scores != -jnp.inf
    else:
        valid = jnp.asarray(mask)
        if valid.shape != scores.shape:
            raise UserError(
                f"mask must have the shape of log_scores {scores.shape}, got {valid.shape}"
            )
        valid = valid.astype(bool)
    top = jnp.where(valid, scores, -jnp.inf).max(axis=1, keepdims=True)
    scores = scores - jnp.where(jnp.isinf(top), 0, top)
    zero = valid & (scores == -jnp.inf)
    lowest = jnp.where(valid & ~zero, scores, 0).min(axis=1, keepdims=True)
    at_zero: ArrayLike = ZERO_LOG_SCORE
    if floor is not None:
        at_zero = masked_logsumexp(scores, valid & ~zero)[:, None] + floor
    scores = jnp.where(zero, jnp.minimum(lowest, at_zero), scores)
    return jnp.where(valid, scores, 0), valid


def masked_softmax(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """Softmax over the valid options; 0 elsewhere, and everywhere in a row without any."""
    logits = jnp.where(valid, logits, -jnp.inf)
    top = logits.max(axis=1, keepdims=True)
    powers = jnp.exp(logits - jnp.where(top == -jnp.inf, 0, top))
    total = powers.sum(axis=1, keepdims=True)
    return powers / jnp.where(total == 0, 1, total)


def masked_log_softmax(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """ln of ``masked_softmax``, also where that is too small for float32; -inf where masked."""
    total = masked_logsumexp(logits, valid)[:, None]
    return jnp.where(valid, logits - jnp.where(valid.any(axis=1)[:, None], total, 0), -jnp.inf)


def masked_logsumexp(logits: jax.Array, valid: jax.Array) -> jax.Array:
    """log sum exp over the valid options, [N]; -inf in a row without any."""
    top = jnp.where(valid, logits, -jnp.inf).max(axis=1)
    top = jnp.where(top == -jnp.inf, 0, top)
    powers = jnp.where(valid, jnp.exp(jnp.where(valid, logits - top[:, None], 0)), 0)
    return top + jnp.log(powers.sum(axis=1))


class FitInputs(NamedTuple):
    """Checked host arrays: float32 [N, K], int32 [N] or None, bool [N, K], float32 [N]."""

    log_scores: np.ndarray
    answers: Any  # np.ndarray; None where a fit without labels was given none
    mask: np.ndarray
    weights: np.ndarray


def check_inputs(
    log_scores: ArrayLike,
    answers: ArrayLike | None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    needs_answers: bool = True,
    what: str = "log_scores",
) -> FitInputs:
    """What a fit takes, checked on the host; a UserError names the first bad row and the remedy.

    Warns (CalibrationWarning) when valid options hold a probability of exactly 0, saying how many
    rows and how they are read, and when the scores look like probabilities.
    """
    given = np.asarray(log_scores)
    if given.dtype.kind in "OSUmMc":
        raise UserError(f"{what} must hold numbers, got {given.dtype}")
    if given.ndim != 2 or given.shape[1] == 0:
        raise UserError(f"{what} must have shape [N, K] with K >= 1, got {given.shape}")
    rows, options = given.shape
    if rows == 0:
        raise UserError(f"{what} has no rows: nothing to fit to")
    scores = given.astype(np.float32)
    valid = scores != -np.inf if mask is None else np.asarray(mask)
    if valid.shape != scores.shape or valid.dtype != bool:
        raise UserError(
            f"mask must be bool of shape {scores.shape}, got {valid.dtype} {valid.shape}"
        )
    _refuse(~valid.any(axis=1), f"of {what} has no valid option", "leave such rows out")
    wrong = valid & ~(scores < np.inf)  # NaN and +inf
    _refuse(wrong.any(axis=1), f"of {what} holds NaN or +inf", "log-scores are finite or -inf")
    zeros = valid & (scores == -np.inf)
    _refuse((zeros == valid).all(axis=1), f"of {what} is -inf everywhere", "recompute these rows")
    if answers is not None:
        answers = np.asarray(answers)
        if answers.shape != (rows,) or not np.issubdtype(answers.dtype, np.integer):
            raise UserError(
                f"answers must be integers of shape ({rows},), got {answers.dtype} {answers.shape}"
            )
        answers = answers.astype(np.int64)
        outside = (answers < 0) | (answers >= options)
        _refuse(outside, f"has an answer outside 0..{options - 1}", "answers are 0-based")
        masked = ~np.take_along_axis(valid, answers[:, None], axis=1)[:, 0]
        remedy = "the answer must be one of the row's options"
        if mask is None:
            remedy = "without a mask -inf means no such option; pass mask for a probability of 0"
        _refuse(masked, "has a masked answer", remedy)
        answers = answers.astype(np.int32)
    elif needs_answers:
        raise UserError(
            "answers are needed to fit this method; the label-free ones are "
            "batch_calibration, contextual_calibration, pride and daca"
        )
    if weights is None:
        weights = np.ones(rows, np.float32)
    else:
        weights = np.asarray(weights)
        if weights.dtype.kind not in "biuf":
            raise UserError(f"weights must hold numbers, got {weights.dtype}")
        weights = weights.astype(np.float32)
        if weights.shape != (rows,):
            raise UserError(f"weights must have shape ({rows},), got {weights.shape}")
        _refuse(~(weights >= 0) | np.isinf(weights), "has a bad weight", "weights are >= 0")
        if not weights.any():
            raise UserError("all weights are 0: nothing to fit to")
    if found := find_zeros(scores, valid, answers):
        of = "" if what == "log_scores" else f"{what}: "
        warnings.warn(of + str(found), CalibrationWarning, stacklevel=3)
    if _like_probabilities(scores, valid):
        warnings.warn(
            f"{what} look like probabilities (in [0, 1], rows summing to 1): pass log(probs)",
            CalibrationWarning,
            stacklevel=3,
        )
    return FitInputs(scores, answers, valid, weights)


def check_states(
    states: ArrayLike,
    answers: ArrayLike | None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> tuple[np.ndarray, FitInputs]:
    """What a fit to hidden states takes, checked as by ``check_inputs``: states [N, D] float32, and
    the rest, in which every option's log-score is 0."""
    found = np.asarray(states)
    if found.ndim != 2 or found.shape[1] == 0:
        raise UserError(f"states must have shape [N, D] with D >= 1, got {found.shape}")
    if len(found) == 0:
        raise UserError("states has no rows: nothing to fit to")
    found = found.astype(np.float32)
    _refuse(~np.isfinite(found).all(axis=1), "of states is not finite", "recompute these rows")
    if mask is None:
        if answers is None:
            raise UserError("answers are needed to fit this method")
        mask = np.ones((len(found), int(np.max(answers)) + 1), bool)
    mask = np.asarray(mask)
    if mask.ndim != 2 or len(mask) != len(found) or mask.dtype != bool:
        raise UserError(
            f"mask must be bool of shape ({len(found)}, K), got {mask.dtype} {mask.shape}"
        )
    return found, check_inputs(np.where(mask, 0.0, -np.inf), answers, mask, weights)


def without_zeros(inputs: FitInputs) -> tuple[FitInputs, float | None]:
    """The inputs with every probability of 0 read as its most likely value, and ln of that.

    None where there is no zero. A calibrator keeps the value, its ``floor``, and reads the zeros
    of other rows as the same.
    """
    found = find_zeros(inputs.log_scores, inputs.mask)
    if found is None:
        return inputs, None
    floor = most_likely_floor(
        inputs.log_scores, inputs.mask, inputs.answers, inputs.weights, found.highest
    )
    scores = np.asarray(centred_scores(inputs.log_scores, inputs.mask, np.float32(floor))[0])
    return inputs._replace(log_scores=np.where(inputs.mask, scores, -np.inf)), floor


def check_options(log_scores: ArrayLike, fitted: int, name: str) -> None:
    """Raise unless the scores have as many options as the calibrator was fitted to."""
    options = np.shape(log_scores)[-1]
    if options != fitted:
        raise UserError(
            f"{name} was fitted to {fitted} options, these scores have {options}: "
            "fit it to scores of the same width"
        )


def _refuse(bad: Any, text: str, remedy: str) -> None:
    if bad.any():
        total = int(bad.sum())
        rows = f"{total} bad row{'s' if total > 1 else ''} of {len(bad)}"
        raise UserError(f"row {int(np.argmax(bad))} {text} ({rows}): {remedy}")


def _like_probabilities(scores: np.ndarray, valid: np.ndarray) -> bool:
    kept = np.where(valid, scores, 0)
    # One-hot rows are as likely to be toy logits.
    inside = ((kept >= 0) & (kept <= 1)).all() and ((kept > 0) & (kept < 1)).any()
    return bool(inside and np.abs(kept.sum(axis=1) - 1).max() < 1e-4)
