"""report.html of a series."""

import re
from xml.etree import ElementTree

from calib_jax.reports import content
from calib_jax.reports.lifecycle import page, tables

CONFIG = {"em": {"num_bins": 10, "edges": "right"}}


def test_the_page_holds_results_curves_diagrams_and_relations(run):
    result, panels = run
    text = page.render(result, panels, CONFIG, "python -m x")
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert titles == [
        "Results", "Curves", "Reliability", "Facts by relation", "Data", "Models",
        "How to get this again",
    ]  # fmt: skip
    assert text.count("<svg") == 1 + 2 * 3
    first, last = (content.number(result[label]["text"]["conf_ece"]) for label in ("70m", "12b"))
    assert f"on text: {first} (70m) → {last} (12b)" in text
    assert "P2 &lt;b&gt;" in text and "P2 <b>" not in text
    assert "bootstrap over documents, each with all of its positions" in text
    assert "skipped too short" in text and "python -m x" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)  # nothing from outside


def test_every_svg_is_well_formed_and_ids_are_used_once(run):
    result, panels = run
    text = page.render(result, panels, CONFIG, "")
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawn)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_one_model_and_no_relations(run):
    result, panels = run
    alone = {k: v for k, v in result.items() if k not in ("1b", "12b")}
    alone["models"] = {"70m": result["models"]["70m"]}
    alone["70m"] = {"text": result["70m"]["text"]}
    shown = {"text": {"70m": panels["text"]["70m"]}}
    text = page.render(alone, shown, CONFIG, "")
    assert "<h1>Calibration of 70m</h1>" in text and ">Curves<" not in text
    assert "by relation" not in text and tables.parts_of(tables.rows_of(alone)) == ["text"]
