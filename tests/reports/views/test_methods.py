"""Tables of methods and readings: every number in every form, bold only where it is earned."""

import csv
import io
import re

import pytest

from calib_jax.reports import best, catalogue, tables
from calib_jax.reports.views import measurement, methods
from tests.reports.conftest import invented_row

READINGS = ("choice", "continuation_sum", "continuation_token")
KEYS = [metric.key for metric in catalogue.at(catalogue.OVERVIEW)]
EVIL = r"a|b_<i>&% $x^2$ {y}~\z"


@pytest.fixture
def states(make_scores):
    scores = make_scores(60)
    tasks = [f"task_{i}" for i in range(12)]
    found = {
        reading: {task: invented_row(scores, seed=100 * i + j) for j, task in enumerate(tasks)}
        for i, reading in enumerate(READINGS)
    }
    for task in tasks:
        found["choice"][task] |= {"candidate_mass": 0.25, "candidate_mass_ci": [0.2, 0.3]}
    return found


def test_overview_holds_every_figure_of_every_reading(states):
    table = methods.overview(states)
    assert [(row.cells[0].text, row.cells[1].text) for row in table.rows] == [
        (task, reading) for task in states["choice"] for reading in READINGS
    ]
    for row in table.rows:
        figures = states[row.cells[1].text][row.cells[0].text]
        for key, cell in zip(KEYS, row.cells[3:], strict=True):
            if key not in figures:
                assert str(cell) == ""
                continue
            low, high = figures[f"{key}_ci"]
            assert str(cell) == f"{figures[key]:.3f} [{low:.3f}, {high:.3f}]"
            assert cell.value == figures[key]


def test_a_single_reading_is_named_and_no_column_is_empty(states):
    table = methods.overview({"measured": states["continuation_sum"]})
    assert {row.cells[1].text for row in table.rows} == {"choice"}  # as the figures say
    assert "mass" not in [column.label for column in table.columns]


def test_overview_csv_holds_plain_numbers(states):
    lines = list(csv.DictReader(io.StringIO(methods.overview_csv(states))))
    for line in lines:
        expected = states[line["method"]][line["task"]]
        for key in KEYS:
            if key in expected:
                ends = [float(line[key]), float(line[f"{key}_low"]), float(line[f"{key}_high"])]
                assert ends == [expected[key], *expected[f"{key}_ci"]]
            else:
                assert line[key] == line[f"{key}_low"] == ""


def test_bold_is_what_the_set_holds_and_explained_where_it_is(states):
    sets = {"task_1": {"conf_ece": {"choice": 0.01, "continuation_sum": 1.0}}}
    table = methods.overview(states, sets)
    bold = [
        (row.cells[0].text, row.cells[1].text, column.label)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.verdict == "best"
    ]
    assert bold == [("task_1", "continuation_sum", "conf-ECE")] and best.NOTE in table.notes
    value = states["continuation_sum"]["task_1"]["conf_ece"]
    assert f"**{value:.3f}** [" in tables.markdown([table])
    for none in (None, {}, {"task_1": {"conf_ece": {"choice": 0.05}}}):
        table = methods.overview(states, none)
        assert best.NOTE not in table.notes
        assert not any(cell.verdict for row in table.rows for cell in row.cells)


def test_the_table_of_methods_is_bold_by_the_same_rule(run):
    summary = dict(run[0])
    summary["posthoc"] = {"beta": {"near": summary["before"]["near"]}}
    near = {"conf_ece": {"before": 0.2, "after": 0.01, "beta (post hoc)": 1.0}}
    summary["best"] = {"states": {"near": {}}, "methods": {"near": near}}
    table = methods.methods(methods.with_calibrators(summary), measurement.sets(summary, "methods"))
    bold = [[cell.verdict == "best" for cell in row.cells] for row in table.rows]
    assert [row[1] for row in bold] == [True, False, True] and sum(map(sum, bold)) == 2
    assert table.notes == (best.NOTE,) and r"\textbf{" in tables.latex([table])
    del summary["best"]["methods"]  # no calibrators: those of the states
    assert measurement.sets(summary, "methods") == {"near": {}}
    assert methods.methods(methods.with_calibrators(summary)).notes == ()


@pytest.mark.usefixtures("laid_out")
def test_methods_are_the_layout_of_table_2(run):
    states = {name: run[0][name] for name in ("before", "after")}
    lines = list(csv.reader(io.StringIO(methods.methods_csv(methods.methods(states)))))
    assert lines[0] == [
        "method",
        "conf-ECE ID: near",
        "conf-ECE OOD: far",
        "cw-ECE ID: near",
        "cw-ECE OOD: far",
        "acc. ID: near",
        "acc. OOD: far",
    ]
    assert [line[0] for line in lines[1:]] == ["before", "after"]
    expected = [
        run[0]["after"][split][key]
        for key in ("conf_ece", "cw_ece", "accuracy")
        for split in ("near", "far")
    ]
    assert [float(x) for x in lines[2][1:]] == pytest.approx(expected, abs=5.1e-5)


def test_metrics_csv_holds_every_figure_with_its_interval(run):
    states = {name: run[0][name] for name in ("before", "after")}
    lines = list(csv.DictReader(io.StringIO(methods.metrics_csv(states))))
    for line in lines:
        figures = run[0][line["state"]][line["split"]]
        assert float(line["value"]) == figures[line["metric"]]
        if bounds := figures.get(f"{line['metric']}_ci"):
            assert [float(line["low"]), float(line["high"])] == bounds
    numbers = [k for k, v in run[0]["after"]["near"].items() if isinstance(v, (int, float))]
    assert {line["metric"] for line in lines} == set(numbers) - {"n"}


def test_names_are_escaped_and_rows_line_up(run):
    states = {EVIL: {EVIL: run[0]["before"]["near"]}, "after": {EVIL: run[0]["after"]["near"]}}
    for table in (methods.overview(states), methods.methods(states)):
        text = tables.markdown([table])
        lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1 and "<i>" not in text
        text = tables.latex([table])
        assert (
            r"a\textbar{}b\_\textless{}i\textgreater{}\&\% \$x\textasciicircum{}2\$ \{y\}" in text
        )
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
        for line in re.search(r"\\midrule\n(.*?)\\bottomrule", text, re.S)[1].splitlines():
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1


def test_calibrators_follow_the_scores_as_they_are(run):
    states = {"before": run[0]["before"], "after": run[0]["after"]}
    rows = {"near": {"conf_ece": 0.015625, "nll": 1.25, "accuracy": 0.5, "warnings": ["hm"]}}
    (table,) = methods.calibrators({"vector_scaling": rows}, states)
    names = [row.cells[0].text for row in table.rows]
    assert names == ["before, as measured", "after, as measured", "vector scaling"]
    assert [row.kind for row in table.rows] == ["base", "base", ""]
    # The proper score beside the error; no column that no calibrator fills.
    assert [c.arrow for c in table.columns] == ["method", "conf-ECE ↓", "NLL ↓", "accuracy ↑"]
    assert [cell.text for cell in table.rows[2].cells[1:]] == ["0.016", "1.250", "0.500"]
    assert table.notes == ("Vector scaling: hm.",)


def test_the_parameters_of_the_fit_to_all_rows_stand_beneath(run):
    states = {"before": run[0]["before"]}
    fitted = {
        "temperature": {"temperature": 1.8333, "temperature_ci": [1.7, 2.0]},
        "platt": {"slope": 0.5, "intercept": -0.25},
    }
    rows = {
        name: {"near": {"nll": 1.25, "parameters": values}} for name, values in fitted.items()
    } | {"isotonic": {"near": {"nll": 1.25}}}
    (table,) = methods.calibrators(rows, states)
    assert table.notes == (
        "Fitted to all questions: temperature 1.833 [1.700, 2.000]; "
        "platt slope 0.500, intercept -0.250.",
    )


@pytest.mark.usefixtures("laid_out")
def test_quantisation_is_a_column_per_split():
    moved = {"unquantized": 0.2, "quantized": 0.25, "change": 0.05, "change_ci": [-0.01, 0.11]}
    row = {
        "mean_confidence_shift": -0.01,
        "mean_abs_confidence_shift": 0.02,
        "max_abs_confidence_shift": 0.3,
        "argmax_agreement": 0.975,
        "conf_ece": moved,
        "accuracy": moved,
        "nll": moved,
    }
    table = methods.quantization({"exam": row, "quiz": row})
    text = tables.markdown([table])
    assert [c.label for c in table.columns] == ["", "exam", "quiz"]
    for said in ("97.5%", "0.200 → 0.250", "change [-0.010, +0.110]", "-0.010", "0.300"):
        assert text.count(said) >= 2, said
