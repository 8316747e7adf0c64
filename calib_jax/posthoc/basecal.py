"""BaseCal-ReEval: the aligned model answers, and the pre-trained one says how sure to be."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.posthoc.inputs import check_inputs, masked_softmax


def re_evaluated(
    log_scores: ArrayLike, reference_log_scores: ArrayLike, mask: ArrayLike | None = None
) -> np.ndarray:
    """The confidence in each prediction of the aligned model, as the pre-trained model sees it.

        c = p_pre(a), a = argmax_k p_aligned(k)

    The paper's c is the mean of p_pre over the tokens of a written answer. Here the answer is an
    option, and its probability is the one among the question's options, like every other confidence
    of ours. No label is looked at. It is one number a question, and no distribution: where the two
    models disagree c may lie below 1/2 while the prediction stays, so that NLL and the Brier score
    over the options are not defined.

    Args:
        log_scores: [N, K] of the aligned model, natural log, any offset per row.
        reference_log_scores: [N, K] of the pre-trained model on the same questions, options and
            order.
        mask: [N, K] bool, True where the option exists; None: where ``log_scores`` is not -inf.

    Returns:
        [N] float32 in [0, 1]. Source: Tan et al. 2026 (arXiv 2601.03042).

    Raises:
        UserError: scores of other shapes, or with NaN, or without any valid option.

    Example:
        >>> aligned, base = np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([[0.6, 0.4], [0.7, 0.3]])
        >>> re_evaluated(aligned, base).round(4)
        array([0.6, 0.3], dtype=float32)
    """
    aligned = check_inputs(log_scores, None, mask, needs_answers=False)
    shape = np.shape(reference_log_scores)
    if shape != aligned.mask.shape:
        raise UserError(
            f"reference_log_scores must have the shape of log_scores {aligned.mask.shape}, got "
            f"{shape}"
        )
    what = "reference_log_scores"
    base = check_inputs(reference_log_scores, None, aligned.mask, needs_answers=False, what=what)
    answer = np.where(aligned.mask, aligned.log_scores, -np.inf).argmax(axis=1)
    probs = np.asarray(masked_softmax(jnp.asarray(base.log_scores), jnp.asarray(base.mask)))
    return probs[np.arange(len(answer)), answer]
