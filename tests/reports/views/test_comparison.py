"""Table 2's layout: bold, missing and unchanged cells, one seed, several models; every way out."""

import csv
import dataclasses
import io
import math
import re

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st

from calib_jax.reports import best, catalogue, console
from calib_jax.reports.compare import parts, sentences
from calib_jax.reports.compare.comparison import Comparison, Part, as_dict
from calib_jax.reports.page.render import render
from calib_jax.reports.tables import latex, markdown
from calib_jax.reports.views import comparison as views
from calib_jax.reports.views.registry import console_of
from tests.reports.compare.conftest import estimate, make_comparison, make_scores
from tests.reports.conftest import build_scores
from tests.reports.views.invented import act_above


@pytest.fixture
def comparison(laid_out):
    return make_comparison()


def body(text):
    """The rows of a Markdown table as lists of cells."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def cells_of(table):
    """Label -> its cells."""
    return {row.cells[0].text: row.cells[1:] for row in table.rows}


def test_markdown_has_a_row_per_method_and_a_column_per_domain(comparison):
    header, model, *rows = body(markdown([views.main_table([comparison])]))
    assert header == [
        "method",
        "conf-ECE ID ↓",
        "conf-ECE OOD ↓",
        "cw-ECE ID ↓",
        "cw-ECE OOD ↓",
        "acc. ID ↑",
        "acc. OOD ↑",
    ]
    assert model[0] == "*a_b 50%*"
    cells = {row[0]: row[1:] for row in rows}
    assert list(cells) == ["DPO, as it is", "Temp. scale", "CFT"]
    assert cells["Temp. scale"][0] == "**0.1000** ± 0.0100 [0.050, 0.150]"
    assert cells["DPO, as it is"][0] == "0.4000 ± 0.0100 [0.350, 0.450]"
    assert cells["Temp. scale"][4:] == ["=", "="]
    assert cells["CFT"][1::2] == ["–", "–", "–"]


def test_notes_tell_one_spread_from_the_other(comparison):
    said = " ".join(views.notes_of([comparison]))
    assert "ID: x + y, 70 questions a seed, pooled. OOD: z, 30 questions a seed" in said
    assert "standard deviation over 3 seeds" in said and "intervals over questions" in said
    assert best.NOTE in said and "=: as the model before" in said
    one = dataclasses.replace(comparison, seeds=(0,), unchanged=frozenset())
    for table in (views.main_table, views.extended, views.versus):
        notes = table([comparison]).notes
        assert "Temp. scale (seeds 0, 2): T stays at its upper bound 1000." in notes
        guesser = "ID: uniform guesser, K = 2 to 4: accuracy 0.375, NLL 1.040, Brier 0.625."
        assert guesser in notes
        assert any(text.startswith("OOD: uniform guesser, K = 4: accuracy 0.250") for text in notes)
    second = dataclasses.replace(comparison, model="second")
    several = " ".join(views.notes_of([comparison, second]))
    assert several.count("uniform guesser") == 2 and "second: Temp. scale (seeds" in several
    alone = " ".join(views.notes_of([one]))
    assert "One seed" in alone and "=:" not in alone


def check_latex(text, columns):
    """Every row of the tabular has the columns it says, and every brace its twin."""
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    for line in inside.split("\n"):
        if line.endswith(r"\\") and r"\multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == columns, line
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"\\\\\s*\[", text)  # would be the argument of the line's end
    assert not re.search(r"[±–∞λ→]", text)


def test_latex_of_every_table(comparison):
    other = dataclasses.replace(comparison, model="other & more")
    text = latex([views.main_table([comparison, other])])
    check_latex(text, 6)
    check_latex(latex([views.extended([comparison])]), 14)
    check_latex(latex([views.versus([comparison])]), 10)
    assert r"\textbf{0.1000}" in text and r"a\_b 50\%" in text and r"\label{tab:table2}" in text
    # Intervals stand beneath, or six columns of them would not fit a page.
    row = text.index(r"Temp. scale & \textbf{0.1000} {\scriptsize $\pm$ 0.0100} & 0.2000")
    assert text[row:].split("\n")[1].startswith(r" & {\scriptsize {[}0.050, 0.150{]}} & ")


def test_several_models_stand_under_each_other_with_what_they_have(comparison):
    only_in = dataclasses.replace(
        comparison,
        model="second",
        parts={"in": comparison.parts["in"]},
        rows={"cft": {"in": comparison.rows["cft"]["in"]}},
        labels={"cft": "CFT"},
    )
    table = views.main_table([comparison, only_in])
    assert [(section, len(rows)) for section, rows in table.by_section] == [
        ("a_b 50%", 3),
        ("second", 1),
    ]
    assert [cell.text for cell in table.rows[-1].cells[1:]][1::2] == ["–"] * 3


def test_differences_are_signed_and_bold_where_they_are_significant(comparison):
    table = views.versus([comparison])
    cells = cells_of(table)
    assert cells["CFT"][0].text == "–"
    first = cells["Temp. scale"][0]
    assert (first.text, first.verdict, first.interval) == ("-0.1000", "best", "[-0.200, -0.050]")
    assert first.note == "p = 0.002; 3/3"
    many = dataclasses.replace(
        comparison.rows["temperature"]["in"]["conf_ece"].versus, adjusted_p=0.2
    )
    estimate = dataclasses.replace(comparison.rows["temperature"]["in"]["conf_ece"], versus=many)
    comparison.rows["temperature"]["in"]["conf_ece"] = estimate
    among = cells_of(views.versus([comparison]))["Temp. scale"][0]
    assert (among.verdict, among.note) == ("", "p = 0.002; adj. = 0.200; 3/3")
    unsure = cells["DPO, as it is"][0]
    assert (unsure.text, unsure.verdict) == ("+0.2000", "")
    expected = [metric.brief for metric in catalogue.at(catalogue.VERSUS)]
    assert [group for group, _ in table.groups] == ["", *expected]


def test_chance_stands_beside_conf_ece_in_the_extended_table(comparison):
    table = views.extended([comparison])
    assert [group for group, _ in table.groups] == [
        "",
        "conf-ECE",
        "by chance",
        "NLL",
        "Brier",
        "acc.",
        "mean conf.",
        "AUROC",
    ]
    assert [cell.text for cell in cells_of(table)["DPO, as it is"][2:4]] == ["0.0800", "–"]


def test_csv_holds_every_figure_and_every_seed(comparison):
    rows = list(csv.DictReader(io.StringIO(views.results_csv([comparison]))))
    found = [r for r in rows if (r["method"], r["part"], r["metric"]) == ("before", "in", "nll")]
    assert [r["seed"] for r in found] == ["mean", "0", "1", "2"]
    assert float(found[0]["difference"]) == 0.2 and found[0]["reference"] == "cft"
    assert float(found[0]["p_value"]) == 0.3 and found[1]["p_value"] == ""
    assert float(found[0]["value"]) == pytest.approx(1.4)
    assert sum(float(r["value"]) for r in found[1:]) / 3 == pytest.approx(1.4)
    figures = sum(
        len(e.per_seed) + 1
        for by in comparison.rows.values()
        for part in by.values()
        for e in part.values()
    )
    assert len(rows) == figures and len({tuple(row) for row in rows}) == 1


def test_a_further_metric_has_a_column(comparison, monkeypatch):
    entry = catalogue.Metric("surprise", "surprise, bits", -1, places=catalogue.EVERYWHERE)
    monkeypatch.setattr(catalogue, "METRICS", (*catalogue.METRICS, entry))
    rows = {n: {"in": by["in"] | {"surprise": estimate(7.5)}} for n, by in comparison.rows.items()}
    found = dataclasses.replace(comparison, rows=rows)
    for table in (views.main_table([found]), views.extended([found]), views.versus([found])):
        assert table.columns[-2].group == "surprise, bits"
    assert cells_of(views.main_table([found]))["CFT"][-2].text == "7.5000"
    (again,) = views.comparisons_of({"comparisons": [as_dict(found)]})
    assert again.rows == found.rows


def whole(comparison, **changes):
    """What every method was measured on everywhere, as a figure needs it."""
    rows = {name: {"in": by["in"], "out": by["in"]} for name, by in comparison.rows.items()}
    return dataclasses.replace(comparison, rows=rows, **changes)


def summary_of(comparison, **more):
    settings = {name: {"method": f"{name} <b>", "λ": "1"} for name in comparison.labels}
    found = as_dict(dataclasses.replace(comparison, settings=settings))
    said = ["It was 1 and is 2", "So it is"]
    return {
        "job": "compare",
        "comparisons": [found],
        "said": said,
        "runs": {"cft-seed0": "w/cft"},
    } | more


def test_a_comparison_as_page_files_and_figures(comparison):
    parts = {"in": Part("in", ("x",), 40), "out": Part("out", ("z",), 30)}
    summary = summary_of(whole(comparison, parts=parts), data={"train": "<i>"})
    scores = {
        name: {"x": make_scores(i), "z": make_scores(i, n=30)}
        for i, name in enumerate(comparison.labels)
    }
    headline = sentences.headline(views.comparisons_of(summary)[0])
    summary["said"] = [*headline, "So it is"]
    view = views.view(summary, scores, 10, "right")
    assert view.said == headline
    assert set(view.files) == {
        f"tables/{name}.{kind}"
        for name in ("table2", "extended", "versus", "settings")
        for kind in ("md", "tex")
    } | {"tables/results.csv"}
    assert list(view.figures) == [
        f"figures/{name}_{domain}"
        for domain in ("in", "out")
        for name in ("reliability", "classwise")
    ]
    assert [section.title for section in view.sections] == [
        "Result",
        "What it says",
        "Figures",
        "Against the reference",
        "Accuracy, confidence and scores",
        "Settings",
        "Runs",
        "Data",
    ]
    page = render(view, summary)
    assert page.count("<svg") == 4 and f"<p>{headline[0]}.</p>" in page
    assert "<li>So it is.</li>" in page and f"<li>{headline[0]}" not in page
    assert "cft &lt;b&gt;" in page and "<i>" not in page.replace("<i class", "")
    assert "a_b 50% · 3 seeds · 3 rows" in page
    for table in (views.main_table, views.extended, views.versus):
        for row in table(views.comparisons_of(summary)).rows:
            for cell in row.cells:
                for text in (cell.text, cell.spread, cell.interval, cell.note):
                    assert text in page


def test_a_sweep_as_page_files_and_figures(comparison):
    points = {
        "temperature": {"ece_weight": 0.0, "num_bins": None},
        "cft": {"ece_weight": 1.0, "num_bins": 5},
    }
    summary = summary_of(whole(comparison), job="sweep", points=points)
    view = views.sweep(summary, "CFT")
    assert list(view.figures) == ["figures/frontier_conf_ece", "figures/frontier_cw_ece"]
    assert {"tables/sweep.md", "tables/sweep.tex", "tables/results.csv"} <= set(view.files)
    assert (
        "tables/table2.md" not in view.files
        and r"\label{tab:sweep}" in view.files["tables/sweep.tex"]
    )
    page = render(view, summary)
    assert "<h1>λ and M of CFT</h1>" in page and page.count("<svg") == 2
    assert "a panel per domain. It was 1 and is 2" in page


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_console_shows_the_table_what_it_says_and_the_settings(comparison, width):
    out = rich.console.Console(width=width, file=io.StringIO())
    console.show(console_of(summary_of(comparison)), out)
    said = out.file.getvalue()
    assert said.index("0.1000") < said.index("So it is.") < said.index("cft <b>")
    spread = "± 0.0100" if width > 60 else "0.0100"  # narrow columns break at blanks
    assert spread in said and ("[0.050, 0.150]" in said) == (width > 100)
    assert all(len(line) <= width for line in said.splitlines())


def test_splits_have_a_table_where_a_domain_has_several(comparison):
    assert views.splits(comparison) is None
    parts = {**comparison.parts, "x": Part("in", ("x",), 40), "y": Part("in", ("y",), 30)}
    rows = {n: {**by, "x": by["in"], "y": by["in"]} for n, by in comparison.rows.items()}
    table = views.splits(dataclasses.replace(comparison, parts=parts, rows=rows))
    assert [(c.group, c.label) for c in table.columns[1:3]] == [
        ("conf-ECE", "x"),
        ("conf-ECE", "y"),
    ]


values = st.floats(0, 1) | st.sampled_from([math.nan, math.inf])
metric_rows = st.dictionaries(st.sampled_from(["conf_ece", "accuracy", "nll"]), values)


@given(
    st.dictionaries(
        st.text("ab_&%|<[]\\$ λ", min_size=1, max_size=5),
        st.dictionaries(st.sampled_from(["in", "out"]), metric_rows),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_any_comparison_however_ragged_makes_tables(found, seeds):
    """Missing methods, parts and metrics, NaN, one seed, names of signs."""
    rows = {
        name: {
            part: {metric: estimate(v, seeds=seeds) for metric, v in of.items()}
            for part, of in by_part.items()
        }
        for name, by_part in found.items()
    }
    parts = {"in": Part("in", ("x",), 5), "out": Part("out", ("y",), 5)}
    labels = {name: name for name in rows}
    few = tuple(range(seeds))
    comparison = Comparison("m", labels, parts, few, next(iter(rows)), frozenset(), rows, {})
    for table in (views.main_table([comparison]), views.extended([comparison])):
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
        check_latex(latex([table]), len(table.columns) - 1)
        text = markdown([table])
        widths = {len(re.findall(r"(?<!\\)\|", x)) for x in text.splitlines() if x[:1] == "|"}
        assert len(widths) == 1


def test_acting_above_a_confidence_has_a_row_a_method(comparison):
    (table,) = [views.above({"comparisons": [as_dict(comparison)], "act_above": acting(5)})]
    assert table.name == "thresholds" and len(table.rows) == 5
    assert "in-domain (60 questions)" in table.title and table.notes[0].startswith("Seed ")
    assert views.above({"comparisons": [as_dict(comparison)]}) is None  # of an earlier version
    pooled = parts.act_above(
        {"a": {"x": build_scores(40), "y": build_scores(20), "z": build_scores(30)}},
        {"x": "in", "y": "in", "z": "out"},
        {"a": "A"},
    )
    row = pooled["A"]["in-domain"]
    assert row["n"] == 60 and row["act_above"]["kept"][0] == sum(
        (build_scores(n).confidences >= 0.5 - 1e-6).sum() for n in (40, 20)
    )


def acting(count):
    row = {"n": 60, "act_above": act_above(build_scores(60))}
    return {f"method {i}": {"in-domain": row} for i in range(count)}
