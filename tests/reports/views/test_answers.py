"""What is shown of free answers: a row per reading, and nothing of letters or guessers."""

import numpy as np
import pytest

from calib_jax.confidence.scores import of_confidences
from calib_jax.reports import measure
from calib_jax.reports.states import by_reading
from calib_jax.reports.views import answers, wrong

RIGHT = np.arange(12) % 3 == 0
READ = {"p_true": np.linspace(0.05, 0.95, 12), "verbalised": np.full(12, 0.5)}


@pytest.fixture(scope="module")
def found():
    names = {
        "questions": tuple(f"Item {i}?" for i in range(12)),
        "choices": tuple((f"answer {i}",) for i in range(12)),
    }
    ids = [f"q{i}" for i in range(12)]
    scores = {m: {"mine": of_confidences(c, RIGHT, ids, m, **names)} for m, c in READ.items()}
    rows = {
        m: {split: measure.measure(s, "", num_resamples=20) for split, s in by.items()}
        for m, by in scores.items()
    }
    data = {"answered": 12, "asked": 14, "cut_at_max_new_tokens": 1, "max_new_tokens": 5}
    return {**by_reading(rows), "data": data, "model": "tiny", "method": "answers"}, scores


def test_a_row_per_reading(found):
    table = answers.table(found[0])
    assert [row.cells[0].text for row in table.rows] == ["p true", "verbalised"]
    constant = table.rows[1].cells
    assert constant[1].text == "0.500" and constant[4].text == "0.250"  # mean confidence, Brier
    # The constant 1/3 as the confidence in each: 1/3 · 2/3, and its entropy.
    assert "NLL 0.637, Brier 0.222" in table.notes[0] and "4 of 12" in table.notes[1]


def test_nothing_is_said_of_letters(found):
    summary, scores = found
    shown = answers.view(summary, scores, num_bins=10, edges="right")
    titles = [section.title for section in shown.sections]
    assert titles[0] == "Confidences of free answers" and "Letter by letter" not in titles
    assert not any("classwise" in path for path in shown.figures)
    text = shown.files["tables/answers.md"] + shown.files["tables/metrics.md"]
    assert "guesser" not in text and "letter" not in text


def test_wrong_answers_are_named_by_their_texts(found):
    summary, scores = found
    surest = wrong.most_wrong(scores["p_true"])[0]
    item = wrong._item(scores["p_true"]["mine"], surest)
    assert (item["chosen"], item["right"], item["options"]) == ("answer 11", "another answer", [])
