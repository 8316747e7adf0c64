"""The authors' released objective, against a loop in float64 that is written as their code is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.training import terms
from calib_jax.training.released import ReleasedTerm
from calib_jax.training.targets import target_distribution
from tests.training.conftest import tiny_config

TERM = ReleasedTerm(num_bins=10, edges="left")
# A confidence in [.3, .4), .7 at the left edge of its bin, [.5, .6), the bin that was empty, and
# the last, which is left out.
PROBS = np.array(
    [
        [0.2, 0.35, 0.25, 0.2],
        [0.7, 0.1, 0.15, 0.05],
        [0.3, 0.15, 0.55, 0.0],
        [0.42, 0.2, 0.2, 0.18],
        [0.02, 0.03, 0.01, 0.94],
    ]
)
MASK = np.array([[True] * 4, [True] * 4, [True] * 3 + [False], [True] * 4, [True] * 4])
COUNTS = np.array([0, 0, 0, 7, 0, 3, 2, 11, 4, 20])
ACCURACY = np.array([np.nan] * 3 + [2 / 7, np.nan, 1 / 3, 1.0, 5 / 11, 0.75, 0.9])


def cal_by_hand(probs):
    """Σ_m (1 / N_m) Σ_i [(c_1 − q_m)² + Σ_j (c_j − p_j)²], over all bins but the last."""
    edges, total = np.arange(10) / 10, 0.0
    for m in range(len(edges) - 1):
        if not COUNTS[m]:
            continue
        q = ACCURACY[m]
        for c, valid in zip(probs, MASK, strict=True):
            top = c.argmax()
            if not edges[m] <= c[top] < edges[m + 1]:
                continue
            others = [j for j in range(4) if j != top and valid[j]]
            second = max(c[j] for j in others)
            gamma = np.log(len(others)) / (second * max(1 - q, 1e-6))
            squashed = {j: np.tanh(gamma * c[j]) for j in others}
            alpha = (1 - q) / (sum(squashed.values()) + len(others))
            total += (c[top] - q) ** 2 / COUNTS[m]
            total += sum((c[j] - alpha * squashed[j] - alpha) ** 2 for j in others) / COUNTS[m]
    return total


def cal(probs):
    return TERM.per_question(probs, jnp.asarray(MASK), jnp.asarray(ACCURACY), jnp.asarray(COUNTS))


def test_it_is_the_loop_of_the_released_code():
    found = cal(jnp.asarray(PROBS, jnp.float32))
    assert float(found.sum()) == pytest.approx(cal_by_hand(PROBS), rel=1e-5)
    # [a, b): 0.7 belongs to the bin above; an empty bin and the last one weigh nothing.
    assert found[3] == found[4] == 0 and (found[:3] > 0).all()


def test_the_gradient_flows_through_the_targets():
    """Against finite differences of the loop; with constant targets it would be another."""
    gradient = jax.grad(lambda probs: cal(probs).sum())(jnp.asarray(PROBS, jnp.float32))
    for row, option in np.argwhere(MASK):
        step = np.zeros_like(PROBS)
        step[row, option] = 1e-6
        # At the bin's edge the step to the left would leave it.
        low = 0.0 if (row, option) == (1, 0) else -1.0
        slope = (cal_by_hand(PROBS + step) - cal_by_hand(PROBS + low * step)) / ((1 - low) * 1e-6)
        assert float(gradient[row, option]) == pytest.approx(slope, rel=1e-3, abs=1e-5)
    q = jnp.asarray(np.nan_to_num(ACCURACY))[jnp.array([3, 7, 5, 4, 9])]
    fixed = target_distribution(jnp.asarray(PROBS, jnp.float32), q, jnp.asarray(MASK))
    weight = 1 / COUNTS[3]
    assert np.abs(gradient[0] - 2 * weight * (PROBS[0] - fixed[0])).max() > 0.01 * weight


def released(**train):
    config = tiny_config(ece_weight=0.0, objective="released", **train)
    config.em.edges, config.em.refresh = "left", "once"
    return config


def test_a_run_weighs_its_terms_by_alpha_and_keeps_its_first_bins(start):
    run = start(released(alpha=0.9, epochs=2, learning_rate=5e-3, microbatches=4)).run()
    assert len(run.e_steps) == 1
    for _, told in run.terms:
        loss = 0.1 * told["sft"] + 0.9e-3 * told["ece"]
        assert told["loss"] == pytest.approx(loss, rel=1e-5)
    # The first step's CAL, of what the E-step has just scored: a sum over the parts of the batch.
    scores, estep = run.scores[0], run.e_steps[0]
    rows = run.training.batch_rows(0)[0]
    term = ReleasedTerm(10, "left")
    expected = term.per_question(
        jnp.asarray(scores.probs[rows]), scores.mask[rows], estep.bin_accuracy, estep.bin_counts
    )
    assert run.terms[0][1]["ece"] == pytest.approx(float(expected.sum()), rel=1e-4)


def test_it_is_never_a_default():
    assert [term.name for term in terms.active(tiny_config().train)] == ["sft1", "ece"]
    assert tiny_config().train.objective == "paper"
