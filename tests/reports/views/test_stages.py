"""The view of the stages: tables per split and set of pairs, sentences, files."""

import re

from calib_jax.reports.page.render import render
from calib_jax.reports.views import stages
from tests.reports.views.invented import panel, row, shown


def letters(value, domain="out"):
    figures = row(conf_ece=value, cw_ece=0.2, accuracy=0.5, mean_confidence=0.6, nll=1.3)
    null = {"conf_ece_null_q95": 0.15, "cw_ece_null_q95": 0.1, "share_above_090": 0.25}
    top = {"top_letter_share": 0.464, "top_letter": "B", "overconfidence": 0.1}
    return {"n": 28, "domain": domain, **figures, **null, **top}


def summary_of(names=("base", "dpo", "cft")):
    values = dict(zip(names, (0.1, 0.4, 0.12), strict=False))
    ratios = row(mean_ratio=0.6, mean_excess=-0.1) | {"n": 24, "preference_rate": 0.75}
    splits = {"pool": 28, "a": 16, "b": 12}
    return {
        "stages": {name: {"model": f"x/{name}"} for name in names},
        "letters": {
            name: {split: {**letters(v), "n": n} for split, n in splits.items()}
            for name, v in values.items()
        },
        "drawn": {"pool": {"domain": "out", "splits": ["a", "b"]}},
        "pairs": {"pairs_trained": dict.fromkeys(names, ratios)},
        "change": {
            name: {
                **{split: row(conf_ece=0.3, accuracy=0.0) for split in splits},
                "pairs_trained": row(mean_ratio=0.2),
            }
            for name in names[1:]
        },
        "data": {"seed": 0},
    }


def test_every_split_and_set_has_its_figures_and_its_changes():
    found = stages.tables_of(summary_of())
    assert [table.title for table in found] == [
        "pool: a + b (28 questions)",
        "pool: changed by each stage",
        "a (out-of-domain, 16 questions)",
        "a: changed by each stage",
        "b (out-of-domain, 12 questions)",
        "b: changed by each stage",
        "pairs_trained (24 pairs)",
        "pairs_trained: changed by each stage",
    ]
    figures, changes = found[:2]
    by_name = {r.cells[0].text: [str(cell) for cell in r.cells[1:]] for r in figures.rows}
    assert by_name["conf-ECE ↓"][1] == "0.400 [0.300, 0.500]"
    assert by_name["by chance (95%)"] == ["0.150"] * 3
    assert by_name["less accuracy"] == ["+0.100"] * 3
    assert by_name["most-chosen letter"] == ["46% B"] * 3
    assert [column.label for column in changes.columns] == ["", "by dpo", "by cft"]
    assert [r.cells[1].verdict for r in changes.rows] == ["worse", ""]
    ratios = {r.cells[0].text for r in found[-2].rows}
    assert ratios == {"policy ratio", "preference rate", "ratio less rate"}


def test_of_two_stages_the_change_is_a_column_and_of_one_there_is_none():
    first = stages.tables_of(summary_of(("base", "dpo")))[0]
    assert [column.label for column in first.columns] == ["", "base", "dpo", "by dpo"]
    assert [len(line.cells) for line in first.rows] == [4] * len(first.rows)
    (alone, *_) = stages.tables_of(summary_of(("base",)))
    assert [column.label for column in alone.columns] == ["", "base"]


def test_classes_are_not_called_letters():
    summary = summary_of()
    for by_split in summary["letters"].values():
        by_split["a"] |= {"classes": ["yes", "no"], "top_letter": "yes"}
    names = {r.cells[0].text for r in stages.tables_of(summary)[2].rows}
    assert "most-chosen class" in names and "most-chosen letter" not in names


def test_sentences_are_of_what_is_drawn_and_of_pairs():
    plain, *said = stages.sentences(summary_of())
    assert plain.startswith("On 28 questions of pool: base says it is 60% sure and is right 50%")
    assert "; for dpo, it is right about as often as it says on average, but not" in plain
    assert said == [
        "conf-ECE on pool: 0.100 (base) → 0.400 (dpo, significantly higher: by [+0.200, +0.400]) → "
        "0.120 (cft, significantly higher: by [+0.200, +0.400]); the last is within what 28 "
        "questions show of a perfectly calibrated model by chance, up to 0.150",
        "policy ratio of pairs trained: 0.600 (base) → 0.600 (dpo, significantly higher: by "
        "[+0.100, +0.300]) → 0.600 (cft, significantly higher: by [+0.100, +0.300])",
    ]
    # A summary of an earlier version does not tell what was pooled.
    earlier = {k: v for k, v in summary_of().items() if k != "drawn"}
    assert len(stages.sentences(earlier)) == 7


def test_console_files_and_page_hold_the_same():
    summary = summary_of()
    panels = {"pool": {name: panel(rows["pool"]) for name, rows in summary["letters"].items()}}
    view = stages.view(summary, panels)
    text = shown(view.console, 120)
    assert "46% B" in text and "by dpo" in text and "A change is from the stage before" in text
    assert "| by chance (95%) | 0.150 |" in view.files["tables/stages.md"]
    assert "pool,dpo,conf_ece,0.4,0.3" in view.files["tables/stages.csv"]
    assert view.files["tables/stages.csv"].startswith("part,stage,figure,value,low,high,change")
    assert list(view.figures) == ["figures/stages"]
    assert view.figures["figures/stages"].args[2] == {"pool": "out-of-domain, a + b"}
    page = render(view, summary)
    assert "stages · base → dpo → cft" in page and page.count("<svg") == 1
    assert re.search(r"Reliability diagrams of every stage, .* up to 0.150\.", page)
