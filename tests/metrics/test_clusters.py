"""Strata and clusters: what a resample keeps, what is refused, and how few clusters count."""

import jax
import numpy as np
import pytest
from scipy import stats

from calib_jax import metrics
from calib_jax.metrics import clusters, draws


def weights_of(num_rows, num_resamples=40, **units):
    """[R, N]: how often each resample draws each row."""
    plan = clusters.units_of(num_rows, units.get("strata"), units.get("clusters")).plan
    keys = jax.random.split(jax.random.key(3), num_resamples)
    return np.asarray(jax.jit(jax.vmap(lambda key: draws.row_counts(key, plan)))(keys))


def test_rows_of_a_cluster_are_drawn_together_and_clusters_with_replacement():
    names = np.array(["b", "a", "c", "a", "b", "b", "d", "c"])
    found = weights_of(8, 4000, clusters=names)
    for name in set(names):
        assert (found[:, names == name] == found[:, names == name][:, :1]).all()
    first = np.unique(names, return_index=True)[1]
    of_cluster = found[:, first]
    assert (of_cluster.sum(axis=1) == 4).all()
    # Each is Binomial(4, 1/4): 4,000 draws, so a standard error of 0.014 at most.
    np.testing.assert_allclose(of_cluster.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(of_cluster.var(axis=0), 4 * 0.25 * 0.75, atol=0.08)


def test_clusters_stay_within_their_stratum():
    strata = np.repeat(["x", "y"], [6, 4])
    names = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    found = weights_of(10, strata=strata, clusters=names)
    assert (found[:, :6].sum(axis=1) == 6).all() and (found[:, 6:].sum(axis=1) == 4).all()
    assert (found[:, ::2] == found[:, 1::2]).all() and found.max() > 1


def test_clusters_of_one_row_are_the_bootstrap_over_rows(draw):
    probs, answers = draw(50, 3)
    rows = metrics.bootstrap(metrics.nll, probs, answers, num_resamples=50)
    alone = np.random.default_rng(0).permutation(50)
    assert rows == metrics.bootstrap(metrics.nll, probs, answers, num_resamples=50, clusters=alone)


def test_a_cluster_in_two_strata_is_refused_and_both_are_named():
    arrays = np.full((4, 2), 0.5), [0, 1, 0, 1]
    with pytest.raises(ValueError, match="cluster 'p' lies in the strata 'art' and 'law'"):
        metrics.bootstrap(
            metrics.nll, *arrays, strata=["art", "art", "law", "law"], clusters=list("opqp")
        )
    with pytest.raises(ValueError, match="clusters must have shape"):
        metrics.bootstrap(metrics.nll, *arrays, clusters=[1])
    with pytest.raises(TypeError, match="groups"):
        metrics.bootstrap(metrics.nll, *arrays, groups=[1, 1, 2, 2])


def test_strata_of_one_row_or_one_cluster_warn():
    with pytest.warns(clusters.SmallStratum, match=r"2 of 3 strata hold one row \('b', 'c'\)"):
        clusters.units_of(4, ["a", "a", "b", "c"])
    with pytest.warns(clusters.SmallStratum, match="1 of 2 strata hold one cluster"):
        clusters.units_of(5, ["a", "a", "a", "b", "b"], [1, 1, 2, 3, 3])


@pytest.mark.parametrize(("count", "strata"), [(5, 1), (20, 1), (20, 4), (1000, 1)])
def test_expanded_level_covers_a_normal_mean(count, strata):
    """A normal interval of sd sqrt((G - S)/G) s at that level is Student's of sd s."""
    level = metrics.expanded_level(0.9, count, strata)
    z = stats.norm.ppf((1 + level) / 2) * np.sqrt((count - strata) / count)
    assert z == pytest.approx(stats.t.ppf(0.95, count - strata), rel=1e-6)


def test_of_one_cluster_nothing_is_known():
    assert metrics.expanded_level(0.95, 1) == 1.0
