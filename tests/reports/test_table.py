import io
import re

import pytest
import rich.console

from calib_jax.errors import UserError
from calib_jax.reports import content, table


def printed(function, *args, width=100):
    file = io.StringIO()
    console = rich.console.Console(file=file, width=width, highlight=False)
    function(*args, console=console)
    return file.getvalue()


def cells(text, label):
    """The figures of the first row with that label."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return re.findall(r"[-+]?\d+\.\d{3}", line)


def test_holds_the_numbers_with_intervals_in_100_columns(run):
    result, _ = run
    text = printed(table.show_summary, result)
    assert max(map(len, text.splitlines())) <= 100
    near = text[text.index("near (in-domain, 60 questions)") :]
    for key, label, _ in content.METRICS:
        expected = []
        for part in (result["before"], result["after"], result["change"]):
            row = part["near"]
            if key in row:  # what is no metric of its own has no interval and no change
                expected += [row[key], *row.get(f"{key}_ci", ())]
        assert [float(c) for c in cells(near, label.strip())] == pytest.approx(expected, abs=5.1e-4)
    letter = next(line for line in near.splitlines() if "most-chosen" in line)
    share = result["before"]["near"]["top_letter_share"]
    assert f"{100 * share:.0f}% A" in letter


def test_in_domain_comes_first(run):
    text = printed(table.show_summary, run[0])
    assert text.index("near (in-domain") < text.index("far (out-of-domain")


def test_states_the_uniform_guesser_and_the_base_rates(run):
    text = printed(table.show_summary, run[0])
    assert "uniform guesser, K = 4: accuracy 0.250, NLL ln 4 = 1.386, Brier 3/4 = 0.750" in text
    row = run[0]["before"]["far"]
    assert f"uniform guesser, K = 2 to 4: accuracy {row['uniform_accuracy']:.3f}" in text
    assert f"gold letters: A {100 * row['answer_counts'][0] / 60:.0f}%" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_fits_narrow_consoles(run, width):
    text = printed(table.show_summary, run[0], width=width)
    assert max(map(len, text.splitlines())) <= width
    value = run[0]["before"]["near"]["conf_ece"]
    if width >= 60:
        assert f"{value:.3f}" in text
    low, high = run[0]["before"]["near"]["conf_ece_ci"]
    if width >= 80:
        assert f"[{low:.3f}, {high:.3f}]" in text


def test_pipes_as_plain_text(run, capsys):
    table.show_summary(run[0])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    low, high = run[0]["after"]["near"]["brier_ci"]
    assert f"[{low:.3f}, {high:.3f}]" in out


def test_one_column_only(run):
    text = printed(table.show_summary, {"model": "Tiny", "Tiny-1B": run[0]["before"]})
    assert "Tiny-1B" in text and "change" not in text.lower()
    value = run[0]["before"]["near"]["conf_ece"]
    near = text[text.index("near") :]
    assert float(cells(near, "conf-ECE")[0]) == pytest.approx(value, abs=5.1e-4)


def test_compares_runs_side_by_side(run):
    result, _ = run
    text = printed(table.compare, {"sft": result, "cft": result, "rcft": result})
    near = text[text.index("near") :]
    before, after = (result[s]["near"]["nll"] for s in ("before", "after"))
    figures = [float(c) for c in cells(near, "NLL")]
    assert figures[:: max(1, len(figures) // 4)] == pytest.approx(
        [before, after, after, after], abs=5.1e-4
    )
    other = {**result, "after": {"near": {**result["after"]["near"], "n": 61}}}
    with pytest.raises(UserError, match="other questions"):
        table.compare({"sft": result, "cft": other})


def test_change_is_coloured_only_when_its_interval_excludes_0(run):
    row = dict(run[0]["after"]["near"])
    changes = {"near": {}}
    for key, bounds in {
        "conf_ece": [-0.2, -0.1],  # lower is better
        "accuracy": [-0.2, -0.1],  # higher is better
        "nll": [-0.1, 0.1],
        "mean_confidence": [-0.2, -0.1],  # neither
    }.items():
        changes["near"] |= {key: sum(bounds) / 2, f"{key}_ci": bounds}
    (section,) = content.sections({"after": {"near": row}}, changes)
    verdicts = {r.label: r.cells[-1].verdict for r in section.rows}
    assert verdicts["conf-ECE"] == "better" and verdicts["accuracy"] == "worse"
    assert verdicts["NLL"] == verdicts["mean confidence"] == verdicts["AUROC"] == ""


def test_summaries_of_earlier_versions_leave_their_rows_out(run):
    keys = ("domain", "n", "conf_ece", "conf_ece_ci", "accuracy", "answer_counts", "top_letter",
            "top_letter_share")  # fmt: skip
    old = {key: run[0]["after"]["near"][key] for key in keys}
    text = printed(table.show_summary, {"after": {"near": old}})
    assert "conf-ECE" in text and "accuracy" in text and "smooth" not in text and "NLL" not in (
        text[: text.index("uniform")]
    )  # fmt: skip


def test_missing_figures_are_dashes(run):
    row = run[0]["after"]["near"] | {"auroc": None, "auroc_ci": [None, None]}
    text = printed(table.show_summary, {"after": {"near": row}})
    line = next(line for line in text.splitlines() if "AUROC" in line)
    assert line.split() == ["AUROC", "-"]


@pytest.mark.parametrize(
    "value, signed, text",
    [(-0.0001, True, "+0.000"), (-0.0001, False, "0.000"), (float("inf"), False, "∞")],
)
def test_numbers(value, signed, text):
    assert content.number(value, signed) == text


def test_markdown_is_one_table_with_every_split(run):
    result, _ = run
    text = table.markdown(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert text.index("near (in-domain") < text.index("far (out-of-domain")
    row = result["before"]["near"]
    low, high = row["conf_ece_ci"]
    assert f"| conf-ECE ↓ | {row['conf_ece']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert "ln 4 = 1.386" in text


def test_markdown_escapes_names(run):
    row = run[0]["before"]["near"]
    text = table.markdown({"a|b<script>": {"x|y": row}})
    assert "a\\|b&lt;script>" in text and "x\\|y" in text and "<script" not in text


def test_no_measurement_is_an_error():
    with pytest.raises(UserError, match="no measurement"):
        content.columns({"config": "x", "data": {}, "change": {"near": {"conf_ece": 0.1}}})


def test_names_are_no_markup(capsys):
    """What rich would take for a style, an end of one, or a picture."""
    console = table.standard_console(None)
    drawn = rich.table.Table()
    drawn.add_column("[/x]")
    drawn.add_row("[red]a :smile:")
    console.print(drawn)
    said = capsys.readouterr().out
    assert "[/x]" in said and "[red]a :smile:" in said
