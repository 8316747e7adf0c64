"""The series as a console table, Markdown and CSV."""

import csv
import io
import re

import rich.console

from calib_jax.reports import summary
from calib_jax.reports.lifecycle import tables
from calib_jax.runs.run import show_if_finished


def shown(result, width):
    console = rich.console.Console(file=io.StringIO(), width=width, highlight=False)
    tables.show_summary(result, console)
    return console.file.getvalue()


def test_the_console_has_a_row_for_each_part_and_model(run):
    result, _ = run
    text = shown(result, 120)
    assert text.index("text") < text.index("facts")
    said, table = text.split("conf-ECE  ", 1)
    assert table.count("70m") == table.count("12b") == 2
    said = " ".join(said.split())
    assert re.search(r"conf-ECE on text: [\d.]+ \(70m\) → [\d.]+ \(12b\); the last is ", said)
    assert "answers show of a perfectly calibrated model by chance" in said
    assert re.search("their 95% intervals (overlap|do not overlap)", said)
    row = result["1b"]["text"]
    assert tables.cell(row, "conf_ece", True) in text and max(map(len, text.splitlines())) <= 120
    # Intervals go before figures do.
    narrow = shown(result, 85)
    assert f"{row['conf_ece']:.3f}" in narrow and "…" not in narrow
    assert tables.cell(row, "conf_ece", True) in shown(result, 95)


def test_what_was_skipped_is_said_with_its_reason(run):
    result = {**run[0], "data": {"text": {"skipped_empty": 3}, "facts": {"skipped_empty": 0}}}
    for label, number in zip(result["models"], (0, 1, 4), strict=True):
        counts = {"skipped_inside_token": number}
        result[label] = {**result[label], "facts": {**result[label]["facts"], "counts": counts}}
    assert tables.skipped_lines(result) == [
        "Text: documents skipped: 3 empty; 2 too short.",
        "Facts skipped: 0 to 4 whose span begins inside a token.",
    ]
    assert "Text: documents skipped: 3 empty; 2 too short." in shown(result, 120)
    for label in result["models"]:
        result[label] = {part: {**row, "counts": {}} for part, row in result[label].items()}
    assert tables.skipped_lines({**result, "data": {}}) == []


def test_markdown_and_csv_hold_the_same_figures(run, tmp_path):
    result, _ = run
    tables.write(tmp_path, result)
    markdown = (tmp_path / "lifecycle.md").read_text()
    assert markdown.count("\n| text |") == markdown.count("\n| facts |") == 3
    rows = list(csv.DictReader((tmp_path / "lifecycle.csv").open()))
    assert [(row["part"], row["model"]) for row in rows] == [
        (part, label) for part in ("text", "facts") for label in ("70m", "1b", "12b")
    ]
    first = result["70m"]["text"]
    assert float(rows[0]["conf_ece"]) == first["conf_ece"]
    assert float(rows[0]["conf_ece_high"]) == first["conf_ece_ci"][1]
    assert float(rows[0]["place"]) == 70e6 and int(rows[0]["documents"]) == 40
    groups = list(csv.DictReader((tmp_path / "facts_by_group.csv").open()))
    assert [row["group"] for row in groups] == ["P1", "P2 <b>"] * 3
    assert float(groups[1]["accuracy"]) == result["70m"]["facts"]["groups"][1]["accuracy"]
    assert not (tmp_path / "text_by_group.csv").exists()


def test_a_finished_run_shows_its_table(run, tmp_path, capsys):
    summary.write(tmp_path / "summary.json", run[0])
    assert show_if_finished(tmp_path)
    said = capsys.readouterr().out
    assert "is finished" in said and "over-conf." in said and len(re.findall(r"\n *12b", said)) == 2
