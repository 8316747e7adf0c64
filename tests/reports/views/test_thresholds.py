"""Tables of what acting above a confidence keeps, and what of it is wrong."""

import csv
import io

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics.thresholds import THRESHOLDS
from calib_jax.reports.tables import markdown
from calib_jax.reports.views import thresholds
from tests.reports.views.invented import act_above


@pytest.fixture(scope="module")
def rows(make_scores):
    """Two splits' figures, as far as these tables read them."""
    found = {}
    for name, n in (("a", 60), ("b", 90)):
        found[name] = {"n": n, "domain": "", "act_above": act_above(make_scores(n, bias=2.0))}
    return found


def test_before_and_after_stand_side_by_side(rows):
    (a, b) = thresholds.tables({"before": rows, "after": rows})
    assert a.title == "If you act above this confidence: a (60 questions)"
    assert a.groups == [("", 1), ("before", 2), ("after", 2)]
    assert len(a.rows) == len(THRESHOLDS) and a.rows[0].cells[1:3] == a.rows[0].cells[3:]
    kept, errors = (rows["a"]["act_above"][key][0] for key in ("kept", "errors"))
    first, acted, wrong, *_ = a.rows[0].cells
    low, high = metrics.wilson_interval(errors, kept)
    assert first.text == "≥ 50%" and acted.text == f"{kept / 60:.0%} ({kept:.0f})"
    assert str(wrong) == f"{errors / kept:.0%} ({errors:.0f}) [{low:.0%}, {high:.0%}]"
    assert "(90 questions)" in b.title and "at or above" in b.notes[0]


def test_where_nothing_is_acted_on_no_share_is_wrong(make_scores):
    above = act_above(make_scores(20))
    assert above["kept"][-1] == 0
    for row in (above, {**above, "error_rate": [None] * len(THRESHOLDS)}):  # as JSON has it
        (table,) = thresholds.tables({"m": {"all": {"n": 20, "act_above": row}}})
        assert table.title == "If you act above this confidence (20 questions)"
        assert table.rows[-1].cells[1].text == "0% (0)" and table.rows[-1].cells[2].text == "–"


def test_many_models_have_a_row_each(rows):
    states = {f"m{i}": {"a": rows["a"]} for i in range(5)}
    (table,) = thresholds.tables(states)
    assert [row.cells[0].text for row in table.rows] == list(states)
    assert table.groups == [("", 1), ("≥ 50%", 2), ("≥ 70%", 2), ("≥ 90%", 2), ("≥ 95%", 2)]
    (alone,) = thresholds.tables({"m0": states["m0"]})
    shown = [alone.rows[THRESHOLDS.index(limit)] for limit in thresholds.FEWER]
    assert table.rows[4].cells[1:] == tuple(c for row in shown for c in row.cells[1:])
    assert "thresholds.csv" in table.notes[1] and "m4" in markdown([table])


def test_the_first_screen_has_the_first_split_or_many_together(rows):
    (first,) = thresholds.first({"m": rows})
    assert first.title.endswith(": a (60 questions)")
    many = {f"s{i}": rows["b"] for i in range(4)} | {"s0_part": rows["a"]}
    (pooled,) = thresholds.first({"m": many})
    assert pooled.title.endswith(": all splits together (360 questions)")
    kept = rows["b"]["act_above"]["kept"][0]
    low, high = metrics.wilson_interval(4 * kept, 360)
    assert str(pooled.rows[0].cells[1]) == (
        f"{kept / 90:.0%} ({4 * kept:.0f}) [{low:.0%}, {high:.0%}]"
    )


def test_many_splits_together_keep_the_width_that_their_clusters_give(make_scores):
    scores, code = make_scores(120, bias=2.0), np.arange(120) // 12
    arrays = scores.probs, scores.answers, scores.mask
    found = metrics.act_above(*arrays, clusters=code)._asdict()
    row = {"n": 120, "act_above": {name: column.tolist() for name, column in found.items()}}
    (pooled,) = thresholds.first({"m": {f"s{i}": row for i in range(4)}})
    # Four times as many rows are worth four times as much, and not more.
    right = scores.predictions == scores.answers
    kept = np.asarray(scores.confidences) >= found["threshold"][0] - 1e-6
    worth = 4 * metrics.effective_rows(~right[kept], code[kept])
    wrong = (~right[kept]).mean()
    low, high = metrics.wilson_interval(wrong * worth, worth)
    assert worth < 4 * kept.sum()
    assert str(pooled.rows[0].cells[2]).endswith(f"[{low:.0%}, {high:.0%}]")


def test_summaries_of_earlier_versions_have_none():
    states = {"m": {"a": {"n": 5}}}
    assert thresholds.tables(states) == thresholds.first(states) == []


def test_csv_has_a_line_per_threshold(rows):
    lines = list(csv.DictReader(io.StringIO(thresholds.as_text({"m": rows}))))
    assert len(lines) == 2 * len(THRESHOLDS)
    assert lines[0]["split"] == "a" and float(lines[0]["threshold"]) == 0.5
    assert float(lines[0]["kept"]) == rows["a"]["act_above"]["kept"][0]
