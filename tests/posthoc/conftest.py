"""Data for the calibrators' tests; few shapes, so that little is compiled."""

import numpy as np
import pytest

from calib_jax import posthoc

# Functions of the options' scores. What reads hidden states has a test module of its own.
OF_SCORES = {name: cls for name, cls in posthoc.METHODS.items() if cls.reads == "log_scores"}


@pytest.fixture(scope="session")
def set_a():
    """(logits [10000, 4] float64, answers): overconfident by a temperature of about 2."""
    uniform = np.random.Generator(np.random.PCG64(20261120)).random((10_000, 9))
    normal = np.sqrt(-2 * np.log1p(-uniform[:, :4])) * np.cos(2 * np.pi * uniform[:, 4:8])
    true = np.exp(1.5 * normal)
    true = np.cumsum(true / true.sum(axis=1, keepdims=True), axis=1)
    answers = np.minimum((true < uniform[:, 8:]).sum(axis=1), 3)
    return 3.0 * normal, answers


@pytest.fixture(scope="session")
def ragged():
    """(log_scores [400, 5], answers, mask): 2 to 5 options, ties, overconfident, offsets."""
    rng = np.random.default_rng(7)
    scores = np.round(2 * rng.normal(size=(400, 5)), 1).astype(np.float32)
    mask = np.arange(5) < rng.integers(2, 6, size=(400, 1))
    noise = np.where(mask, scores / 2 + rng.gumbel(size=scores.shape), -np.inf)
    scores += rng.normal(size=(400, 1)).astype(np.float32)
    return np.where(mask, scores, -np.inf).astype(np.float32), noise.argmax(axis=1), mask


@pytest.fixture(scope="session")
def options():
    """What a method's fit needs beside the scores: options(name, log_scores)."""

    def options(name, log_scores):
        rng = np.random.default_rng(1)
        num_options = log_scores.shape[1]
        shape = (6, num_options, num_options)
        return {
            "contextual_calibration": {"content_free_log_scores": rng.normal(size=shape[1:])},
            "pride": {"permuted_log_scores": rng.normal(size=shape)},
            "daca": {"reference_log_scores": log_scores / 2},
        }.get(name, {})

    return options


@pytest.fixture(scope="session")
def row_at():
    """row_at(confidences) -> log-scores [n, 4] whose first option has these probabilities."""

    def row_at(confidences):
        confidences = np.asarray(confidences, np.float64)
        probs = np.repeat((1 - confidences)[:, None] / 3, 4, axis=1)
        probs[:, 0] = confidences
        return np.log(probs)

    return row_at
