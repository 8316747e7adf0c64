import dataclasses
import math

import pytest

from calib_jax.reports.study import changes, sentences


@pytest.fixture(scope="module")
def cells():
    def cell(ece, accuracy, interval=None):
        return changes.Cell(
            {
                "conf_ece": changes.between(*ece, interval),
                "cw_ece": changes.between(0.2, 0.3, (0.05, 0.15)),
                "sce_ovr": changes.between(0.2, 0.4, (0.1, 0.3)),
                "accuracy": changes.between(*accuracy, (0.01, 0.1)),
            }
        )

    return {
        "a_1|x": {"t": {"choice": cell((0.1, 0.3), (0.5, 0.55), (0.15, 0.25))}},
        "b": {"t": {"choice": cell((0.0, 0.2), (0.5, 0.4))}},
        "c": {"t": {"choice": cell((0.2, 0.1), (0.5, 0.55), (-0.2, 0.01))}},
    }


def test_how_changes_are_written(cells):
    here = cells["a_1|x"]["t"]["choice"].changes
    ece, accuracy = here["conf_ece"], here["accuracy"]
    assert sentences.with_ratio(ece, "conf_ece") == "+0.200 (+200.0%)"
    assert sentences.interval_text(ece, "conf_ece") == "[+0.150, +0.250]"
    assert sentences.with_ratio(accuracy, "accuracy") == "+5.00 pts (+10.0%)"
    assert sentences.interval_text(accuracy, "accuracy") == "[+1.00, +10.00]"
    assert sentences.with_ratio(changes.between(0, 0.2), "conf_ece") == "+0.200"
    assert sentences.with_ratio(recovered(math.nan, 0.1, None, None), "accuracy") == "– (+10.0%)"
    assert sentences.values_text(ece) == "0.100 → 0.300"
    assert [sentences.ratio_text(r) for r in (16.7834, 9.98, -0.0007, math.nan)] == [
        "+1678%",
        "+998.0%",
        "-0.1%",
        "",
    ]


def recovered(change, ratio, pt, it):
    return changes.Change(math.nan, math.nan, change, ratio, None, None, pt, it)


@pytest.mark.parametrize(
    ("change", "metric", "text"),
    [
        (changes.between(0.4, 0.3996), "conf_ece", "-0.000 (-0.1%)"),
        (changes.between(0.4, 0.4004), "conf_ece", "+0.000 (+0.1%)"),
        (changes.between(0.4, 0.4), "conf_ece", "0.000 (0.0%)"),
        (changes.between(0.5, 0.49999), "accuracy", "-0.00 pts (-0.0%)"),
        # As printed: the ratio knows the way.
        (recovered(0.0, -0.001, (0, 0.5), (0, 0.5)), "conf_ece", "-0.000 (-0.1%)"),
    ],
)
def test_a_change_that_rounds_to_zero_keeps_its_sign(change, metric, text):
    assert sentences.with_ratio(change, metric) == text


@pytest.mark.parametrize(
    ("pt", "it", "text"),
    [
        ((0.4221, 0.4249), (0.5981, 0.601), "0.422–0.425 → 0.598–0.601"),
        ((0.001, 0.001), (0.0, 1.0), "0.001 → –"),
        ((0.0, 0.3), (0.943, 0.9984), "0.000–0.300 → 0.943–0.999"),
    ],
)
def test_only_what_the_rounding_determines_is_printed(pt, it, text):
    assert sentences.values_text(recovered(0.176, 0.4, pt, it)) == text


def test_the_headline_says_whose_figures_they_are(cells):
    said = (
        "by choice ECE in 1 of 3 (0 significantly; 1 significantly higher) and SCE in 0 of 3 "
        "(0 significantly; 3 significantly higher)"
    )
    assert sentences.headline(cells) == f"Lower after alignment: {said}"
    files = {"a.csv": "cw_ece", "b.csv": "sce_ovr"}
    assert sentences.headline(cells, files) == (
        "Published figures of a.csv (SCE), b.csv (SCE, one-vs-rest), not measured here: "
        f"lower after alignment: {said}"
    )


def test_notes_say_what_a_reader_must_know(cells):
    dropped = {
        pair: {"t": {"choice": dataclasses.replace(by_task["t"]["choice"], dropped=7)}}
        for pair, by_task in cells.items()
    }
    notes = " ".join(sentences.notes(dropped, ties=True))
    assert "share a rank" in notes and "1 change has no ratio" in notes
    assert "t, choice: 7 questions are left out" in notes
    plain = changes.Cell({"conf_ece": changes.between(0.1, 0.2)})
    assert sentences.notes({"a": {"t": {"choice": plain}}}, ties=False) == []


def test_the_median_ratio_leaves_out_what_has_none(cells):
    assert sentences.median_text(cells, "choice", "conf_ece") == "+75.0%"
    nothing = {"a": {"t": {"choice": changes.Cell({"conf_ece": changes.between(0.0, 0.2)})}}}
    assert sentences.median_text(nothing, "choice", "conf_ece") == "–"
