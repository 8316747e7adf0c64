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
    "debiased_ece", "debiased_rmsce", "smooth_ece", "soft_ece", "auroc", "auprc", "aurc",
    "reliability_curve", "risk_coverage_curve", "brier_decomposition", "bin_stats",
    "class_bin_stats", "share_above", "top_letter_share", "letter_entropy",
]  # fmt: skip  # names, several on a line


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


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_answers_beyond_32_bits_are_outside(dtype):
    for far in (2**32, 2**31, 2**63 - 1):
        answers = np.array([0, 1, far], dtype)
        with pytest.raises(ValueError, match=rf"row 2 has answer {far}, outside 0..2"):
            metrics.accuracy(PROBS, answers)
        # A row that does not count may say anything.
        assert metrics.accuracy(PROBS, answers, weights=np.array([1, 1, 0])) == 1
        assert metrics.answer_counts(answers, num_options=3).tolist() == [1, 1, 0]


def test_whatever_numpy_reads_is_an_array():
    pandas = pytest.importorskip("pandas")
    right = metrics.conf_ece(PROBS, ANSWERS, weights=np.array([1, 2, 1]))
    for kind in ("int64", "Int64"):
        answers, weights = pandas.Series(ANSWERS, dtype=kind), pandas.Series([1, 2, 1], dtype=kind)
        assert metrics.conf_ece(pandas.DataFrame(PROBS), answers, weights=weights) == right
    table = pandas.DataFrame(PROBS)
    assert metrics.bootstrap(metrics.accuracy, table, answers, num_resamples=10)[0] <= 2 / 3
    answers[0] = pandas.NA
    for bad in (answers, ["a", "b", "c"]):
        with pytest.raises(ValueError, match="answers must (hold numbers|be integers)"):
            metrics.accuracy(PROBS, bad)
    with pytest.raises(ValueError, match="probs is a masked array: .*mask=..."):
        metrics.accuracy(np.ma.masked_array(PROBS, PROBS > 0.6), ANSWERS)


def test_a_column_of_answers_is_named():
    with pytest.raises(
        ValueError, match=r"shape \(3,\), got \(3, 1\): pass the column, answers\[:, 0\]"
    ):
        metrics.accuracy(PROBS, ANSWERS[:, None])


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1.0], r"row 1 has the weight -1 \(1 bad row of 3\)"),
        ([2, -1, -3], r"row 1 has the weight -1 \(2 bad rows of 3\)"),
        ([1.0, 1.0, np.nan], "row 2 has the weight nan"),
        ([1.0, np.inf, 1.0], "row 1 has the weight inf"),
        ([0.0, 0.0, 0.0], "all weights are 0"),
        ([False, False, False], "all weights are 0"),
    ],
)
def test_weights_that_are_none_are_refused(array, weights, message):
    weights = array(np.array(weights))
    for name in ("accuracy", "nll", "cw_ece", "auroc", "smooth_ece", "mean_confidence"):
        with pytest.raises(ValueError, match=message):
            getattr(metrics, name)(PROBS, ANSWERS, weights=weights)
    for function, arrays in (
        (metrics.mean_confidence, (PROBS,)),
        (metrics.tce, (PROBS, PROBS)),
        (metrics.letter_counts, (PROBS,)),
        (metrics.preference_accuracy, (PROBS[0], PROBS[1])),
        (metrics.preference_collapse, (PROBS[0], PROBS[1])),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arrays, weights=weights)


def test_a_rounding_error_below_zero_is_zero():
    rest = 1 - 0.8 - 0.1 - 0.1  # -5.6e-17
    assert rest < 0
    probs, exact = np.array([[0.8, 0.1, 0.1, rest]]), np.array([[0.8, 0.1, 0.1, 0.0]])
    for name in ("accuracy", "nll", "brier", "conf_ece", "cw_ece"):
        metric = getattr(metrics, name)
        assert metric(probs, [1]) == metric(exact, [1]), name
    single = np.array([[np.float32(rest)] * 2 + [1]], np.float32)
    assert metrics.nll(single, [0]) == np.inf == metrics.nll(np.maximum(single, 0), [0])
    with pytest.raises(ValueError, match="option 3 is -1e-05"):
        metrics.accuracy(np.array([[0.8, 0.1, 0.1, -1e-5]]), [0])
