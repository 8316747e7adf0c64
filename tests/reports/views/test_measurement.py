import io
import re

import pytest
import rich.console

from calib_jax.reports import catalogue, console, tables
from calib_jax.reports.page.render import render
from calib_jax.reports.states import by_reading
from calib_jax.reports.views import measurement, splits
from tests.reports.conftest import invented_row
from tests.reports.views.invented import act_above


def printed(summary, width=100):
    file = io.StringIO()
    out = rich.console.Console(file=file, width=width, highlight=False)
    console.show(measurement.console(summary), out)
    return file.getvalue()


def cells(text, label):
    """The figures of the first row with that label."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return re.findall(r"[-+]?\d+\.\d{3}", line)


def test_holds_the_numbers_with_intervals_in_100_columns(run):
    result, _ = run
    text = printed(result)
    assert max(map(len, text.splitlines())) <= 100
    near = text[text.index("near (in-domain, 60 questions)") :]
    for key, label in ((m.key, m.label) for m in catalogue.at(catalogue.RESULTS)):
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
    text = printed(run[0])
    assert text.index("near (in-domain") < text.index("far (out-of-domain")


def test_states_the_uniform_guesser_and_the_base_rates(run):
    text = printed(run[0])
    assert "Uniform guesser, K = 4: accuracy 0.250, NLL ln 4 = 1.386, Brier 3/4 = 0.750" in text
    row = run[0]["before"]["far"]
    assert f"Uniform guesser, K = 2 to 4: accuracy {row['uniform_accuracy']:.3f}" in text
    assert f"Gold letters: A {100 * row['answer_counts'][0] / 60:.0f}%" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_fits_narrow_consoles(run, width):
    text = printed(run[0], width=width)
    assert max(map(len, text.splitlines())) <= width
    value = run[0]["before"]["near"]["conf_ece"]
    if width >= 60:
        assert f"{value:.3f}" in text
    low, high = run[0]["before"]["near"]["conf_ece_ci"]
    if width >= 80:
        assert f"[{low:.3f}, {high:.3f}]" in text


def test_pipes_as_plain_text(run, capsys):
    console.show(measurement.console(run[0]))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 120
    low, high = run[0]["after"]["near"]["brier_ci"]
    assert f"[{low:.3f}, {high:.3f}]" in out


def test_one_column_only(run):
    text = printed({"model": "Tiny", "Tiny-1B": run[0]["before"]})
    assert "Tiny-1B" in text and "change" not in text.lower()
    value = run[0]["before"]["near"]["conf_ece"]
    near = text[text.index("near (in-domain") :]
    assert float(cells(near, "conf-ECE")[0]) == pytest.approx(value, abs=5.1e-4)


def test_summaries_of_earlier_versions_leave_their_rows_out(run):
    keys = (
        "domain",
        "n",
        "conf_ece",
        "conf_ece_ci",
        "accuracy",
        "answer_counts",
        "top_letter",
        "top_letter_share",
    )
    old = {key: run[0]["after"]["near"][key] for key in keys}
    text = printed({"after": {"near": old}})
    assert (
        "conf-ECE" in text
        and "accuracy" in text
        and "smooth" not in text
        and "NLL" not in (text[: text.index("Uniform")])
    )


def test_missing_figures_are_dashes(run):
    row = run[0]["after"]["near"] | {"auroc": None, "auroc_ci": [None, None]}
    text = printed({"after": {"near": row}})
    line = next(line for line in text.splitlines() if "AUROC" in line)
    assert line.split() == ["AUROC", "↑", "–"]


def test_markdown_holds_every_split(run):
    result, _ = run
    text = tables.markdown(splits.results(measurement.of.states_of(result), result["change"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert text.index("near (in-domain") < text.index("far (out-of-domain")
    row = result["before"]["near"]
    low, high = row["conf_ece_ci"]
    assert f"| conf-ECE ↓ | {row['conf_ece']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert "ln 4 = 1.386" in text


def test_several_readings_show_their_overview_and_few_splits_their_details(run, make_scores):
    rows = {f"task_{i}": invented_row(make_scores(60), seed=i) for i in range(12)}
    summary = by_reading({"choice": rows, "continuation_sum": rows})
    text = printed(summary, width=160)
    assert text.count("task_7") == 2 and "Gold letters" not in text
    one = {name: rows[name] for name in ("task_0", "task_1")}
    text = printed({"states": ["measured"], "measured": one}, width=160)
    assert text.count("Gold letters") == 2 and "SCE ovr" in text


def test_the_files_of_a_run_and_calibrators_as_rows(run):
    result, scores = run
    summary = result | {"posthoc": {"temperature": result["after"]}}
    view = measurement.view(summary, scores, num_bins=10, edges="right")
    names = [f"tables/{n}.{kind}" for n in ("methods", "metrics") for kind in ("csv", "md", "tex")]
    assert sorted(view.files) == names  # invented figures know of no thresholds
    assert "temperature (post hoc)" in view.files["tables/methods.md"]
    assert "temperature (post hoc)" in view.files["tables/metrics.csv"]
    assert {"reliability", "figures/reliability_near", "figures/curve_far"} <= set(view.figures)


def test_a_state_without_a_split_is_no_hindrance(run):
    result, scores = run
    summary = {**result, "after": {"near": result["after"]["near"]}}
    some = {"before": scores["before"], "after": {"near": scores["after"]["near"]}}
    view = measurement.view(summary, some, num_bins=10, edges="right")
    assert "figures/classwise_far_before" in view.figures
    assert "figures/classwise_far_after" not in view.figures


def test_little_mass_on_the_letters_is_said_with_a_remedy(make_scores):
    little, much = (
        {"quiz": invented_row(make_scores(60), candidate_mass=mass)} for mass in (0.225, 0.925)
    )
    text = " ".join(
        printed({"states": ["before", "after"], "before": little, "after": much}).split()
    )
    assert "The letters hold less than half of the probability, 0.225 (before):" in text
    assert "the other setting of --config.prompt.chat" in text and "continuation_sum" in text
    assert "0.925 (" not in text
    assert "less than half" not in printed({"states": ["measured"], "measured": much})


def test_what_acting_above_a_confidence_keeps_is_on_the_first_screen(run, make_scores):
    result, scores = run
    above = act_above(make_scores(60, bias=3.0))
    summary = {
        **result,
        **{
            state: {split: {**row, "act_above": above} for split, row in result[state].items()}
            for state in ("before", "after")
        },
    }
    view = measurement.view(summary, scores, num_bins=10, edges="right")
    (first,) = view.first
    assert first.title == "If you act above this confidence: near (60 questions)"
    section = next(s for s in view.sections if s.title == "Acting above a confidence")
    assert [table.title.split(": ")[1] for table in section.blocks] == ["far (60 questions)"]
    for kind in ("md", "tex", "csv"):
        assert f"{above['kept'][0]:.0f}" in view.files[f"tables/thresholds.{kind}"]
    text = printed(summary)
    assert text.index("than chance explains") < text.index("≥ 50%") < text.index("near (in-domain")
    page = render(view, summary)
    assert page.index("than chance explains") < page.index("≥ 50%") < page.index('class="cards"')
    low, high = result["before"]["near"]["conf_ece_ci"]
    assert f"conf-ECE {result['before']['near']['conf_ece']:.3f} [{low:.3f}, {high:.3f}] → " in page
