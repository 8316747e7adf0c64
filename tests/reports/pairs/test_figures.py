"""The tables: a change as a column beside one model, as a table beneath several."""

import io

import pytest
import rich.console

from calib_jax.reports.alignment import tables


def row(value, **more):
    figures = {"accuracy": value, "mean_margin": 10 * value, **more}
    return {"n": 40, **figures, **{f"{k}_ci": [v - 0.1, v + 0.1] for k, v in figures.items()}}


def make_summary(labels):
    names = ["before", *labels]
    pairs = {name: row(0.5 + i / 10) for i, name in enumerate(names)}
    text = {name: {"n": 8, "nll": 2.0, "nll_ci": [1.9, 2.1], "perplexity": 7.39} for name in names}
    return {
        "pairs": pairs,
        "text": text,
        "beta": 0.1,
        "change": {
            "pairs": {name: row(0.2) for name in labels},
            "text": {
                name: {
                    "nll": 0.1,
                    "nll_ci": [0.05, 0.15],
                    "perplexity_ratio": 1.1,
                    "perplexity_ratio_ci": [1.05, 1.16],
                }
                for name in labels
            },
        },
        "data": {"text": {"window": 64}},
    }


def test_one_model_after():
    pairs, text = tables.sections(make_summary(["cft"]))
    assert pairs.header == ("before", "cft", "cft - before")
    accuracy = pairs.rows[0].cells
    assert [str(cell) for cell in accuracy] == [
        "0.500 [0.400, 0.600]",
        "0.600 [0.500, 0.700]",
        "+0.200 [+0.100, +0.300]",
    ]
    assert accuracy[2].verdict == "better"
    perplexity = text.rows[0].cells[2]
    # A factor above 1 is a loss; below 1 would be a gain.
    assert str(perplexity) == "× 1.100 [1.050, 1.160]" and perplexity.verdict == "worse"


def test_several_models_after():
    found = tables.sections(make_summary(["cft", "rcft"]))
    assert [section.title for section in found] == [
        "pairs (40 pairs)",
        "pairs: change from before",
        "text (8 documents)",
        "text: change from before",
    ]
    assert found[0].header == ("before", "cft", "rcft") and found[1].header == ("cft", "rcft")
    assert str(found[1].rows[0].cells[1]) == "+0.200 [+0.100, +0.300]"


@pytest.mark.parametrize("labels", [["cft"], ["cft", "rcft"]])
def test_ways_out(labels, tmp_path):
    summary = make_summary(labels)
    out = io.StringIO()
    tables.show_summary(summary, rich.console.Console(file=out, width=140))
    assert "preference accuracy" in out.getvalue() and "windows of 64 tokens" in out.getvalue()
    tables.write(tmp_path, summary)
    text = (tmp_path / "alignment.md").read_text()
    assert "| preference accuracy ↑ | 0.500 " in text
    if len(labels) > 1:  # changes stand under the models that they are of
        assert "|  | cft | rcft |\n|---|---:|---:|\n| **pairs: change from before** | | |" in text
    lines = (tmp_path / "alignment.csv").read_text().splitlines()
    assert lines[0].startswith("part,model,figure,value,low,high,change")
    assert "text,cft,perplexity,7.39,,,1.1,1.05,1.16" in lines
