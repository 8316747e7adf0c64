"""The view of what alignment is kept, and the tables of pairs before and after a training."""

import pytest

from calib_jax.reports.views import alignment, pairs
from tests.reports.views.invented import row, shown


def of_pairs(value, **more):
    return {"n": 40, **row(accuracy=value, mean_margin=10 * value, **more)}


def summary_of(models):
    names = ["before", *models]
    moved = {"nll": 0.1, "nll_ci": [0.05, 0.15], "perplexity_ratio": 1.1}
    moved["perplexity_ratio_ci"] = [1.05, 1.16]
    return {
        "models": {name: {"model": f"x/{name}|y"} for name in names},
        "pairs": {name: of_pairs(0.5 + i / 10) for i, name in enumerate(names)},
        "text": {name: {"n": 8, **row(nll=2.0), "perplexity": 7.39} for name in names},
        "beta": 0.25,
        "change": {
            "pairs": {name: of_pairs(0.2) for name in models},
            "text": dict.fromkeys(models, moved),
        },
        "data": {"text": {"window": 64}},
    }


def test_every_part_has_a_title_with_its_size():
    titles = [table.title for table in alignment.tables_of(summary_of(["cft", "rcft"]))]
    assert titles == [
        "pairs (40 pairs)",
        "pairs: change from before",
        "text (8 documents)",
        "text: change from before",
    ]
    one = [table.title for table in alignment.tables_of(summary_of(["cft"]))]
    assert one == ["pairs (40 pairs)", "text (8 documents)"]


@pytest.mark.parametrize("width", [80, 160])
def test_the_console_says_the_result_first_and_explains_it(width):
    text = " ".join(shown(alignment.console(summary_of(["cft"])), width).split())
    assert text.startswith(
        "preference accuracy: 0.500 (before); 0.600 (cft, significantly higher: by [+0.100, "
        "+0.300]). perplexity: 7.390 (before); 7.390 (cft, significantly higher: by × [1.050, "
        "1.160])."
    )
    assert "Windows of 64 tokens" in text and "at least 32 others" in text
    assert "Policy ratio: pi(chosen)" in text and "Reward margin" not in text
    assert "× 1.100" in text and "changes are paired" in text


def test_beta_is_said_where_rewards_are_shown():
    summary = summary_of(["cft"])
    summary["pairs"]["cft"] |= row(mean_reward_margin=0.3)
    text = shown(alignment.console(summary))
    assert "mean reward margin" in text and "beta = 0.25" in text


def test_files_and_sections_are_of_what_was_asked():
    scores, losses = {"before": 1, "cft": 2}, {"before": 3, "cft": 4}  # drawn by nobody here
    view = alignment.view(summary_of(["cft"]), scores, losses)
    assert list(view.figures) == ["figures/margins", "figures/text"]
    assert [section.title for section in view.sections] == [
        "Results",
        "Margins",
        "Text",
        "Data",
        "Models",
    ]
    assert list(view.files) == [f"tables/alignment.{kind}" for kind in ("md", "tex", "csv")]
    assert "| preference accuracy ↑ | 0.500 [0.400, 0.600] |" in view.files["tables/alignment.md"]
    assert r"per token $\downarrow$" in view.files["tables/alignment.tex"]
    assert "pairs,cft,accuracy,0.6," in view.files["tables/alignment.csv"]
    # Of text alone there is no curve of one model, and no table of pairs.
    summary = {**summary_of([]), "pairs": {}}
    summary["change"] = {"pairs": {}, "text": {}}
    view = alignment.view(summary, {}, {"before": 3})
    assert not view.figures and view.said == ["perplexity: 7.390"]
    assert "pairs" not in view.files["tables/alignment.csv"]


def test_preferences_have_a_table_for_every_set_and_their_notes_once():
    def one(n):
        rows = {"before": of_pairs(0.5), "after": of_pairs(0.7, mean_reward_margin=0.2)}
        rows = {state: {**row, "n": n} for state, row in rows.items()}
        return {"beta": 0.1, "pairs": rows, "change": {"pairs": {"after": of_pairs(0.2)}}}

    first, last = pairs.preferences_tables({"held_out": one(1200), "training": one(40)})
    assert first.title == "held-out preference pairs (1,200)" and not first.notes
    assert last.title == "preference pairs that were trained on (40)"
    assert "beta = 0.1" in last.notes[-1] and len(last.notes) == 3
    assert [column.label for column in first.columns] == ["", "before", "after", "after − before"]
    assert pairs.preferences_tables({}) == []
