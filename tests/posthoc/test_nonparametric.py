"""Histogram binning and isotonic regression against netcal, uncertainty-calibration, sklearn."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression as Reference

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError
from calib_jax.posthoc.top_label import top_label_data

GRID = [0.26, 0.31, 0.41, 0.51, 0.62, 0.71, 0.85, 0.91, 0.9999]


def test_equal_width_on_the_golden_set(set_a, row_at):
    # netcal 1.4.0 HistogramBinning(bins=10).
    netcal = [0.0, 0.38974359, 0.36350778, 0.45919146, 0.49774775, 0.5571205, 0.62270846,
              0.81745121, 0.81745121]  # fmt: skip  # numbers, several on a line
    fitted = posthoc.HistogramBinning.fit(*set_a, edges="left", pseudo_count=0)
    np.testing.assert_allclose(fitted(row_at(GRID))[:, 0], np.maximum(netcal, 1 / 4), atol=2e-7)


def test_equal_mass_on_the_golden_set(set_a):
    # uncertainty-calibration 0.1.4: get_equal_bins, and HistogramCalibrator's values.
    edges = [0.50783148, 0.58360684, 0.66099495, 0.73709315, 0.8126497, 0.8734549, 0.92427173,
             0.9616937, 0.98724350, 1.0]  # fmt: skip  # numbers, several on a line
    fitted = posthoc.HistogramBinning.fit(*set_a, equal_mass=True, pseudo_count=0)
    np.testing.assert_allclose(fitted.edges[1:], edges, atol=1e-7)
    values = [0.366, 0.465, 0.486, 0.532, 0.544, 0.643, 0.673]
    np.testing.assert_allclose(fitted.values[:7], values, atol=1e-7)


def test_equal_mass_does_not_split_ties():
    log_scores = np.log([[0.6, 0.4]] * 50 + [[0.8, 0.2]] * 2)
    answers = [0] * 30 + [1] * 20 + [0, 0]
    fitted = posthoc.HistogramBinning.fit(log_scores, answers, equal_mass=True, pseudo_count=0)
    assert len(fitted.values) == 2
    np.testing.assert_allclose(fitted.values, [0.6, 1.0], atol=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_ties_are_fitted_as_they_are_applied(seed):
    # Three distinct confidences: every row gets the share of its own group of rows.
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(3, 4)).astype(np.float32)
    kind = rng.integers(0, 3, 60)
    log_scores, answers = kinds[kind], rng.integers(0, 4, 60)
    fitted = posthoc.HistogramBinning.fit(
        log_scores, answers, num_bins=3, equal_mass=True, pseudo_count=0
    )
    confidence = np.array([1 / np.exp(row - row.max()).sum() for row in kinds.astype(np.float64)])
    edges = np.array(fitted.edges)
    for bin_ in range(len(fitted.values)):
        own = np.isin(kind, np.flatnonzero(np.digitize(confidence, edges) == bin_ + 1))
        share = (log_scores.argmax(axis=1) == answers)[own].mean()
        found = np.asarray(fitted(log_scores))[own].max(axis=1)
        np.testing.assert_allclose(found, max(share, 1 / 4), atol=1e-6)
    # Few rows, or offsets: what rounding does to a confidence does not carry it over an edge.
    few = np.asarray(fitted(log_scores[:5] + np.float32(0.3)))
    np.testing.assert_allclose(few, np.asarray(fitted(log_scores))[:5], atol=1e-5)


def test_isotonic_reads_offsets_as_ties():
    # 32 distinct rows, each under many offsets; sklearn is told the confidences before rounding.
    rng = np.random.default_rng(3)
    kinds, kind = rng.normal(size=(32, 4)) * 2, rng.integers(0, 32, 2000)
    log_scores = (kinds[kind] + rng.normal(size=(2000, 1))).astype(np.float32)
    confidence = (1 / np.exp(kinds - kinds.max(axis=1, keepdims=True)).sum(axis=1))[kind]
    answers = np.where(rng.random(2000) < confidence**2, kinds[kind].argmax(axis=1), 0)
    answers = np.where(rng.random(2000) < 0.2, rng.integers(0, 4, 2000), answers)
    fitted = posthoc.IsotonicRegression.fit(log_scores, answers, pseudo_count=0)
    right = kinds[kind].argmax(axis=1) == answers
    expected = Reference().fit(confidence, right).predict(confidence)
    found = np.asarray(fitted(log_scores)).max(axis=1)
    np.testing.assert_allclose(found, np.maximum(expected, 1 / 4), atol=1e-6)
    few = np.asarray(fitted(log_scores[:7])).max(axis=1)
    np.testing.assert_allclose(few, found[:7], atol=1e-6)


@pytest.mark.parametrize("cls", [posthoc.HistogramBinning, posthoc.IsotonicRegression])
def test_the_prior_count_keeps_the_nll_finite(cls):
    # Right in every fitted row, or in none: a row to the contrary is not impossible.
    log_scores = np.log([[0.7, 0.2, 0.1], [0.9, 0.05, 0.05]] * 20)
    for answer, other in ((0, 1), (1, 0)):
        logs = np.asarray(cls.fit(log_scores, [answer] * 40).log_probs(log_scores))
        assert np.isfinite(logs).all() and (logs[:, other] > -9).all()
    certain = cls.fit(log_scores, [0] * 40, pseudo_count=0)
    assert np.asarray(certain.log_probs(log_scores)).min() == -np.inf


@pytest.mark.parametrize("edges", ["right", "left"])
def test_conf_ece_on_its_own_rows_is_zero(ragged, edges):
    # Confidence = share right, per bin; rows whose best option changed are left out.
    log_scores, answers, mask = ragged
    fitted = posthoc.HistogramBinning.fit(
        log_scores, answers, mask, num_bins=5, edges=edges, pseudo_count=0
    )
    data = top_label_data(log_scores, answers, mask, None)
    bins = np.asarray(metrics.bin_index(data.confidence, 5, edges))
    for m, value in enumerate(fitted.values):
        own = data.correct[bins == m]
        assert (value is None) == (len(own) == 0)
        if len(own):
            assert value == pytest.approx(own.mean(), abs=1e-7)


def test_an_empty_bin_leaves_the_confidence(row_at):
    fitted = posthoc.HistogramBinning.fit(row_at([0.95, 0.95]), [0, 1], pseudo_count=0)
    assert fitted.values == (None,) * 9 + (0.5,)
    np.testing.assert_allclose(fitted(row_at([0.45, 0.99]))[:, 0], [0.45, 0.5], atol=1e-6)


def test_pseudo_counts_avoid_certainty(row_at):
    scores = row_at([0.35, 0.95])
    plain = posthoc.HistogramBinning.fit(scores, [1, 0], pseudo_count=0)
    assert (plain.values[3], plain.values[9]) == (0.0, 1.0)
    smooth = posthoc.HistogramBinning.fit(scores, [1, 0], pseudo_count=2.0)
    np.testing.assert_allclose([smooth.values[3], smooth.values[9]], [1 / 3, 2 / 3], rtol=1e-6)
    smooth = posthoc.IsotonicRegression.fit(scores, [1, 0], pseudo_count=2.0)
    np.testing.assert_allclose(smooth.values, [0.5, 0.5], rtol=1e-6)
    smooth = posthoc.IsotonicRegression.fit(scores, [1, 0], pseudo_count=0.5)
    np.testing.assert_allclose(smooth.values, [0.2, 0.8], rtol=1e-6)


def test_isotonic_equals_sklearn(ragged, row_at):
    log_scores, answers, mask = ragged
    weights = (np.arange(400) % 3).astype(np.float32)
    fitted = posthoc.IsotonicRegression.fit(
        log_scores, answers, mask, weights=weights, pseudo_count=0
    )
    data = top_label_data(log_scores, answers, mask, weights)
    reference = Reference(out_of_bounds="clip")
    reference.fit(data.confidence.astype(np.float32), data.correct, data.weights)
    grid = np.linspace(0.26, 0.999, 200)
    expected = np.maximum(reference.predict(grid.astype(np.float32)), 1 / 4)
    np.testing.assert_allclose(fitted(row_at(grid))[:, 0], expected, atol=1e-5)


def test_isotonic_on_the_golden_set(set_a, row_at):
    # netcal 1.4.0 IsotonicRegression and scikit-learn 1.9.1 agree.
    netcal = [0.0, 0.18181818, 0.34932821, 0.44525547, 0.50074516, 0.54464286, 0.64186427,
              0.70938215, 1.0]  # fmt: skip  # numbers, several on a line
    fitted = posthoc.IsotonicRegression.fit(*set_a, pseudo_count=0)
    expected = np.maximum(netcal, 1 / 4)
    np.testing.assert_allclose(fitted(row_at(GRID))[:, 0], expected, atol=2e-6)
    assert len(fitted.values) < 100


@pytest.mark.parametrize("options", [{"num_bins": 0}, {"edges": "middle"}, {"pseudo_count": -1.0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        posthoc.HistogramBinning.fit([[0.0, 1.0]], [0], **options)


def test_maps_must_be_maps():
    with pytest.raises(UserError, match="increase from 0 to 1"):
        posthoc.HistogramBinning([0.0, 0.5, 0.5, 1.0], [0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="one more than"):
        posthoc.HistogramBinning([0.0, 0.5, 1.0], [0.1])
    with pytest.raises(UserError, match="must not decrease"):
        posthoc.IsotonicRegression([0.2, 0.8], [0.9, 0.1])
