"""Letter-prior corrections: batch calibration, contextual calibration, PriDe. None needs labels."""

import dataclasses
import functools
from typing import Self

import jax
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import Calibrator, number, parameter, register, row
from calib_jax.posthoc.inputs import (
    centred_scores,
    check_inputs,
    check_options,
    masked_log_softmax,
    masked_softmax,
    without_zeros,
)


@functools.partial(jax.jit, static_argnames="logs")
def _apply(log_scores, log_prior, mask, floor, logs) -> jax.Array:
    scores, valid = centred_scores(log_scores, mask, floor)
    return (masked_log_softmax if logs else masked_softmax)(scores - log_prior, valid)


def _log_softmax(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Float64 log-probabilities over the valid entries of the last axis; 0 where masked."""
    scores = np.where(valid, scores.astype(np.float64), -np.inf)
    scores = scores - scores.max(axis=-1, keepdims=True)
    total = np.exp(scores).sum(axis=-1, keepdims=True)
    return np.where(valid, scores - np.log(total), 0)


def _mean_prior(log_probs: np.ndarray, valid: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """ln of each option's mean probability over the rows that have it.

    An option that no row has gets the mean of the others' ln: it is neither raised nor lowered.
    """
    counted = weights[:, None] * valid
    rows = counted.sum(axis=0)
    shift = np.where(counted > 0, log_probs, -np.inf).max(axis=0)
    shift = np.where(rows > 0, shift, 0)
    sums = (counted * np.exp(np.where(counted > 0, log_probs - shift, -np.inf))).sum(axis=0)
    seen = rows > 0
    log_prior = shift + np.log(np.where(seen, sums, 1)) - np.log(np.where(seen, rows, 1))
    return tuple(np.where(seen, log_prior, log_prior[seen].mean()).tolist())


@dataclasses.dataclass(frozen=True)
class _LetterPrior(Calibrator):
    """softmax(s - ln prior): every option's probability over its prior, normalised again."""

    log_prior: tuple[float, ...] = parameter(row(number()))

    preserves_argmax = False
    needs_answers = False

    def __call__(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        return self._applied(log_scores, mask, logs=False)

    def log_probs(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        return self._applied(log_scores, mask, logs=True)

    def _applied(self, log_scores, mask, logs) -> jax.Array:
        check_options(log_scores, len(self.log_prior), self.name)
        return _apply(log_scores, np.asarray(self.log_prior, np.float32), mask, self.floor, logs)


@register("batch_calibration", "Batch calibration")
@dataclasses.dataclass(frozen=True)
class BatchCalibration(_LetterPrior):
    """Batch calibration: divide by the mean probability of each letter over a batch.

        p_k ∝ q_k / mean_i q_ik

    with q = softmax(s). Assumes that the right letters are spread evenly over the batch, as in a
    shuffled multiple-choice set. With ragged options a letter's mean is over the rows that have
    it. Source: Zhou et al. 2024 (arXiv 2309.17249).

    Preserves: the difference of two letters' log-odds between rows; neither the order of a row's
    options nor the accuracy.

    Attributes:
        log_prior: ln of the mean probabilities, K floats.

    Example:
        >>> import math
        >>> scores = [[math.log(3), 0.0], [math.log(3), 0.0]]   # prefers A by 3 to 1
        >>> round(float(BatchCalibration.fit(scores)(scores)[0, 0]), 4)
        0.5
    """

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None) -> Self:
        """The prior of these rows; ``answers`` are not looked at."""
        inputs = check_inputs(log_scores, None, mask, weights, needs_answers=False)
        inputs, floor = without_zeros(inputs)
        log_probs = _log_softmax(inputs.log_scores, inputs.mask)
        return cls(_mean_prior(log_probs, inputs.mask, inputs.weights), floor=floor)


@register("contextual_calibration", "Contextual calibration")
@dataclasses.dataclass(frozen=True)
class ContextualCalibration(_LetterPrior):
    """Contextual calibration: divide by the probabilities that a content-free prompt gets.

        p_k ∝ q_k / q_cf,k

    with q_cf the mean over one or several content-free prompts ("N/A", "", "[MASK]"). The result
    is normalised, not passed through a softmax a second time. Source: Zhao et al. 2021 (arXiv
    2102.09690), section 5, W = diag(p_cf)^-1, b = 0.

    Preserves: as ``BatchCalibration``.

    Attributes:
        log_prior: ln of the content-free probabilities, K floats.

    Example:
        >>> import math
        >>> calibrator = ContextualCalibration.fit(content_free_log_scores=[math.log(3), 0.0])
        >>> round(float(calibrator([[0.0, 0.0]])[0, 0]), 4)
        0.25
    """

    @classmethod
    def fit(
        cls,
        log_scores=None,
        answers=None,
        mask=None,
        *,
        weights=None,
        content_free_log_scores=None,
    ) -> Self:
        """The prior of the content-free prompts alone.

        Args:
            log_scores, answers, mask, weights: not looked at.
            content_free_log_scores: [K] or [C, K], the options' log-scores after each prompt; an
                option at -inf does not exist there.
        """
        if content_free_log_scores is None:
            raise UserError(
                "contextual_calibration needs content_free_log_scores [C, K]: the "
                "options' log-scores after a content-free prompt"
            )
        prior = np.atleast_2d(np.asarray(content_free_log_scores))
        inputs = check_inputs(prior, None, needs_answers=False, what="content_free_log_scores")
        inputs, floor = without_zeros(inputs)
        log_probs = _log_softmax(inputs.log_scores, inputs.mask)
        return cls(_mean_prior(log_probs, inputs.mask, inputs.weights), floor=floor)


@register("pride", "PriDe")
@dataclasses.dataclass(frozen=True)
class PriDe(_LetterPrior):
    """PriDe: divide by the letters' prior, estimated from permutations of the options.

        prior_n = softmax_k(mean over permutations of ln q_nsk),   p_k ∝ q_k / mean_n prior_n,k

    Over all cyclic shifts every content stands once under every letter, so that the contents
    cancel in the mean and the letter's prior remains. A few questions (2-5 % of a set) suffice.
    Source: Zheng et al. 2024 (arXiv 2309.03882), Eq. 7-8.

    Preserves: as ``BatchCalibration``.

    Attributes:
        log_prior: ln of the prior, K floats.

    Example:
        >>> import math
        >>> a, b = math.log(2), math.log(3)     # bias to letter A; content 0 is better
        >>> shifts = [[[a + b, 0.0], [a, b]]]   # content 0 under A, then under B
        >>> calibrator = PriDe.fit(permuted_log_scores=shifts)
        >>> round(float(calibrator([[a + b, 0.0]])[0, 0]), 4)   # the content's 3 to 1 alone
        0.75
    """

    @classmethod
    def fit(
        cls,
        log_scores=None,
        answers=None,
        mask=None,
        *,
        weights=None,
        permuted_log_scores=None,
        permuted_mask=None,
    ) -> Self:
        """The prior of the permuted questions alone.

        Args:
            log_scores, answers, mask, weights: not looked at.
            permuted_log_scores: [P, S, K]: entry [n, s, k] is the log-score of LETTER k when
                question n's options are shown in permutation s; S = K cyclic shifts. A question
                with fewer options has as many shifts; the rest holds -inf.
            permuted_mask: [P, S, K] bool; None: where the score is not -inf.
        """
        if permuted_log_scores is None:
            raise UserError(
                "pride needs permuted_log_scores [P, S, K]: the letters' log-scores "
                "of each question under every cyclic shift of its options"
            )
        scores = np.asarray(permuted_log_scores)
        if scores.ndim != 3 or 0 in scores.shape:
            raise UserError(f"permuted_log_scores must have shape [P, S, K], got {scores.shape}")
        scores = scores.astype(np.float32)
        valid = np.asarray(scores != -np.inf if permuted_mask is None else permuted_mask)
        if valid.shape != scores.shape or valid.dtype != bool:
            raise UserError(
                f"permuted_mask must be bool of shape {scores.shape}, got "
                f"{valid.dtype} {valid.shape}"
            )
        shown = np.asarray(valid.any(axis=2))
        letters = np.asarray(valid.any(axis=1))
        ragged = (valid != shown[:, :, None] & letters[:, None, :]).any(axis=(1, 2))
        uneven = ragged | (shown.sum(axis=1) != letters.sum(axis=1))
        if uneven.any():
            raise UserError(
                f"row {int(uneven.argmax())} of permuted_log_scores does not hold as many shifts "
                f"as options, with the same options in each ({int(uneven.sum())} bad rows of "
                f"{len(uneven)}): give all cyclic shifts, or contents do not cancel"
            )
        flat = check_inputs(
            scores[shown], None, valid[shown], needs_answers=False, what="permuted_log_scores"
        )
        flat, floor = without_zeros(flat)
        log_probs = np.zeros(scores.shape)
        log_probs[shown] = _log_softmax(flat.log_scores, flat.mask)
        mean = log_probs.sum(axis=1) / shown.sum(axis=1, keepdims=True)
        priors = _log_softmax(np.where(letters, mean, -np.inf), letters)
        return cls(_mean_prior(priors, letters, np.ones(len(priors))), floor=floor)
