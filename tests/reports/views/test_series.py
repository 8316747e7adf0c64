"""What views of several models share: where changes stand, factors, the CSV, and sentences."""

import pytest

from calib_jax.reports import catalogue
from calib_jax.reports.views.series import Part, changes_csv
from tests.reports.views.invented import row

TEXT = {"nll": 0.1, "nll_ci": [0.05, 0.15], "perplexity_ratio": 1.1}
TEXT["perplexity_ratio_ci"] = [1.05, 1.16]


def pairs(models):
    rows = {name: row(accuracy=0.5 + i / 10) for i, name in enumerate(["before", *models])}
    changes = {name: row(accuracy=0.2) for name in models}
    return Part("pairs", rows, catalogue.PAIRS, changes, "pairs (40)", ("a note",))


def text(change):
    rows = {name: {"nll": 2.0, "nll_ci": [1.9, 2.1], "perplexity": 7.39} for name in ("a", "b")}
    return Part("text", rows, catalogue.TEXT, {"b": change})


def test_a_single_change_stands_beside_the_models():
    (table,) = pairs(["cft"]).tables("change", "{} − before")
    assert [column.label for column in table.columns] == ["", "before", "cft", "cft − before"]
    name, *cells = table.rows[0].cells
    assert name.text == "preference accuracy ↑" and [str(cell) for cell in cells] == [
        "0.500 [0.400, 0.600]",
        "0.600 [0.500, 0.700]",
        "+0.200 [+0.100, +0.300]",
    ]
    assert cells[2].verdict == "better" and table.notes == ("a note",)


def test_several_changes_have_a_table_of_their_own():
    figures, changes = pairs(["cft", "rcft"]).tables("change", "by {}")
    assert [column.label for column in figures.columns] == ["", "before", "cft", "rcft"]
    assert [column.label for column in changes.columns] == ["", "by cft", "by rcft"]
    assert changes.title == "pairs: change" and not changes.notes and figures.name != changes.name
    assert str(changes.rows[0].cells[2]) == "+0.200 [+0.100, +0.300]"
    # What no model has is left out.
    assert len(figures.rows) == len(changes.rows) == 1


@pytest.mark.parametrize(
    ("ratio", "verdict", "said"),
    [
        (1.1, "worse", "significantly higher: by × [1.050, 1.150]"),
        (0.9, "better", "significantly lower: by × [0.850, 0.950]"),
        (1.01, "", "no significant change: its 95% interval [0.960, 1.060] includes 1"),
    ],
)
def test_the_change_of_a_perplexity_is_a_factor(ratio, verdict, said):
    change = {"perplexity_ratio": ratio, "perplexity_ratio_ci": [ratio - 0.05, ratio + 0.05]}
    part = text(change)
    (table,) = part.tables("change", "{}")
    cell = table.rows[0].cells[3]
    assert str(cell) == f"× {ratio:.3f} [{ratio - 0.05:.3f}, {ratio + 0.05:.3f}]"
    assert cell.verdict == verdict and cell.value == ratio
    assert part.course("perplexity", "perplexity", "; ") == (
        f"perplexity: 7.390 (a); 7.390 (b, {said})"
    )


def test_the_csv_holds_plain_numbers_and_nothing_where_nothing_is_known():
    lines = changes_csv([pairs(["cft"]), text(TEXT)], "model").splitlines()
    assert lines[0] == "part,model,figure,value,low,high,change,change_low,change_high"
    assert lines[1] == "pairs,before,accuracy,0.5,0.4,0.6,,,"
    assert "text,b,perplexity,7.39,,,1.1,1.05,1.16" in lines
    assert "text,b,nll,2.0,1.9,2.1,0.1,0.05,0.15" in lines and len(lines) == 1 + 2 + 4


def test_a_course_says_which_changes_are_changes():
    part = Part(
        "exam",
        {"a": {"conf_ece": 0.4}, "b": {"conf_ece": None}},
        catalogue.METRICS,
        {"b": {"conf_ece_ci": [-0.3, -0.1]}},
    )
    assert part.course("conf_ece", "conf-ECE", after="chance") == (
        "conf-ECE: 0.400 (a) → – (b, significantly lower: by [-0.300, -0.100]); the last is chance"
    )
