"""The diagrams of an evaluation: every split and state, its figures and the letters chosen."""

import dataclasses
import io

import pytest
from PIL import Image

from calib_jax.reports.figures import canvas, evaluation


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_figure_states_the_figures_and_the_letters(run):
    result, scores = run
    states = {s: result[s] for s in ("before", "after")}
    figure = evaluation.draw(states, scores)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    row = result["before"]["near"]
    low, high = row["conf_ece_ci"]
    # In-domain first, although it is listed last.
    assert f"{row['conf_ece']:.3f} [{low:.3f}, {high:.3f}]" in texts[0]
    for key in ("cw_ece", "accuracy", "mean_confidence"):
        assert f" {row[key]:.3f}" in texts[0]
    assert len(texts) == 4
    assert [t.get_text() for t in figure.texts] == [
        "near",
        "in-domain · 60 questions",
        "far",
        "out-of-domain · 60 questions",
    ]
    letters = [ax for ax in figure.axes if ax.get_title() == "letters chosen"]
    heights = [bar.get_height() for bar in letters[0].containers[0]]
    assert heights == pytest.approx([n / row["n"] for n in row["letter_counts"]])


@pytest.mark.parametrize("skilled", [False, True])
@pytest.mark.parametrize("states", [("before",), ("before", "after")])
def test_no_text_overlaps_and_all_lies_inside(run, states, skilled, check_texts):
    result, scores = run
    if skilled:  # under-confident bars reach up to the figures above them
        scores = {
            s: {k: dataclasses.replace(v, answers=v.predictions) for k, v in by_split.items()}
            for s, by_split in scores.items()
        }
    check_texts(evaluation.draw({s: result[s] for s in states}, scores, title="A title"))


SPLITS = [f"task_{i}" for i in range(8)]


@pytest.mark.parametrize("names", [("choice",), ("choice", "continuation_sum", "continuation_min")])
def test_many_splits_get_small_diagrams_and_each_its_place(make_scores, names, check_texts):
    scores = {
        name: {split: make_scores(40, seed=7 * i + j) for j, split in enumerate(SPLITS)}
        for i, name in enumerate(names)
    }
    rows = {
        name: {
            s: {"conf_ece": 0.1234 + j / 100, "accuracy": 0.5, "n": 40}
            for j, s in enumerate(SPLITS)
        }
        for name in names
    }
    # One that was not measured leaves its place empty.
    del rows[names[-1]]["task_3"]
    figure = evaluation.draw(rows, scores, title="Tiny")
    if len(names) == 1:
        assert titles(figure) == [split for split in SPLITS if split != "task_3"]
    else:
        assert titles(figure) == [n for s in SPLITS for n in names[: 2 if s == "task_3" else 3]]
        headings = [text.get_text() for text in figure.texts[1::2]]
        assert headings == SPLITS
    assert figure.axes[-1].texts[0].get_text() == "conf-ECE 0.193\naccuracy 0.500"
    check_texts(figure)


def test_classes_have_no_letters(run):
    result, scores = run
    row = {**result["before"]["near"], "classes": ["yes", "no"]}
    figure = evaluation.draw({"before": {"near": row}}, scores)
    assert "letters chosen" not in titles(figure)


def test_the_same_figure_gives_the_same_svg(run):
    result, scores = run
    figure = evaluation.draw({"before": {"near": result["before"]["near"]}}, scores)
    image = canvas.svg(figure)
    assert image.lstrip().startswith(b"<?xml") and image == canvas.svg(figure)
    Image.open(io.BytesIO(canvas.png(figure, dpi=50))).verify()


def test_leaves_no_pyplot_figure_behind(run):
    import matplotlib.pyplot as plt

    result, scores = run
    evaluation.draw({"before": result["before"]}, scores)
    assert plt.get_fignums() == []
