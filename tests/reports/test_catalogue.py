"""The catalogue of metrics: one entry makes a metric appear everywhere."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics.tails import call
from calib_jax.reports import catalogue, measure
from calib_jax.reports.catalogue import Metric
from calib_jax.reports.tables import Table
from calib_jax.reports.views import measurement


def test_keys_and_labels_are_unique_and_directions_known():
    keys = [metric.key for metric in catalogue.METRICS]
    assert len(set(keys)) == len(keys)
    assert {metric.direction for metric in catalogue.METRICS} <= {-1, 0, 1}
    for metric in catalogue.METRICS:
        assert metric.function is None or set(metric.bins) <= {"num_bins", "edges"}


@pytest.mark.parametrize("metric", catalogue.computed(), ids=lambda metric: metric.key)
def test_every_function_takes_rows_weights_and_its_bins(metric):
    probs, answers = np.array([[0.75, 0.25], [0.4, 0.6]], np.float32), np.array([0, 0])
    function = catalogue.functions("", 4, "left")[metric.key]
    value = call(function, probs, answers, np.ones((2, 2), bool), jnp.ones(2), np.log(probs))
    assert np.shape(value) == ()
    public = getattr(metrics, metric.key, None)
    if public is not None:  # no option of bins is forgotten
        asked = {"num_bins", "edges"} & set(inspect.signature(public).parameters)
        assert set(metric.bins) == asked


def test_functions_are_the_same_objects_for_the_same_bins():
    once, again = (catalogue.functions(catalogue.LOG, 7, "right") for _ in range(2))
    assert once is again and once is not catalogue.functions(catalogue.LOG, 8, "right")


def test_a_further_metric_is_in_every_summary_table_and_report(monkeypatch, make_scores):
    def surprise(probs, answers, mask=None, weights=None):
        """The mean of -log2 p of the answer."""
        return metrics.nll(probs, answers, mask, weights=weights) / jnp.log(2.0)

    entry = Metric("surprise", "surprise, bits", -1, surprise, places=catalogue.EVERYWHERE)
    monkeypatch.setattr(catalogue, "METRICS", (*catalogue.METRICS, entry))
    # Fewer metrics compile faster.
    kept = ("conf_ece", "cw_ece", "smooth_ece", "accuracy", "mean_confidence", "surprise")
    few = tuple(metric for metric in catalogue.METRICS if metric.key in kept)
    monkeypatch.setattr(catalogue, "METRICS", few)
    # Of a shape of its own: programs of other metrics have been compiled for others.
    before, after = make_scores(41, bias=2.0), make_scores(41, bias=0.5)
    rows = {
        name: {"exam": measure.measure(one, "in", 9, num_resamples=3)}
        for name, one in (("before", before), ("after", after))
    }
    change = measure.change(before, after, 9, num_resamples=3)
    expected = float(metrics.nll(before.probs, before.answers, before.mask)) / np.log(2)
    assert rows["before"]["exam"]["surprise"] == pytest.approx(expected, rel=1e-5)
    assert len(rows["after"]["exam"]["surprise_ci"]) == 2 and "surprise" in change
    summary = {"states": ["before", "after"], **rows, "change": {"exam": change}}
    files = measurement._files(summary, rows)
    for name in ("metrics.md", "metrics.tex", "methods.md", "methods.csv"):
        assert "surprise, bits" in files[f"tables/{name}"], name
    assert "surprise" in files["tables/metrics.csv"]
    tables = (block for block in measurement.console(summary) if isinstance(block, Table))
    table = next(table for table in tables if table.name == "exam")
    assert "surprise, bits ↓" in [row.cells[0].text for row in table.rows]
    one = {"states": ["measured"], "measured": rows["after"]}
    overview = measurement.console(one)[-1]
    assert "surprise, bits" in [column.label for column in overview.columns]
