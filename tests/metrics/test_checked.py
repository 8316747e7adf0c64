"""Called with arrays, every public metric refuses values that are no probabilities or answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics

PROBS = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.125, 0.75, 0.125]], np.float32)
ANSWERS = np.array([0, 1, 2])
BAD = [
    ("row 0 does not hold probabilities: option 0 is -", np.log(PROBS), ANSWERS),
    ("row 0 sums to 0.5", PROBS / 2, ANSWERS),
    ("row 1 does not hold probabilities: option 0 is nan", PROBS * [[1], [np.nan], [1]], ANSWERS),
    (r"row 2 has answer 3, outside 0..2 \(1 bad row of 3\)", PROBS, np.array([0, 1, 3])),
    ("row 0 has answer -1", PROBS, np.array([-1, 1, 2])),
]
NAMES = [
    "accuracy", "nll", "brier", "row_nll", "mean_confidence", "confidence_gap", "conf_ece",
    "cw_ece", "pooled_ece", "sce_ovr", "mce", "adaptive_ece", "nixon_ace", "tace",
    "debiased_ece", "debiased_rmsce", "smooth_ece", "smooth_curve", "soft_ece", "auroc", "auprc",
    "aurc", "risk_coverage_curve", "brier_decomposition", "bin_stats", "class_bin_stats",
    "share_above", "top_letter_share", "letter_entropy",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bad_values_are_refused_before_anything_is_computed(name):
    metric = getattr(metrics, name)
    for message, probs, answers in BAD:
        with pytest.raises(ValueError, match=message):
            metric(probs, answers)


def test_masked_options_and_rows_without_weight_may_hold_anything():
    mask = np.array([[True, True, False], [True, True, True], [True, True, True]])
    probs = np.array([[0.5, 0.5, 7.0], [np.nan, 2, 0], [0.25, 0.25, 0.5]], np.float32)
    answers, weights = np.array([0, 99, 2]), np.array([1, 0, 1])
    assert metrics.accuracy(probs, answers, mask, weights=weights) == 1
    with pytest.raises(ValueError, match="row 1 does not hold"):
        metrics.accuracy(probs, answers, mask)
    with pytest.raises(ValueError, match="row 0 has answer 2, which is a masked option"):
        metrics.accuracy(probs, np.array([2, 0, 0]), mask, weights=weights)


def test_transformations_run_the_kernel_and_nan_propagates():
    bad = 2 * PROBS
    bad[1] = np.nan
    assert np.isnan(jax.jit(metrics.nll)(bad, ANSWERS))
    assert np.isnan(jax.vmap(metrics.nll)(bad[None], ANSWERS[None])).all()
    assert np.isnan(metrics.nll.kernel(bad, ANSWERS))
    assert jax.grad(metrics.brier)(jnp.asarray(2 * PROBS), ANSWERS).shape == (3, 3)


def test_known_distributions_low_precision_lists_and_no_rows_pass():
    assert metrics.tce(PROBS, PROBS) == 0
    with pytest.raises(ValueError, match="row 0 of target_probs sums to 0.5"):
        metrics.tce(PROBS, PROBS / 2)
    for dtype in (jnp.bfloat16, jnp.float16):
        rows = jnp.asarray(np.full((3, 3), 1 / 3), dtype)
        assert np.isfinite(metrics.brier(rows, ANSWERS))
    assert metrics.accuracy([[1, 0], [0, 1]], [0, 1]) == 1
    assert np.isnan(metrics.accuracy(np.ones((0, 3)), np.zeros(0, int)))


def test_the_message_is_that_of_validate():
    with pytest.raises(ValueError) as found:
        metrics.conf_ece(2 * PROBS, ANSWERS)
    with pytest.raises(ValueError) as expected:
        metrics.validate(2 * PROBS, ANSWERS)
    assert str(found.value) == str(expected.value)
