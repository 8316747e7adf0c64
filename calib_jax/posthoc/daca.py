"""DACA: a temperature without labels, from agreement with the pre-trained model."""

import dataclasses
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import choice, count, number, parameter, register
from calib_jax.posthoc.inputs import centred_scores, check_inputs, masked_softmax, without_zeros
from calib_jax.posthoc.temperature import (
    STATUSES,
    OneTemperature,
    TemperatureFit,
    solve_temperature,
    status_of,
    warn_of_status,
)


class _Found(NamedTuple):
    fit: TemperatureFit
    agreement: jax.Array
    rows: jax.Array


@jax.jit
def _fit(log_scores, reference, mask, weights) -> _Found:
    scores, valid = centred_scores(log_scores, mask)
    reference, _ = centred_scores(reference, mask)
    best = jnp.where(valid, scores, -jnp.inf).argmax(axis=1)
    agrees = best == jnp.where(valid, reference, -jnp.inf).argmax(axis=1)
    target = (masked_softmax(reference, valid) * scores).sum(axis=1)
    counted = weights > 0
    fit = solve_temperature(scores, valid, target, jnp.where(agrees, weights, 0))
    return _Found(fit, (agrees & counted).sum(), counted.sum())


@register("daca", "DACA")
@dataclasses.dataclass(frozen=True)
class DACA(OneTemperature):
    """Disagreement-aware confidence alignment: temperature scaling without labels.

        T = argmin_T  mean over agreement rows of KL(q_pre || softmax(s / T))

    where a row is an agreement when the aligned model and the pre-trained one name the same best
    option (the first of equals). Pre-trained models are well calibrated; where the two disagree
    their confidence says nothing of the aligned model's answer and would push T up. Exact, as
    ``temperature_kernel``. Preserves: as ``Temperature``. Source: Luo et al. 2025 (arXiv
    2505.16690), temperature scaling.

    Attributes:
        temperature: T.
        agreement: number of rows T was fitted to.
        rows: number of rows given; the others disagree and are left out.
        status: how the fit ended, one of ``STATUSES``.

    Example:
        >>> scores, pretrained = [[4.0, 0.0], [4.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]
        >>> found = DACA.fit(scores, reference_log_scores=pretrained)
        >>> round(found.temperature, 4), found.agreement, found.rows
        (2.0, 1, 2)
    """

    temperature: float = parameter(number(1e-6, 1e6))
    agreement: int = parameter(count)
    rows: int = parameter(count)
    status: str = parameter(choice(*STATUSES[:4]), default="converged")

    needs_answers = False

    @classmethod
    def fit(
        cls,
        log_scores,
        answers=None,
        mask=None,
        *,
        weights=None,
        reference_log_scores: ArrayLike | None = None,
    ) -> Self:
        """Fit T; ``answers`` are not looked at.

        Args:
            log_scores: [N, K] of the aligned model.
            reference_log_scores: [N, K] of the pre-trained model on the same questions, options
                and order, -inf where masked.
        """
        if reference_log_scores is None:
            raise UserError(
                "daca needs reference_log_scores [N, K]: the pre-trained model's "
                "log-scores of the same questions"
            )
        inputs = check_inputs(log_scores, None, mask, weights, needs_answers=False)
        inputs, floor = without_zeros(inputs)
        shape = np.shape(reference_log_scores)
        if shape != inputs.mask.shape:
            raise UserError(
                f"reference_log_scores must have the shape of log_scores "
                f"{inputs.mask.shape}, got {shape}"
            )
        reference = check_inputs(
            reference_log_scores,
            None,
            inputs.mask,
            needs_answers=False,
            what="reference_log_scores",
        )
        reference, _ = without_zeros(reference)
        found = _fit(inputs.log_scores, reference.log_scores, inputs.mask, inputs.weights)
        if int(found.agreement) == 0:
            raise UserError(
                f"the two models agree on none of {int(found.rows)} rows: DACA has "
                "nothing to fit to; are the questions in the same order?"
            )
        temperature, status = float(found.fit.temperature), status_of(found.fit)
        fitted = cls(temperature, int(found.agreement), int(found.rows), status, floor=floor)
        warn_of_status(fitted, inputs)
        return fitted
