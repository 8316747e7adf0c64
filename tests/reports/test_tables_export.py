"""CSV, Markdown and LaTeX tables: the numbers of the summary, names escaped, bold where earned."""

import csv
import io
import re

import pytest

from calib_jax.reports import __main__ as command
from calib_jax.reports import content, summary, tables_export


def row(value, low, high, **more):
    return {"n": 5, "domain": "in", "answer_counts": [5], "conf_ece": value,
            "conf_ece_ci": [low, high]} | more  # fmt: skip


def test_methods_csv_is_the_layout_of_table_2(run):
    lines = list(csv.reader(io.StringIO(tables_export.methods_csv(content.columns(run[0])))))
    assert lines[0] == [
        "method",
        "conf-ECE ID: near", "conf-ECE OOD: far",
        "cw-ECE ID: near", "cw-ECE OOD: far",
        "acc. ID: near", "acc. OOD: far",
    ]  # fmt: skip
    assert [line[0] for line in lines[1:]] == ["before", "after"]
    expected = [run[0]["after"][s][k] for k in ("conf_ece", "cw_ece", "accuracy")
                for s in ("near", "far")]  # fmt: skip
    assert [float(x) for x in lines[2][1:]] == pytest.approx(expected, abs=5.1e-5)


def test_metrics_csv_holds_every_figure_with_its_interval(run):
    lines = list(csv.DictReader(io.StringIO(tables_export.metrics_csv(content.columns(run[0])))))
    for line in lines:
        figures = run[0][line["state"]][line["split"]]
        assert float(line["value"]) == figures[line["metric"]]
        if bounds := figures.get(f"{line['metric']}_ci"):
            assert [float(line["low"]), float(line["high"])] == bounds
    numbers = [k for k, v in run[0]["after"]["near"].items() if isinstance(v, (int, float))]
    assert {line["metric"] for line in lines} == set(numbers) - {"n"}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(0.1, 0.05, 0.15), row(0.3, 0.2, 0.4)], 0),
        ([row(0.1, 0.05, 0.25), row(0.3, 0.2, 0.4)], None),
        ([row(0.3, 0.2, 0.4), row(0.1, 0.05, 0.15), row(0.14, 0.1, 0.19)], None),
        ([row(0.1, 0.05, 0.15), None], None),
        ([row(0.1, 0.05, 0.15), row(None, None, None)], None),
        ([row(0.1, None, None), row(0.3, 0.2, 0.4)], None),
    ],
)
def test_bold_is_the_best_whose_interval_stands_apart(rows, expected):
    assert tables_export.best(rows, "conf_ece", -1) == expected


def test_latex_is_balanced_and_escapes_names(run):
    evil = r"50%_of $x^2$ & {a}~\b"
    states = {evil: run[0]["before"], "after": run[0]["after"]}
    for text in (tables_export.methods_latex(states), tables_export.metrics_latex(states)):
        assert r"50\%\_of \$x\textasciicircum{}2\$ \& \{a\}" in text
        assert r"\}\textasciitilde{}\textbackslash{}b" in text
        bare = re.sub(r"\\[{}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert text.count(r"\begin{") == text.count(r"\end{")
        for body in re.findall(r"\\begin\{tabular\}\{l(r+)\}.*?\\midrule\n(.*?)\\bottomrule",
                               text, re.DOTALL):  # fmt: skip
            for line in body[1].strip().splitlines():
                assert len(re.findall(r"(?<!\\)&", line)) == len(body[0]), line


def test_bold_figures_in_markdown_and_latex():
    other = {"cw_ece": 0.5, "accuracy": 0.5}
    states = {"a": {"s": row(0.1, 0.05, 0.15) | other}, "b": {"s": row(0.3, 0.2, 0.4) | other}}
    assert "| a | **0.1000** | 0.5000 |" in tables_export.methods_markdown(states)
    assert r"a & \textbf{0.1000} & 0.5000 &" in tables_export.methods_latex(states)


def test_files_of_a_run_and_calibrators_as_rows(tmp_path, run):
    tables_export.write(tmp_path, run[0] | {"posthoc": {"temperature": run[0]["after"]}})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}.{kind}" for name in ("methods", "metrics") for kind in ("csv", "md", "tex")
    ]
    assert "temperature (post hoc)" in (tmp_path / "methods.md").read_text()


@pytest.mark.parametrize("flag", ["--csv", "--latex", "--markdown"])
def test_command_line_compares_runs(tmp_path, run, capsys, flag):
    for name in ("one", "two"):
        summary.write(tmp_path / name / "summary.json", run[0])
    assert command.main([flag, str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    out = capsys.readouterr().out
    assert f"{run[0]['after']['near']['conf_ece']:.3f}" in out and "two" in out and "before" in out


def test_command_line_refuses(tmp_path, capsys):
    assert command.main(["--pdf", "x"]) == 1 and command.main(["--csv", "--latex", "x"]) == 1
    assert command.main([]) == 1
    assert "--markdown, --csv, --latex" in capsys.readouterr().err
