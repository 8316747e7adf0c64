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
    assert "skipped too short" in text and "skipped empty" in text and "python -m x" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)  # nothing from outside


def results_heads(text):
    """Part -> the headers of its table of results."""
    found = re.findall(
        r'aria-label="Results on (\w+)"><table class="stacked"><thead>(.*?)</thead>', text
    )
    return {part: re.findall(r"<th[^>]*>(.*?)</th>", head) for part, head in found}


def test_documents_are_a_column_of_text_and_facts_share_sources(run):
    result, panels = run
    heads = results_heads(page.render(result, panels, CONFIG, ""))
    assert heads["text"][:3] == ["model", "positions", "documents"]
    assert heads["facts"][:2] == ["model", "facts"] and "documents" not in heads["facts"]
    assert len(heads["facts"]) == len(heads["text"]) - 1
    shared = {**result, "1b": {**result["1b"], "facts": {**result["1b"]["facts"], "documents": 9}}}
    heads = results_heads(page.render(shared, panels, CONFIG, ""))
    assert heads["facts"][2] == "sources"


def test_of_many_models_relations_show_conf_ece_alone(run):
    result, panels = run

    def heads(summary):
        text = page.render(summary, panels, CONFIG, "")
        section = text[text.index(">Facts by relation</h2>") :]
        section = section[: section.index("</section>")]
        return re.findall(r'<th scope="col"[^>]*>(.*?)</th>', section), section

    few, _ = heads(result)
    assert len(few) == 2 + 4 * 3 and "accuracy, 70m" in few
    labels = [f"m{i}" for i in range(5)]
    many = {k: v for k, v in result.items() if k not in result["models"]}
    many |= dict.fromkeys(labels, result["1b"])
    many["models"] = {label: {"model": label, "place": None} for label in labels}
    names, section = heads(many)
    # Wider than the page: it scrolls in its own box, with a shadow where it goes on.
    assert '<div class="scroll"' in section
    assert "right / 1.1rem 100% no-repeat scroll" in page.render(result, panels, CONFIG, "")
    assert names == ["relation", "facts", *(f"conf-ECE, {label}" for label in labels)]
    assert "tables/facts_by_group.csv holds all" in section
    first = result["1b"]["facts"]["groups"][0]
    assert section.count(f'data-v="{first["conf_ece"]:.6g}"') == 5


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
