"""The view of a series over scale: tables, groups, what was skipped, page and files."""

import csv
import io
import re
from xml.etree import ElementTree

import pytest

from calib_jax.reports.page.render import render
from calib_jax.reports.result import write
from calib_jax.reports.views import lifecycle
from calib_jax.runs.run import show_if_finished
from tests.reports.views.invented import panel, row, shown

PLACES = {"70m": 70e6, "1b": 1e9, "12b": 12e9}
BINS = {"num_bins": 10, "edges": "right"}


def figures(value, unit="text"):
    found = row(0.04, conf_ece=value, nll=5.9, accuracy=0.5, mean_confidence=0.5 + value)
    found |= {"n": 120, "documents": 40 if unit == "text" else 120, "conf_ece_null_q95": 0.1}
    found |= {"overconfidence": value, "intervals": f"bootstrap over {unit}"}
    return found | {"counts": {"used": 40, "skipped_too_short": 2}}


def group(name, value):
    return {
        "group": name,
        "n": 60,
        "accuracy": value,
        "mean_confidence": 0.6,
        "conf_ece": value / 2,
        "conf_ece_null_q95": 0.07,
    }


def summary_of(models=tuple(PLACES)):
    by_part = {}
    for i, model in enumerate(models):
        value = 0.3 / (i + 1)
        groups = [group("P1", value), group("P2 <b>", 0.25)]
        by_part[model] = {"text": figures(value), "facts": {**figures(value, "facts")}}
        by_part[model]["facts"]["groups"] = groups
    return {
        "job": "lifecycle",
        "axis": "scale",
        "models": {m: {"model": f"x/{m}", "place": PLACES.get(m), "setting": ""} for m in models},
        **by_part,
        "data": {"text": {"source": "text.txt", "skipped_empty": 3}},
    }


def page_of(summary):
    panels = {
        part: {model: panel(summary[model][part]) for model in summary["models"]}
        for part in ("text", "facts")
    }
    view = lifecycle.view(summary, panels, **BINS)
    return view, render(view, summary, {}, "python -m x")


def parts(summary):
    return {part.name: part for part in lifecycle.parts(summary)}


def labels(table):
    return [column.label for column in table.columns]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_console_has_a_row_for_each_part_and_model(width):
    text = shown(lifecycle.console(summary_of()), width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert len(re.findall(r"\n *70m ", text)) == len(re.findall(r"\n *12b ", text)) == 2
    assert ("0.300 [0.260, 0.340]" in text) == (width == 200)
    assert ("[0.260, 0.340]" in text) == (width >= 120)
    assert "+0.300" in text and "0.100" in text and "5.900" in text


def test_sentences_are_of_the_ends_of_the_series():
    text, facts = lifecycle.sentences(lifecycle.parts(summary_of()))
    assert text == (
        "conf-ECE on text: 0.300 (70m) → 0.100 (12b); the last is within what 120 answers show of "
        "a perfectly calibrated model by chance, up to 0.100; their 95% intervals do not overlap"
    )
    summary = summary_of()
    summary["12b"]["facts"]["conf_ece_ci"] = [0.1, 0.27]
    assert lifecycle.sentences(lifecycle.parts(summary))[1].endswith("intervals overlap")
    (alone,) = lifecycle.sentences([parts(summary_of(["1b"]))["text"]])
    assert alone.startswith("conf-ECE on text: 0.300, more than 120 answers")


def test_documents_are_a_column_of_text_and_facts_share_sources():
    summary = summary_of()
    of_text, of_facts = (lifecycle.table(part) for part in lifecycle.parts(summary))
    assert labels(of_text)[:3] == ["model", "positions", "documents"]
    assert labels(of_facts)[:3] == ["model", "facts", "conf-ECE"]
    assert of_text.notes == ("Intervals: bootstrap over text.",)
    summary["1b"]["facts"]["documents"] = 9
    shared = lifecycle.table(parts(summary)["facts"])
    assert labels(shared)[:3] == ["model", "facts", "sources"]
    assert [line.cells[2].text for line in shared.rows] == ["120", "9", "120"]


def test_what_was_skipped_is_said_with_its_reason():
    summary = summary_of()
    summary["data"]["facts"] = {"skipped_empty": 0}
    for model, number in zip(summary["models"], (0, 1, 4), strict=True):
        summary[model]["facts"]["counts"] = {"skipped_inside_token": number}
    assert lifecycle.skipped_lines(summary) == [
        "Text: documents skipped: 3 empty; 2 too short.",
        "Facts skipped: 0 to 4 whose span begins inside a token.",
    ]
    assert "Text: documents skipped: 3 empty; 2 too short." in shown(lifecycle.console(summary))
    for model in summary["models"]:
        for one in summary[model].values():
            one["counts"] = {}
    assert lifecycle.skipped_lines({**summary, "data": {}}) == []


def test_little_mass_is_said_with_its_remedy():
    summary = summary_of()
    summary["1b"]["exam"] = {**figures(0.1), "method": "choice", "candidate_mass": 0.006}
    text = " ".join(shown(lifecycle.console(summary)).split())
    assert "The letters hold less than half of the probability, 0.006 (1b, exam)" in text


def test_every_figure_is_in_markdown_latex_and_csv():
    view, _ = page_of(summary_of())
    assert set(view.files) == {
        "tables/lifecycle.csv",
        "tables/lifecycle.md",
        "tables/lifecycle.tex",
        "tables/facts_by_group.csv",
    }
    markdown = view.files["tables/lifecycle.md"]
    assert markdown.count("\n| 70m |") == markdown.count("\n| 12b |") == 2
    assert "**facts**" in markdown and "0.300 [0.260, 0.340]" in markdown
    rows = list(csv.DictReader(io.StringIO(view.files["tables/lifecycle.csv"])))
    assert [(line["part"], line["model"]) for line in rows] == [
        (part, model) for part in ("text", "facts") for model in PLACES
    ]
    first = rows[0]
    assert first["conf_ece"] == "0.3" and first["conf_ece_high"] == "0.33999999999999997"
    assert float(first["place"]) == 70e6 and first["documents"] == "40"
    assert "conf_ece_null_q95_low" not in first and "overconfidence" in first
    groups = list(csv.DictReader(io.StringIO(view.files["tables/facts_by_group.csv"])))
    assert [line["group"] for line in groups] == ["P1", "P2 <b>"] * 3
    assert groups[0]["accuracy"] == "0.3" and groups[0]["conf_ece"] == "0.15"


def test_every_model_and_part_has_its_diagram():
    view, _ = page_of(summary_of())
    assert list(view.figures) == ["figures/curves"] + [
        f"figures/{name}"
        for part in ("text", "facts")
        for name in (f"reliability_{part}", *(f"reliability_{part}_{m}" for m in PLACES))
    ]
    titles = [ax.get_title() for ax in view.figures["figures/reliability_text"]().axes]
    assert [title for title in titles if title][:3] == ["70m", "1b", "12b"]


def test_the_page_holds_results_curves_diagrams_and_relations():
    _, text = page_of(summary_of())
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == [
        "Results",
        "Curves",
        "Reliability",
        "Facts by relation",
        "Data",
        "Models",
        "How to get this again",
    ]
    assert text.count("<svg") == 1 + 2 * 3
    assert "Reliability diagram of text, 70m: conf-ECE 0.300" in text
    assert "P2 &lt;b&gt;" in text and "P2 <b>" not in text
    assert "Intervals: bootstrap over facts." in text and "Darkest: 100% of the positions" in text
    assert "skipped too short" in text and "skipped empty" in text and "python -m x" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)  # nothing from outside
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawn)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_relations_can_be_sorted_and_of_many_models_show_conf_ece_alone():
    few = lifecycle.groups(parts(summary_of())["facts"])
    assert few.sortable and len(few.columns) == 2 + 4 * 3
    assert labels(few)[:3] == ["relation", "facts", "conf-ECE, 70m"]
    assert "accuracy, 12b" in labels(few)
    many = lifecycle.groups(parts(summary_of([f"m{i}" for i in range(5)]))["facts"])
    assert labels(many) == ["relation", "facts", *(f"conf-ECE, m{i}" for i in range(5))]
    assert "conf-ECE alone; tables/facts_by_group.csv holds all" in many.notes[0]
    assert many.rows[0].cells[2].value == 0.15
    summary = summary_of()
    del summary["1b"]["facts"]["groups"][0]
    summary["12b"]["facts"]["groups"][0]["n"] = 55
    first = lifecycle.groups(parts(summary)["facts"]).rows[0].cells
    assert first[1].text == "55–60" and first[1].value == 60
    assert (first[3].text, first[3].value) == ("", None)
    assert lifecycle.groups(parts(summary)["text"]) is None


def test_one_model_and_no_relations():
    summary = summary_of(["70m"])
    del summary["70m"]["facts"]
    view = lifecycle.view(summary, {"text": {"70m": panel(summary["70m"]["text"])}}, **BINS)
    assert view.title == "Calibration of 70m"
    assert [section.title for section in view.sections] == [
        "Results",
        "Reliability",
        "Data",
        "Models",
    ]
    assert list(view.figures) == ["figures/reliability_text_70m"]


def test_a_finished_run_shows_its_tables_again(tmp_path, capsys):
    write(tmp_path / "summary.json", summary_of())
    assert show_if_finished(tmp_path)
    said = capsys.readouterr().out
    assert "is finished" in said and "over-conf." in said and len(re.findall(r"\n *12b", said)) == 2
