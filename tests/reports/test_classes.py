"""Options that are classes: named everywhere, with a table of classes in place of letters."""

import dataclasses
import re

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from calib_jax import metrics
from calib_jax.reports import measure, tables
from calib_jax.reports.classes import by_class
from calib_jax.reports.figures import classwise
from calib_jax.reports.page.render import render
from calib_jax.reports.views import measurement, splits, wrong

NAMES = ("Billing", "Technical", "Sales & <more>", "Other")


@pytest.fixture(scope="module")
def scores(make_scores):
    return dataclasses.replace(make_scores(60), choices=(NAMES,) * 60)


def test_classes_are_the_same_options_in_every_question(scores):
    assert scores.classes == NAMES
    for choices in (
        (NAMES,) * 59 + (NAMES[::-1],),
        (("A", "B", "C", "D"),) * 60,
        (("(A)", "(B)", "(C)", "(D)"),) * 60,
        (("x", "x", "y", "z"),) * 60,
        ((),) * 60,
        (),
    ):
        assert dataclasses.replace(scores, choices=choices).classes == ()
    assert scores.take([0]).classes == ()


def test_figures_by_class(scores):
    rows = by_class(scores)
    assert [row["class"] for row in rows] == list(NAMES)
    given = {"labels": [0, 1, 2, 3], "zero_division": np.nan, "average": None}
    for key, function in (("precision", precision_score), ("recall", recall_score)):
        expected = function(scores.answers, scores.predictions, **given)
        np.testing.assert_allclose([row[key] for row in rows], expected)
    assert [row["n"] for row in rows] == np.bincount(scores.answers, minlength=4).tolist()
    cw_ece = float(metrics.cw_ece(scores.probs, scores.answers))
    assert np.mean([row["ece"] for row in rows]) == pytest.approx(cw_ece, abs=1e-6)
    np.testing.assert_allclose([r["mean_probability"] for r in rows], scores.probs.mean(0), 1e-5)
    never = dataclasses.replace(scores, answers=np.zeros_like(scores.answers))
    assert by_class(never)[1]["recall"] is None


def rendered(summary, scores):
    return render(measurement.view(summary, scores, num_bins=10, edges="right"))


def test_tables_and_page_name_classes_and_no_letters(scores):
    row = measure.measure(scores, "", num_resamples=20)
    assert row["classes"] == list(NAMES) and row["top_letter"] in NAMES
    (table,) = splits.results({"measured": {"all": row}})
    assert table.rows[-1].cells[0].text == "most-chosen class"
    assert "Gold classes: Billing" in table.notes[1]
    assert "letter" not in tables.markdown([table])
    result = {"method": "report", "model": "", "states": ["measured"], "measured": {"all": row}}
    page = rendered(result, {"measured": {"all": scores}})
    text = re.sub(r"<style.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    assert "letter" not in text.lower()
    assert "Class by class" in text and "all, measured: 4 classes" in text
    assert "all classes" in text and "Sales &amp; &lt;more&gt;" in text and "<more>" not in text
    assert re.search(
        r"chose (Billing|Technical|Other|Sales \S+) with confidence .*right is [BSTO]", text
    )
    panels, _ = classwise.panels_of(scores)
    assert list(panels) == [*NAMES, classwise.POOLED_CLASSES]


def test_letters_stay_where_options_are_the_questions_own(scores):
    own = tuple((f"a{i}", f"b{i}", f"c{i}", f"d{i}") for i in range(60))
    other = dataclasses.replace(scores, choices=own)
    row = measure.measure(other, "", num_resamples=20)
    assert "classes" not in row and row["top_letter"] in "ABCD"
    page = rendered({"measured": {"all": row}}, {"measured": {"all": other}})
    assert "Letter by letter" in page and re.search(r"chose [ABCD] with", page)


def test_of_many_classes_the_likeliest_are_listed(make_scores):
    names = tuple(f"intent number {k} with a name that is rather long" for k in range(30))
    scores = dataclasses.replace(make_scores(60, 30), choices=(names,) * 60)
    row = {
        "n": 60,
        "conf_ece": 0.1,
        "answer_counts": [2] * 30,
        "num_options": [30, 30],
        "top_letter": names[3],
        "top_letter_share": 0.5,
        "classes": list(names),
        "by_class": by_class(scores),
    }
    states = {"measured": {"all": row}}
    (table,) = splits.results(states)
    assert "each of 30" in table.notes[1] and len(table.rows[-1].cells[1].text) < 32
    (table,) = splits.classes(states)
    assert [row.cells[0].text for row in table.rows] == list(names)
    first = wrong.blocks(states, {"measured": {"all": scores}})[0].values["items"][0]
    assert 6 <= len(first["options"]) <= 7
