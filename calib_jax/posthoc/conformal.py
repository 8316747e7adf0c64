"""Split-conformal prediction sets: LAC and APS, with coverage and set size.

Scores are kept as logarithms of what they lack to 1: the published ones, 1 - p and cumulated p,
are 1.0 in float32 for every unlikely option of a confident model, and its sets would hold them all.
"""

import abc
import dataclasses
import functools
import math
import warnings
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.sums import weighted_mean
from calib_jax.posthoc.calibrator import (
    CalibrationWarning,
    Stored,
    count,
    flag,
    number,
    optional,
    parameter,
    register,
)
from calib_jax.posthoc.inputs import centred_scores, check_inputs, masked_log_softmax


def conformal_rank(rows: int, alpha: float) -> int:
    """ceil((n + 1)(1 - alpha)): which of n ordered scores is the threshold; above n: none is.

    Example:
        >>> conformal_rank(99, 0.1), conformal_rank(8, 0.1)
        (90, 9)
    """
    # Rounded first: 10 * (1 - 0.3) must not become 8 by its last bit.
    return math.ceil(round((rows + 1) * (1 - alpha), 9))


# Of a score: nothing is left beyond the option. Finite, so that it can be saved.
_ALL = float(np.finfo(np.float32).max)


@jax.jit
def _lac_scores(log_scores, mask):
    log_probs = masked_log_softmax(*centred_scores(log_scores, mask))
    return jnp.minimum(-log_probs, _ALL)


@functools.partial(jax.jit, static_argnames="randomized")
def _aps_scores(log_scores, mask, key, randomized):
    log_probs = masked_log_softmax(*centred_scores(log_scores, mask))
    order = jnp.argsort(-log_probs, axis=1, stable=True)
    ranked = jnp.take_along_axis(log_probs, order, axis=1)
    # ln of what is ranked at or after each place, and so of what is ranked after it.
    upto = jax.lax.associative_scan(jnp.logaddexp, ranked, reverse=True, axis=1)
    after = jnp.pad(upto[:, 1:], ((0, 0), (0, 1)), constant_values=-jnp.inf)
    after = jnp.take_along_axis(after, jnp.argsort(order, axis=1), axis=1)
    if randomized:
        share = _own_uniform(key, *centred_scores(log_scores, mask))[:, None]
        after = jnp.logaddexp(after, jnp.log(share) + log_probs)
    return jnp.minimum(-after, _ALL)


def _own_uniform(key: jax.Array, scores: jax.Array, valid: jax.Array) -> jax.Array:
    """A number from 0 to 1 for each row, [N], made of the key, the row's scores and its occurrence.

    It is the same whatever rows stand beside it, but for copies of it further up.
    """
    fold = jax.vmap(jax.random.fold_in)
    # + 0.0: -0.0 is 0.
    bits = jax.lax.bitcast_convert_type(jnp.where(valid, scores, 0) + 0.0, jnp.uint32)

    def further(keys, column):
        bits, valid = column
        # A masked option is none, so that rows may be filled up to any width.
        return jnp.where(valid, fold(keys, bits), keys), None

    keys = jnp.broadcast_to(key, len(scores))
    keys, _ = jax.lax.scan(further, keys, (bits.T, valid.T))
    high, low = jax.random.key_data(keys).T
    place = jnp.arange(len(scores), dtype=jnp.int32)
    high, low, row = jax.lax.sort((high, low, place), num_keys=2, is_stable=True)
    new = jnp.pad((high[1:] != high[:-1]) | (low[1:] != low[:-1]), (1, 0), constant_values=True)
    occurrence = place - jax.lax.cummax(jnp.where(new[: len(place)], place, 0))
    keys = fold(keys, jnp.zeros_like(place).at[row].set(occurrence))
    return jax.vmap(jax.random.uniform)(keys)


class ConformalPredictor(Stored, abc.ABC):
    """Sets of options that contain the right one with probability at least 1 - alpha.

    The guarantee is marginal (on average over questions) and needs rows that are exchangeable
    with the fitted ones, nothing else. The threshold is the ceil((n + 1)(1 - alpha))-th smallest
    score of the n fitted answers; when that exceeds n, too few rows were given, and every set
    holds all options of its row (a CalibrationWarning says so at the fit). Sets may be empty.
    """

    log_threshold: float | None

    @abc.abstractmethod
    def scores(
        self, log_scores: ArrayLike, mask: ArrayLike | None = None, *, draw: int = 0
    ) -> jax.Array:
        """How badly each option fits its question, -ln(1 - published score), float32 [N, K]."""

    @property
    def threshold(self) -> float | None:
        """On the published score, from 0 to 1; None: all options. ``log_threshold`` is what counts,
        for this is 1.0 on a confident model."""
        return None if self.log_threshold is None else -math.expm1(-self.log_threshold)

    def sets(
        self, log_scores: ArrayLike, mask: ArrayLike | None = None, *, draw: int = 0
    ) -> jax.Array:
        """The prediction sets, bool [N, K]; False where masked. ``draw``: see ``APS``."""
        valid = centred_scores(log_scores, mask)[1]
        if self.log_threshold is None:
            return valid
        return valid & (self.scores(log_scores, mask, draw=draw) <= jnp.float32(self.log_threshold))

    __call__ = sets

    @staticmethod
    def _threshold(scores: np.ndarray, answers: np.ndarray, alpha: float) -> float | None:
        own = np.sort(np.take_along_axis(scores, answers[:, None], axis=1)[:, 0])
        rank = conformal_rank(len(own), alpha)
        if rank > len(own):
            warnings.warn(
                f"{len(own)} rows are too few for alpha = {alpha:g}, which needs "
                f"{math.ceil(round(1 / alpha, 9)) - 1}: every set holds all options",
                CalibrationWarning,
                stacklevel=3,
            )
            return None
        return float(own[rank - 1])


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")


@register("lac", "LAC")
@dataclasses.dataclass(frozen=True)
class LAC(ConformalPredictor):
    """Least ambiguous sets: the options of probability at least 1 - threshold.

        score_k = 1 - p_k,   p = softmax(s) over the row's valid options; kept as -ln p_k

    The smallest sets on average; a hard question may get an empty one. Source: Sadinle, Lei and
    Wasserman 2019; Vovk et al. 2005 for the guarantee.

    Attributes:
        log_threshold: -ln(1 - threshold of the score); None: all options.
        alpha: the rate of misses allowed.
        rows: n, the number of rows fitted to.

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        >>> LAC.fit(scores, [0, 1, 0], alpha=0.5).sets([[0.0, 0.0], [9.0, 0.0]]).tolist()
        [[True, True], [True, False]]
    """

    log_threshold: float | None = parameter(optional(number()))
    alpha: float = parameter(number(0, 1))
    rows: int = parameter(count)

    @classmethod
    def fit(cls, log_scores, answers, mask=None, *, alpha=0.1) -> Self:
        """The threshold of labelled rows that the model and its calibrator have not seen."""
        _check_alpha(alpha)
        inputs = check_inputs(log_scores, answers, mask)
        scores = np.asarray(_lac_scores(inputs.log_scores, inputs.mask))
        return cls(cls._threshold(scores, inputs.answers, alpha), alpha, len(inputs.answers))

    def scores(self, log_scores, mask=None, *, draw=0) -> jax.Array:
        return _lac_scores(log_scores, mask)


@register("aps", "APS")
@dataclasses.dataclass(frozen=True)
class APS(ConformalPredictor):
    """Adaptive prediction sets: the best options until their probabilities sum to the threshold.

        score_k = sum of the p_j ranked before k, and p_k   (randomized: minus u p_k)

    kept as -ln(1 - score), from the sum of what is ranked after k.

    Options of equal probability rank in their order. Not randomized (the default), the sets are a
    function of the row and cover somewhat more where probabilities are lumpy; randomized, each row
    has a uniform u of its own and the coverage is exact. u is made of ``seed``, the row's scores
    and how many copies of the row stand above it in the call: rows may come all at once or one by
    one. So the same question gets the same set in every call. Where many rows hold equal scores
    and come in several calls, give each call a ``draw`` of its own (0, 1, 2, ...): they would
    share their u. The option that crosses the threshold is not added, so a set may be empty.
    Source: Romano, Sesia and Candès 2020.

    Attributes:
        log_threshold: -ln(1 - threshold of the score); None: all options.
        alpha: the rate of misses allowed.
        rows: n, the number of rows fitted to.
        randomized: whether u is drawn.
        seed: of u; the fit's and the sets' differ.

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        >>> APS.fit(scores, [0, 0, 1], alpha=0.5).sets([[0.0, 0.0]]).tolist()
        [[True, False]]
    """

    log_threshold: float | None = parameter(optional(number()))
    alpha: float = parameter(number(0, 1))
    rows: int = parameter(count)
    randomized: bool = parameter(flag, default=False)
    seed: int = parameter(count, default=0)

    @classmethod
    def fit(cls, log_scores, answers, mask=None, *, alpha=0.1, randomized=False, seed=0) -> Self:
        """The threshold of labelled rows that the model and its calibrator have not seen."""
        _check_alpha(alpha)
        inputs = check_inputs(log_scores, answers, mask)
        key = jax.random.fold_in(jax.random.key(seed), 0)
        scores = np.asarray(_aps_scores(inputs.log_scores, inputs.mask, key, randomized))
        threshold = cls._threshold(scores, inputs.answers, alpha)
        return cls(threshold, alpha, len(inputs.answers), randomized, seed)

    def scores(self, log_scores, mask=None, *, draw=0) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 1), draw)
        return _aps_scores(log_scores, mask, key, self.randomized)


@checked
@jax.jit
def set_coverage(
    sets: ArrayLike, answers: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Share of rows whose set holds the answer; float32, NaN for no rows.

    Args:
        sets: [N, K] bool.
        answers: [N] int.
        weights: [N] or None, how often each row counts.

    Example:
        >>> float(set_coverage([[True, False], [True, True]], [1, 1]))
        0.5
    """
    answers = jnp.asarray(answers).astype(jnp.int32)
    inside = jnp.take_along_axis(jnp.asarray(sets), answers[:, None], axis=1)[:, 0]
    return weighted_mean(inside.astype(jnp.float32), as_weights(weights, len(inside)))


@checked
@jax.jit
def mean_set_size(sets: ArrayLike, weights: ArrayLike | None = None) -> jax.Array:
    """Mean number of options in a set; float32, NaN for no rows.

    Example:
        >>> float(mean_set_size([[True, False], [True, True]]))
        1.5
    """
    sizes = jnp.asarray(sets).sum(axis=1).astype(jnp.float32)
    return weighted_mean(sizes, as_weights(weights, len(sizes)))
