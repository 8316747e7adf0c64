"""How certain a fitted temperature is."""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics.sums import tree_sum, weighted_sum
from calib_jax.posthoc.inputs import centred_scores, check_inputs, checked_settings, without_zeros
from calib_jax.posthoc.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    only_given,
    temperature_kernel,
)

_STEPS = 40


@checked_settings
def temperature_interval(
    log_scores: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """An interval for the temperature that ``fit_temperature`` would find in infinitely many rows.

    The temperatures whose log-likelihood L lies so little below the largest that

        2 min(1, H/J) (L(T^) - L(T)) <= z^2

    z the normal quantile of (1 + level)/2, H the curvature of -L in 1/T and J the sum of the rows'
    squared slopes, both at T^; with ``clusters`` G/(G - 1) times the sum of the G clusters' squared
    sums, and z the quantile of Student's t with G - 1 degrees of freedom. That is the
    profile likelihood's interval, made wider where the rows contradict the model softmax(s / T) or
    one another's independence, H < J (Kent 1982). Coverage: ``benchmarks/top_label.py``.

    Args:
        log_scores, answers, mask, weights: as in ``fit_temperature``.
        clusters: [N] names or None; rows of one name depend on one another. A single cluster says
            nothing: the interval is [0.01, 1000].
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        (low, high), within [0.01, 1000]. An end that the rows do not fix is the bound: the low one
        where every answer is its row's best option; both where the scores are uniform.

    Raises:
        UserError: as ``fit_temperature``, or clusters of another length.
        ValueError: a level that is none.

    Example:
        >>> scores = [[2.0, 0.0]] * 100
        >>> low, high = temperature_interval(scores, [0] * 80 + [1] * 20)   # T = 2 / ln 4 = 1.44
        >>> round(low, 2), round(high, 2)
        (1.05, 2.18)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}")
    given = check_inputs(log_scores, answers, mask, weights)
    rows, floor = without_zeros(given)
    if floor is not None:
        # As Temperature.fit does.
        without = only_given(given)
        rows = without if int(temperature_kernel(*without).status) == 0 else rows
    found = temperature_kernel(*rows)
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    unit, more = np.arange(len(rows.answers)), 1.0
    if clusters is not None:
        from scipy.special import stdtrit  # here: scipy is slow to import

        names = np.asarray(clusters).astype(str)
        if names.shape != unit.shape:
            raise UserError(f"clusters must have shape {unit.shape}, got {names.shape}")
        kept, unit = np.unique(names, return_inverse=True)
        if len(kept) < 2:
            return MIN_TEMPERATURE, MAX_TEMPERATURE
        more = len(kept) / (len(kept) - 1)
        z = float(stdtrit(len(kept) - 1, (1 + level) / 2))
    low, high = _ends(
        *rows, unit, jnp.log(found.temperature), np.float32(z * z), more, clusters is not None
    )
    return float(low), float(high)


@functools.partial(jax.jit, static_argnames="clustered")
def _ends(log_scores, answers, mask, weights, unit, best, most, more, clustered) -> jax.Array:
    """The two temperatures at which the deviance is ``most``; [2], of ln T^ = ``best``."""
    scores, valid = centred_scores(log_scores, mask)
    target = jnp.take_along_axis(scores, answers[:, None], axis=1)[:, 0]

    def at(log_t):
        beta = jnp.exp(-log_t)
        powers = jnp.where(valid, jnp.exp(beta * scores), 0)
        total = powers.sum(axis=1)
        return jnp.log(total) - beta * target, powers / total[:, None]

    rows, share = at(best)
    mean = (share * scores).sum(axis=1)
    variance = (share * (scores - mean[:, None]) ** 2).sum(axis=1)
    curvature = weighted_sum(variance, weights)
    # A row of weight w is w rows alike: of one cluster, or each for itself.
    slopes = mean - target
    sums = jax.ops.segment_sum(weights * slopes, unit, num_segments=len(slopes))
    squares = more * tree_sum(sums**2) if clustered else weighted_sum(slopes**2, weights)
    scale = jnp.where(squares > curvature, curvature / jnp.where(squares > 0, squares, 1), 1)

    def within(log_t):
        # Row by row: the two sums are large, and their difference small.
        return 2 * scale * weighted_sum(at(log_t)[0] - rows, weights) <= most

    def halve(_, ends):
        inside, outside = ends
        middle = (inside + outside) / 2
        good = within(middle)
        return jnp.where(good, middle, inside), jnp.where(good, outside, middle)

    def end(bound):
        found = jax.lax.fori_loop(0, _STEPS, halve, (best, bound))[0]
        return jnp.where(within(bound), bound, found)

    bounds = jnp.log(jnp.array([MIN_TEMPERATURE, MAX_TEMPERATURE], jnp.float32))
    return jnp.clip(jnp.exp(jax.lax.map(end, bounds)), MIN_TEMPERATURE, MAX_TEMPERATURE)
