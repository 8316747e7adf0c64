"""A world whose target generative model is known, and networks that are fine-tuned in it.

Answers are drawn from a known p*(y | x), so that accuracy and calibration errors are expectations
over answers and no estimates. A small network stands in for the language model: it takes SFT1 and
the paper's E-step and squared L_ECE as they are, and there is no prompt that SFT2 could learn.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from calib_jax import metrics
from calib_jax.training import losses
from calib_jax.training.targets import e_step

OPTIONS, FEATURES, _WORLD_UNITS, _UNITS = 4, 8, 16, 64
# Epochs beyond the tenth that are measured: an even step of 1.3, for the paths to be smooth.
_STEP, _FIRST = 1.3, 10


class World(NamedTuple):
    """The target generative model: p*(y | x) = softmax(sharpness · tanh(x A) B).

    Attributes:
      first: A, [8, 16] float32.
      second: B, [16, 4] float32.
      sharpness: what the logits are multiplied by; 0 makes every answer a guess.
    """

    first: np.ndarray
    second: np.ndarray
    sharpness: float

    def target(self, features: np.ndarray) -> np.ndarray:
        """p*(y | x), [N, 4] float32, of features [N, 8]."""
        logits = self.sharpness * np.tanh(features @ self.first) @ self.second
        odds = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


class Drawn(NamedTuple):
    """Questions of the world.

    Attributes:
      features: [N, 8] float32, x.
      target: [N, 4] float32, p*(y | x).
      answers: [N] int32, drawn from the target.
    """

    features: np.ndarray
    target: np.ndarray
    answers: np.ndarray


def world(seed: int, sharpness: float) -> World:
    """The world of a seed."""
    rng = np.random.default_rng([seed, 0])
    first = rng.standard_normal((FEATURES, _WORLD_UNITS)) / np.sqrt(FEATURES)
    second = rng.standard_normal((_WORLD_UNITS, OPTIONS)) / np.sqrt(_WORLD_UNITS)
    return World(first.astype(np.float32), second.astype(np.float32), sharpness)


def draw(there: World, count: int, seed: Sequence[int]) -> Drawn:
    """``count`` questions with standard normal features, each with one answer."""
    rng = np.random.default_rng(list(seed))
    features = rng.standard_normal((count, FEATURES)).astype(np.float32)
    target = there.target(features)
    below = np.cumsum(target, axis=1, dtype=np.float64) < rng.random((count, 1))
    answers = np.minimum(below.sum(axis=1), OPTIONS - 1).astype(np.int32)
    return Drawn(features, target, answers)


def measured_epochs(epochs: int) -> list[int]:
    """Epochs after which a path has a point: 0 to 10, then ever fewer, and the last.

    >>> measured_epochs(20)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 17, 20]
    """
    found = list(range(min(_FIRST, epochs) + 1))
    while (after := round(found[-1] * _STEP)) < epochs and found[-1] >= _FIRST:
        found.append(after)
    return found if found[-1] == epochs else [*found, epochs]


def fine_tuned(
    questions: Drawn,
    asked: Mapping[str, np.ndarray],
    *,
    epochs: int,
    learning_rate: float,
    ece_weight: float,
    seed: int,
    batch_size: int,
    num_bins: int,
    held_out: int = 0,
) -> dict[int, dict[str, np.ndarray]]:
    """Fine-tunes a network by (1/n) Σ [L_SFT1 + λ L_ECE], an E-step before every epoch.

    Args:
      questions: N of them, that are learnt; batches are of equal size, and an epoch leaves N modulo
        the batch size out, other questions each time.
      asked: name -> features [N', 8] that the network answers.
      epochs: passes over the questions.
      learning_rate: Adam's, constant.
      ece_weight: λ; 0 is SFT1 alone.
      seed: of the first parameters and of the batches.
      batch_size: at most N.
      num_bins: M of the E-step.
      held_out: the first so many questions are not learnt, and the E-step takes the bins'
        accuracies from them alone; 0 takes them from the questions that are learnt.

    Returns:
      epoch of ``measured_epochs`` -> name -> option probabilities [N', 4] float32.

    Source: Xiao et al. 2025, Algorithm 1.
    """
    key = jax.random.key(seed)
    params = _first_params(jax.random.fold_in(key, 0))
    state = optax.scale_by_adam().init(params)
    measured, found = set(measured_epochs(epochs)), {}
    for epoch in range(epochs + 1):
        if epoch in measured:
            found[epoch] = {name: np.asarray(_probs(params, x)) for name, x in asked.items()}
        if epoch < epochs:
            params, state = _epoch(
                params,
                state,
                jax.random.fold_in(key, epoch + 1),
                questions.features,
                questions.answers,
                learning_rate,
                ece_weight,
                batch_size=batch_size,
                num_bins=num_bins,
                held_out=held_out,
            )
    return found


def _first_params(key: jax.Array) -> dict[str, jax.Array]:
    hidden, last = jax.random.split(key)
    return {
        "hidden": jax.random.normal(hidden, (FEATURES, _UNITS)) * np.sqrt(2 / FEATURES),
        "hidden_bias": jnp.zeros(_UNITS),
        "last": jax.random.normal(last, (_UNITS, OPTIONS)) * np.sqrt(1 / _UNITS),
        "last_bias": jnp.zeros(OPTIONS),
    }


def _logits(params: Any, features: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(features @ params["hidden"] + params["hidden_bias"])
    return hidden @ params["last"] + params["last_bias"]


@jax.jit
def _probs(params: Any, features: jax.Array) -> jax.Array:
    return jax.nn.softmax(_logits(params, features))


@functools.partial(jax.jit, static_argnames=("batch_size", "num_bins", "held_out"))
def _epoch(
    params, state, key, features, answers, learning_rate, weight, *, batch_size, num_bins, held_out
):
    """One E-step, then a pass over the questions."""
    count = len(answers)
    apart = jnp.arange(count) < held_out if held_out else None
    mask = jnp.ones((count, OPTIONS), bool)
    probs = jax.nn.softmax(_logits(params, features))
    targets = e_step(probs, answers, mask, apart, num_bins=num_bins).targets

    def loss(params, rows):
        scores = jax.nn.log_softmax(_logits(params, features[rows]))
        sft = losses.sft1(scores, answers[rows])
        return jnp.mean(sft + weight * losses.calibration(scores, targets[rows], mask[rows]))

    def step(carry, rows):
        params, state = carry
        updates, state = optax.scale_by_adam().update(jax.grad(loss)(params, rows), state)
        moved = jax.tree.map(lambda update: -learning_rate * update, updates)
        return (optax.apply_updates(params, moved), state), None

    batches = (count - held_out) // batch_size
    order = held_out + jax.random.permutation(key, count - held_out)[: batches * batch_size]
    return jax.lax.scan(step, (params, state), order.reshape(batches, batch_size))[0]


def exact(probs: np.ndarray, target: np.ndarray, num_bins: int) -> dict[str, float]:
    """What answers drawn for ever would show of these probabilities, [N, 4], under a target [N, 4].

    Returns:
      accuracy: E p*(ŷ | x).
      conf_ece: binned, ``metrics.tce``.
      question_error: E |p*(ŷ | x) − c|, question by question.
    """
    chosen = np.take_along_axis(target, probs.argmax(axis=1)[:, None], axis=1)
    return {
        "accuracy": float(chosen.mean(dtype=np.float64)),
        "conf_ece": float(metrics.tce(probs, target, num_bins=num_bins)),
        "question_error": float(metrics.tce(probs, target, num_bins=None)),
    }


def recalibrated(probs: np.ndarray, target: np.ndarray, num_bins: int) -> dict[str, float]:
    """The same once every confidence is replaced by the expected accuracy of its bin.

    Predictions stay, so accuracy does, and no bin has an error left; questions do.

    Returns:
      As ``exact``.
    """
    chosen = np.take_along_axis(target, probs.argmax(axis=1)[:, None], axis=1)[:, 0]
    chosen = chosen.astype(np.float64)
    bins = np.asarray(metrics.bin_index(metrics.confidences(probs), num_bins=num_bins))
    count = np.bincount(bins, minlength=num_bins)
    right = np.bincount(bins, chosen, minlength=num_bins) / np.maximum(count, 1)
    share = count / len(bins)
    # Bins of equal accuracy may join: together they are as right as each of them.
    left = np.bincount(bins, chosen - right[bins], minlength=num_bins) / np.maximum(count, 1)
    return {
        "accuracy": float(chosen.mean()),
        "conf_ece": float(np.sum(share * np.abs(left))),
        "question_error": float(np.abs(chosen - right[bins]).mean()),
    }
