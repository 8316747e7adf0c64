"""Temperature scaling: exact on the golden set, bounded and said so where there is no optimum."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError


def float64_nll(log_scores, answers, temperature):
    logits = np.asarray(log_scores, np.float64) / temperature
    top = logits.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return float(np.mean(total - np.take_along_axis(logits, answers[:, None], axis=1)[:, 0]))


def test_golden_temperature(set_a):
    # scipy's bounded minimiser in float64; scikit-learn 1.9.1 _TemperatureScaling 1.9638203688,
    # netcal 1.4.0 1.9638152.
    log_scores, answers = set_a
    temperature = posthoc.fit_temperature(log_scores, answers)
    assert isinstance(temperature, float)
    assert temperature == pytest.approx(1.963820394, abs=5e-7)
    assert float64_nll(log_scores, answers, temperature) == pytest.approx(0.9171552033, abs=1e-10)
    fit = posthoc.temperature_kernel(log_scores, answers)
    assert float(fit.nll) == pytest.approx(0.9171552033, abs=2e-7)


def test_golden_errors_after_scaling(set_a):
    log_scores, answers = set_a
    probs = posthoc.Temperature.fit(log_scores, answers)(log_scores)
    conf_ece = metrics.conf_ece(probs, answers, num_bins=15, edges="left")
    cw_ece = metrics.cw_ece(probs, answers, num_bins=15, edges="left")
    assert float(conf_ece) == pytest.approx(0.009109339649, abs=1e-6)
    assert float(cw_ece) == pytest.approx(0.012198863692, abs=1e-6)


@pytest.mark.parametrize("scale", [0.02, 1.0, 300.0])
def test_temperature_follows_the_scale(set_a, scale):
    log_scores, answers = set_a
    temperature = posthoc.fit_temperature(log_scores * scale, answers)
    assert temperature == pytest.approx(1.963820394 * scale, rel=1e-6)


def test_ragged_options_against_scipy(ragged):
    log_scores, answers, mask = ragged
    found = minimize_scalar(
        lambda t: float64_nll(log_scores, answers, t),
        bounds=(0.1, 10),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert posthoc.fit_temperature(log_scores, answers, mask) == pytest.approx(found.x, rel=2e-6)
    # What stands under a mask does not matter, nor does an offset per row.
    filled = np.where(mask, log_scores, 1e4) + np.arange(400)[:, None].astype(np.float32) % 7
    again = posthoc.fit_temperature(filled, answers, mask)
    assert again == pytest.approx(found.x, rel=1e-5)


def test_weights_count_rows(ragged):
    log_scores, answers, mask = ragged
    weights = np.arange(400) % 3
    rows = np.repeat(np.arange(400), weights)
    weighted = posthoc.fit_temperature(log_scores, answers, mask, weights=weights)
    repeated = posthoc.fit_temperature(log_scores[rows], answers[rows], mask[rows])
    assert weighted == pytest.approx(repeated, rel=1e-6)


@pytest.mark.parametrize(
    ("log_scores", "answers", "status", "temperature"),
    [
        ([[3.0, 0.0], [0.0, 2.0]], [0, 1], "at_lower_bound", 0.01),
        ([[3.0, 0.0], [0.0, 2.0]], [1, 0], "at_upper_bound", 1000.0),
        ([[0.5, 0.5], [1.0, 1.0]], [0, 1], "flat", 1.0),
        ([[0.5, -np.inf], [-np.inf, 1.0]], [0, 1], "flat", 1.0),
    ],
)
def test_degenerate_data_end_at_stated_bounds(log_scores, answers, status, temperature):
    with pytest.warns(posthoc.CalibrationWarning):
        fitted = posthoc.Temperature.fit(log_scores, answers)
    assert fitted.status == status
    assert fitted.temperature == pytest.approx(temperature, rel=1e-6)
    assert np.isfinite(fitted(log_scores)).all()


def test_kernel_reports_empty_and_nan():
    fit = posthoc.temperature_kernel([[1.0, 0.0], [1.0, 0.0]], [0, 1], weights=[0, 0])
    assert posthoc.STATUSES[int(fit.status)] == "no_rows" and np.isnan(fit.temperature)
    fit = posthoc.temperature_kernel([[1.0, np.nan], [1.0, 0.0]], [0, 1])
    assert posthoc.STATUSES[int(fit.status)] == "not_finite" and np.isnan(fit.temperature)


def test_kernel_under_vmap_equals_one_at_a_time(ragged):
    log_scores, answers, mask = (array.reshape(4, 100, *array.shape[1:]) for array in ragged)
    weights = (np.random.default_rng(0).random((4, 100)) < 0.8).astype(np.float32)
    together = jax.vmap(posthoc.temperature_kernel)(log_scores, answers, mask, weights)
    for i in range(4):
        alone = posthoc.temperature_kernel(log_scores[i], answers[i], mask[i], weights[i])
        assert float(together.temperature[i]) == pytest.approx(float(alone.temperature), rel=1e-6)


def test_groups_are_fitted_apart(ragged):
    log_scores, answers, mask = ragged
    groups = np.where(np.arange(400) % 4 == 0, "small", "large")
    found = posthoc.fit_temperature_by_group(log_scores, answers, groups, mask)
    assert list(found) == ["large", "small"]
    for name, fitted in found.items():
        own = groups == name
        alone = posthoc.fit_temperature(log_scores[own], answers[own], mask[own])
        assert fitted.temperature == pytest.approx(alone, rel=1e-6)


def test_application_is_differentiable(ragged):
    log_scores, answers, mask = ragged

    def nll(temperature):
        probs = posthoc.apply_temperature(log_scores, temperature, mask)
        return metrics.nll(probs, answers, mask)

    temperature = posthoc.fit_temperature(log_scores, answers, mask)
    assert abs(float(jax.grad(nll)(temperature))) < 1e-5
    assert float(jax.grad(nll)(2 * temperature)) > 1e-3


def test_fixed_temperature_is_the_published_baseline(set_a):
    log_scores, answers = set_a
    fixed = posthoc.FixedTemperature.fit(log_scores, answers)
    assert fixed.temperature == 1.5
    expected = np.exp(log_scores / 1.5)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fixed(log_scores), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf, "2", None, True])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(UserError, match='"temperature"'):
        posthoc.FixedTemperature(temperature)


def test_kernel_on_sharded_rows(ragged):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    fit = posthoc.temperature_kernel(*(jax.device_put(array, rows) for array in ragged))
    expected = posthoc.fit_temperature(*ragged)
    assert float(fit.temperature) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_read_as_float32(ragged, dtype):
    log_scores, answers, mask = ragged
    given = np.asarray(log_scores).astype(jax.numpy.dtype(dtype))
    expected = posthoc.fit_temperature(np.asarray(given).astype(np.float32), answers, mask)
    assert posthoc.fit_temperature(given, answers, mask) == expected
