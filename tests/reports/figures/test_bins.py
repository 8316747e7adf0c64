import dataclasses

import numpy as np
import pytest
from scipy import stats

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures import bins


def test_wilson_is_the_published_example():
    # Newcombe (1998), Table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29, intervals without
    # continuity correction.
    low, high = metrics.wilson_interval(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    assert low == pytest.approx([0.2553, 0.0624, 0, 0.0061], abs=5e-5)
    assert high == pytest.approx([0.3662, 0.1605, 0.1611, 0.1718], abs=5e-5)


def test_intervals_hold_the_accuracy_and_shrink_with_the_questions(make_scores):
    found = bins.bins_of(make_scores(200, bias=1.0))
    low, high = found.interval
    empty = found.counts == 0
    assert np.isnan(low[empty]).all() and np.isnan(high[empty]).all() and empty.any()
    inside = ~empty
    assert (0 <= low[inside]).all() and (high[inside] <= 1).all()
    assert (low[inside] <= found.accuracy[inside] + 1e-7).all()
    assert (found.accuracy[inside] <= high[inside] + 1e-7).all()
    one, many = (metrics.wilson_interval(np.array(5 * k), np.array(10 * k)) for k in (1, 100))
    assert many[1] - many[0] < (one[1] - one[0]) / 8


@pytest.mark.parametrize("edges", ["left", "right"])
def test_class_bins_give_cw_ece_and_pool_to_every_option(make_scores, edges):
    scores = make_scores(90, bias=1.0, ragged=True)
    *classes, pooled = bins.class_bins_of(scores, 10, edges)
    assert len(classes) == 4
    gaps = sum(np.nansum(b.counts * abs(b.accuracy - b.confidence)) for b in classes)
    expected = float(metrics.cw_ece(scores.probs, scores.answers, scores.mask, 10, edges))
    # The mean over all options that the questions have.
    assert gaps / scores.mask.sum() == pytest.approx(expected, rel=1e-5)
    assert pooled.counts.sum() == scores.mask.sum()
    assert np.nansum(pooled.counts * pooled.accuracy) == pytest.approx(len(scores))
    assert np.nansum(pooled.counts * pooled.confidence) == pytest.approx(len(scores), rel=1e-5)


def test_a_calibrated_model_ends_between_the_binomial_quantiles():
    counts = np.array([1, 7, 40, 900, 1_000_000, 5, 5, 0])
    shares = np.array([0.3, 0.55, 0.5, 0.97, 0.8, 1.0, 0.0, np.nan])
    found = bins.Bins(metrics.bin_edges(8), counts, shares, shares).consistency
    for q, end in zip((0.025, 0.975), found, strict=True):
        expected = stats.binom.ppf(q, counts[:-1], shares[:-1]) / counts[:-1]
        # scipy has the quantiles of 0 draws at -1 where p is 0.
        assert end[:-1] == pytest.approx(np.maximum(expected, 0), abs=1e-12)
        assert np.isnan(end[-1])
    rng = np.random.default_rng(0)
    drawn = rng.binomial(40, 0.5, 20_000) / 40
    inside = (found[0][2] <= drawn) & (drawn <= found[1][2])
    assert 0.95 <= inside.mean() <= 0.985


def clustered(rng, count=20, size=10, rho=0.5, lower=0.0):
    """Rows whose confidence is .65, .75 or .85, right as often less ``lower``, in clusters."""
    n = count * size
    code = np.repeat(np.arange(count), size)
    confidence = rng.choice([0.65, 0.75, 0.85], n)
    latent = np.sqrt(rho) * rng.normal(size=count)[code] + np.sqrt(1 - rho) * rng.normal(size=n)
    wrong = stats.norm.cdf(latent) > confidence - lower
    probs = np.column_stack([confidence, 1 - confidence]).astype(np.float32)
    names = tuple(f"q{i}" for i in range(n))
    of = (None,) * n
    return Scores(
        np.log(probs),
        probs,
        np.ones((n, 2), bool),
        wrong.astype(np.int32),
        names,
        of,
        of,
        clusters=tuple(f"c{g}" for g in code),
    )


def test_intervals_of_bins_cover_where_rows_come_in_clusters():
    """20 clusters of 10, correlation .5: the accuracy's interval, and the calibrated model's."""
    rng = np.random.default_rng(0)
    held, alone = np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(150):
        for i, lower in enumerate((0.0, 0.2)):
            scores = clustered(rng, lower=lower)
            one = bins.bins_of(scores)
            rows = bins.bins_of(dataclasses.replace(scores, clusters=()))
            filled = np.flatnonzero(one.counts)
            true = one.confidence[filled] - lower
            for found, counts in ((one, held), (rows, alone)):
                low, high = (end[filled] for end in found.interval)
                counts[0, i] += np.mean((low <= true) & (true <= high)) / 150
                low, high = (end[filled] for end in found.consistency)
                inside = (low <= found.accuracy[filled]) & (found.accuracy[filled] <= high)
                counts[1, i] += np.mean(inside) / 150
    assert (held[0] >= 0.93).all() and held[1, 0] >= 0.93  # of 600 draws: .96, .95, .96
    assert (alone[0] <= 0.88).all() and alone[1, 0] <= 0.9  # .86, .83, .86


def test_a_bin_of_one_cluster_tells_nothing(make_scores):
    scores = make_scores(30, bias=1.0)
    one = dataclasses.replace(scores, clusters=("a",) * 29 + ("b",))
    found = [bins.bins_of(one), *bins.class_bins_of(one)]
    for each in found:
        lonely = (each.counts > 1) & (each.effective == 0)
        assert lonely.any()
        for low, high in (each.interval, each.consistency):
            assert (low[lonely] == 0).all() and (high[lonely] == 1).all()
            assert np.isnan(low[each.counts == 0]).all()
