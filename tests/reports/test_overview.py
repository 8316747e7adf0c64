"""The one table: the summary's numbers in every form, at every width of the console."""

import csv
import io
import re

import numpy as np
import pytest
import rich.console

from calib_jax.reports import content, overview, table
from calib_jax.reports.page import results

METHODS = ("choice", "continuation_sum", "continuation_token")
KEYS = ("accuracy", "conf_ece", "cw_ece", "sce_ovr", "mean_confidence")


def row(seed, method, n=300, **more):
    """A ROW as the table needs it; figures in three decimals are distinct."""
    values = np.random.default_rng(seed).uniform(0.05, 0.9, len(KEYS))
    found = {
        "domain": "",
        "method": method,
        "n": n,
        "answer_counts": [n],
        "top_letter": "A",
        "top_letter_share": 0.5,
    }
    for key, value in zip(KEYS, values.round(3).tolist(), strict=True):
        found |= {key: value, f"{key}_ci": [round(value - 0.04, 3), round(value + 0.05, 3)]}
    if method != "continuation_token":
        found |= {"candidate_mass": 0.25, "candidate_mass_ci": [0.2, 0.3]}
    return found | more


@pytest.fixture
def states():
    tasks = [f"task_{i}" for i in range(12)] + ["mmlu_social_sciences"]
    return {
        method: {task: row(100 * i + j, method) for j, task in enumerate(tasks)}
        for i, method in enumerate(METHODS)
    }


def printed(function, *args, width):
    file = io.StringIO()
    function(*args, console=rich.console.Console(file=file, width=width, highlight=False))
    return file.getvalue()


def test_the_summary_s_form_is_read_back_as_columns(states):
    nested = content.nested(states)
    assert list(nested["measured"]["task_0"]) == list(METHODS)
    assert content.columns({"data": {}, **nested}) == states
    assert overview.is_by_method(nested)
    assert not overview.is_by_method({"measured": states["choice"]})


@pytest.mark.parametrize("width", [80, 120, 200])
def test_console_holds_every_figure_within_its_width(states, width):
    text = printed(overview.show_summary, content.nested(states), width=width)
    assert max(map(len, text.splitlines())) <= width
    table = text[: text.index("Brackets")]
    body = [line for line in table.splitlines() if re.search(r"\d\.?\d", line)]
    lines = iter(line for line in body if line.startswith("  "))
    for task in states["choice"]:
        assert any(line.split() == [task, "300"] for line in body)
    for line in overview.lines(states):
        figures = next(lines)
        assert figures.split()[0] == line.method
        found = re.findall(r"(?<![\d.])\d?\.\d+", figures)
        expected = []
        for key in KEYS:
            bounds = line.row[f"{key}_ci"]
            expected += [f"{line.row[key]:.3f}"]
            expected += {80: [], 120: [f"{b:.2f}" for b in bounds],
                         200: [f"{b:.3f}" for b in bounds]}[width]  # fmt: skip
        mass = line.row.get("candidate_mass")
        expected += [] if mass is None else ["0.250"]
        assert [float(f) for f in found] == [float(e) for e in expected]
    assert ("need a wider console" in " ".join(text.split())) == (width == 80)


def test_a_single_method_is_a_row_per_task(states):
    text = printed(overview.show_summary, {"measured": states["choice"]}, width=120)
    assert "Confidence read by: choice" in text and text.count("task_7") == 1
    assert "gold letters" not in text, "so many splits have no details on the console"


def test_few_splits_show_their_details_and_the_overview(states):
    def show(*tasks):
        rows = {task: states["choice"][task] for task in tasks}
        return printed(overview.show_summary, {"measured": rows}, width=120)

    text = show("task_0", "task_1")
    assert text.count("gold letters") == 2 and "Confidence read by: choice" in text
    assert "SCE ovr" in text
    text = show("task_0")
    assert "gold letters" in text and "SCE ovr" in text


def test_before_and_after_is_no_overview(states):
    rows = states["choice"]
    assert not overview.worth_showing({"before": rows, "after": rows})
    assert overview.worth_showing({"one": rows, "other": rows})


def test_csv_holds_plain_numbers(states):
    lines = list(csv.DictReader(io.StringIO(overview.as_csv(states))))
    assert [(line["task"], line["method"]) for line in lines] == [
        (task, method) for task in states["choice"] for method in METHODS
    ]
    for line in lines:
        expected = states[line["method"]][line["task"]]
        for key in KEYS:
            ends = [float(line[key]), float(line[f"{key}_low"]), float(line[f"{key}_high"])]
            assert ends == [expected[key], *expected[f"{key}_ci"]]
        assert line["candidate_mass"] == str(expected.get("candidate_mass", ""))


def test_markdown_latex_and_page_escape_names_and_line_up():
    evil = r"a|b_<i>&%"
    states = {m: {evil: row(i, m)} for i, m in enumerate((*METHODS, evil))}
    text = overview.as_markdown(states)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1 and "<i>" not in text
    figures = states["choice"][evil]
    low, high = figures["conf_ece_ci"]
    assert f"{figures['conf_ece']:.3f} [{low:.3f}, {high:.3f}]" in text

    text = overview.as_latex(states)
    assert r"a\textbar{}b\_\textless{}i\textgreater{}\&\%" in text
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    for line in re.search(r"\\midrule\n(.*?)\\bottomrule", text, re.S)[1].splitlines():
        assert line == r"\addlinespace" or len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")

    text = results.one_table(states)
    assert "<i>" not in text and "a|b_&lt;i&gt;&amp;%" in text
    assert f"{figures['sce_ovr']:.3f}" in text and text.count("<tr>") == 1 + len(states)


def test_best_only_where_intervals_stand_apart():
    def one(value, method):
        found = row(0, method)
        found |= {"conf_ece": value, "conf_ece_ci": [value - 0.05, value + 0.05]}
        return found | {"sce_ovr": value, "sce_ovr_ci": [value - 0.01, value + 0.01]}

    apart = {"a": {"t": one(0.1, "a")}, "b": {"t": one(0.3, "b")}}
    assert [line.best for line in overview.lines(apart)] == [frozenset({"conf_ece"}), frozenset()]
    close = {"a": {"t": one(0.1, "a")}, "b": {"t": one(0.15, "b")}}
    assert not any(line.best for line in overview.lines(close))
    assert "**0.100 [0.050, 0.150]**" in overview.as_markdown(apart)


def test_what_could_not_be_computed_is_a_dash(states):
    states["choice"]["task_0"] |= {"conf_ece": None, "conf_ece_ci": [None, None]}
    assert "| task_0 | choice | 300 |" in overview.as_markdown(states)
    line = next(x for x in overview.as_csv(states).splitlines() if x.startswith("task_0,choice"))
    assert ",,," in line
    for width in (80, 120, 200):
        assert " - " in printed(overview.show, states, width=width)


def test_little_mass_on_the_letters_is_said_with_a_remedy():
    little, much = ({"quiz": row(1, "choice", candidate_mass=m)} for m in (0.225, 0.925))
    texts = row(1, "continuation_sum", candidate_mass=1e-5)
    page = results.one_table({"measured": little}) + results.results({"measured": little}, None)
    for text in (
        printed(overview.show_summary, {"measured": little}, width=120),
        overview.as_markdown({"measured": little}),
        page,
        table.markdown({"before": little, "after": much}),
    ):
        said = " ".join(text.split())
        assert "the letters hold less than half of the probability, 0.225 (" in said
        assert "the other setting of --config.prompt.chat" in said and "continuation_sum" in said
    assert "0.925" not in table.markdown({"before": little, "after": much})
    for states in ({"measured": much}, {"measured": {"quiz": texts}}):
        assert "less than half" not in printed(overview.show_summary, states, width=120)
    many = {f"split_{i}": little["quiz"] for i in range(7)}
    (sentence,) = content.low_mass(many)
    assert "0.225 (split_3) and 3 more:" in sentence and "split_4" not in sentence
