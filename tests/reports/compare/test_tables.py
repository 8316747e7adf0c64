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

from calib_jax.reports.compare import page, results_csv, tables, wording
from calib_jax.reports.compare.comparison import Comparison, Part, as_dict
from tests.reports.compare.conftest import estimate


def body(text):
    """The rows of a Markdown table as lists of cells."""
    return [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]


def test_markdown_has_a_row_per_method_and_a_column_per_domain(comparison):
    header, model, *rows = body(tables.markdown(tables.table2([comparison])))
    assert [h.strip() for h in header] == [
        "", "conf-ECE ID", "conf-ECE OOD", "cw-ECE ID", "cw-ECE OOD", "acc. ID", "acc. OOD"
    ]  # fmt: skip
    assert model[0].strip() == "*a_b 50%*"
    cells = {r[0].strip(): [c.strip() for c in r[1:]] for r in rows}
    assert list(cells) == ["DPO, as it is", "Temp. scale", "CFT"]
    assert cells["Temp. scale"][0] == "**0.1000** ± 0.0100<br>[0.050, 0.150]"
    assert cells["DPO, as it is"][0] == "0.4000 ± 0.0100<br>[0.350, 0.450]"
    assert cells["Temp. scale"][4:] == ["=", "="]
    assert cells["CFT"][1::2] == ["–", "–", "–"]


def test_caption_tells_one_spread_from_the_other(comparison):
    said = tables.caption([comparison])
    assert "ID: x + y, 70 questions a seed, pooled. OOD: z, 30 questions a seed" in said
    assert "standard deviation over 3 seeds" in said and "intervals over questions" in said
    assert "not significantly worse" in said and "=: as the model before" in said
    one = dataclasses.replace(comparison, seeds=(0,), unchanged=frozenset())
    for grid in (tables.table2, tables.extended, tables.versus):
        text = grid([comparison]).caption
        assert "Temp. scale (seeds 0, 2): T stays at its upper bound 1000." in text
        assert "ID: uniform guesser, K = 2 to 4: accuracy 0.375, NLL 1.040, Brier 0.625." in text
        assert "OOD: uniform guesser, K = 4: accuracy 0.250" in text
    several = tables.caption([comparison, dataclasses.replace(comparison, model="second")])
    assert several.count("uniform guesser") == 2 and "second: Temp. scale (seeds" in several
    assert "One seed" in tables.caption([one]) and "=:" not in tables.caption([one])


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
    check_latex(tables.latex(tables.table2([comparison, other])), 6)
    check_latex(tables.latex(tables.extended([comparison])), 14)
    check_latex(tables.latex(tables.versus([comparison])), 10)
    text = tables.latex(tables.table2([comparison]), "tab:two")
    assert r"\textbf{0.1000}" in text and r"a\_b 50\%" in text and r"\label{tab:two}" in text


def test_several_models_stand_under_each_other_with_what_they_have(comparison):
    only_in = dataclasses.replace(
        comparison,
        model="second",
        parts={"in": comparison.parts["in"]},
        rows={"cft": {"in": comparison.rows["cft"]["in"]}},
        labels={"cft": "CFT"},
    )
    grid = tables.table2([comparison, only_in])
    assert grid.models == ["a_b 50%", "second"] and len(grid.rows) == 4
    assert [cell.text for cell in grid.rows[-1][2]][1::2] == ["–"] * 3
    html = page.html(grid, "t")
    assert html.count("<tr>") == 2 + 2 + 4 and "second" in html


def test_differences_are_signed_and_bold_where_they_are_significant(comparison):
    cells = {label: cells for _, label, cells in tables.versus([comparison]).rows}
    assert cells["CFT"][0].text == "–"
    first = cells["Temp. scale"][0]
    assert (first.text, first.bold, first.spread) == ("-0.1000", True, "[-0.200, -0.050]")
    assert first.small == "p = 0.002; 3/3"
    assert not cells["DPO, as it is"][0].bold and cells["DPO, as it is"][0].text == "+0.2000"


def test_chance_stands_in_the_extended_table(comparison):
    grid = tables.extended([comparison])
    assert [label for label, _ in grid.groups] == [
        "acc.", "mean conf.", "conf-ECE", "NLL", "Brier", "AUROC", "conf-ECE by chance"
    ]  # fmt: skip
    assert grid.groups[-1] == ("conf-ECE by chance", ("ID", "OOD"))
    assert [c.text for c in grid.rows[0][2][-2:]] == ["0.0800", "–"]


def test_csv_holds_every_figure_and_every_seed(comparison):
    rows = list(csv.DictReader(io.StringIO(results_csv.text([comparison]))))
    found = [r for r in rows if (r["method"], r["part"], r["metric"]) == ("dpo", "in", "nll")]
    assert [r["seed"] for r in found] == ["mean", "0", "1", "2"]
    assert float(found[0]["difference"]) == 0.2 and found[0]["reference"] == "cft"
    assert float(found[0]["value"]) == pytest.approx(1.4)
    assert sum(float(r["value"]) for r in found[1:]) / 3 == pytest.approx(1.4)


def test_files_and_console(comparison, tmp_path):
    tables.write(tmp_path, [comparison], name="sweep")
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"{n}.{k}" for n in ("sweep", "extended", "versus") for k in ("md", "tex")} | {
        "results.csv"
    }
    console = rich.console.Console(width=100, file=io.StringIO())
    tables.show_summary({"comparisons": [as_dict(comparison)], "said": ["So it is"]}, console)
    said = console.file.getvalue()
    assert "0.1000" in said and "± 0.0100" in said and "So it is." in said


def test_splits_have_a_table_where_a_domain_has_several(comparison):
    assert tables.splits(comparison) is None
    parts = {**comparison.parts, "x": Part("in", ("x",), 40), "y": Part("in", ("y",), 30)}
    rows = {n: {**by, "x": by["in"], "y": by["in"]} for n, by in comparison.rows.items()}
    grid = tables.splits(dataclasses.replace(comparison, parts=parts, rows=rows))
    assert grid.groups[0] == ("conf-ECE", ("x", "y"))


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
    for grid in (tables.table2([comparison]), tables.extended([comparison])):
        for _, _, cells in grid.rows:
            assert len(cells) == sum(len(parts) for _, parts in grid.groups)
        check_latex(tables.latex(grid), len(cells))
        text = tables.markdown(grid)
        widths = {len(re.findall(r"(?<!\\)\|", x)) for x in text.splitlines() if x[:1] == "|"}
        assert len(widths) == 1
        assert page.html(grid, "t").count("<tr>") == 2 + len(rows)


def test_sentences_say_where_the_temperature_wins_and_whether_that_is_sure(comparison):
    cft = {**comparison.rows["cft"], "out": comparison.rows["cft"]["in"]}
    whole = dataclasses.replace(
        comparison, rows={**comparison.rows, "cft": cft}, chance={"cft": {"in": 0.08}}
    )
    first, accuracy, wins, losses = wording.sentences(
        whole, "dpo", ["temperature", "fixed_temperature"]
    )
    assert first.startswith("DPO, as it is → CFT: conf-ECE 0.400 → 0.200 in-domain")
    # The interval of CFT against the model as it is: the other way round than that in the table.
    said = "(no significant change: its 95% interval [-0.500, +0.100] holds 0)"
    assert said in first and accuracy.startswith("DPO, as it is → CFT: accuracy 0.500 → 0.500")
    assert (
        "0.200 in-domain (no significant" in first and "more than 70 questions show of a" in first
    )
    assert wins.startswith("Temp. scale beats CFT on conf-ECE in-domain (0.100 against 0.200)")
    assert "out-of-domain" not in wins
    assert "CFT beats Temp. scale on conf-ECE out-of-domain (0.200 against 0.200, not" in losses


def test_a_temperature_that_never_wins_is_said_to_win_nowhere(comparison):
    rows = {n: {"in": by["in"]} for n, by in comparison.rows.items()}
    rows["temperature"] = rows["dpo"]
    whole = dataclasses.replace(comparison, parts={"in": comparison.parts["in"]}, rows=rows)
    said = wording.sentences(whole, "dpo", ["temperature"])
    assert said[2] == "Temp. scale beats CFT nowhere: not on conf-ECE, cw-ECE, NLL or Brier"


def test_any_other_method_that_is_significantly_better_is_named(comparison):
    cft = {**comparison.rows["cft"], "out": comparison.rows["cft"]["in"]}
    rows = {**comparison.rows, "cft": cft}
    _, _, *said = wording.sentences(dataclasses.replace(comparison, rows=rows), "dpo")
    (better,) = said
    assert better.startswith(
        "Temp. scale is significantly better than CFT on conf-ECE in-domain (0.100 against 0.200), "
    )
    rows["temperature"] = comparison.rows["dpo"]
    _, _, *said = wording.sentences(dataclasses.replace(comparison, rows=rows), "dpo")
    assert said == [
        "None of the other methods is significantly better than CFT on conf-ECE, cw-ECE, NLL or "
        "Brier"
    ]
