import math

import pytest

from calib_jax.reports.study import changes, wording


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
    assert wording.change_text(here["conf_ece"], "conf_ece") == "+0.200 [+0.150, +0.250], +200.0%"
    assert wording.change_text(here["accuracy"], "accuracy") == (
        "+5.00 pts [+1.00, +10.00], +10.0%"
    )
    assert wording.change_text(changes.between(0, 0.2), "conf_ece") == "+0.200"
    assert wording.values_text(here["conf_ece"]) == "0.100 → 0.300"
    assert [wording.percent(r) for r in (16.7834, 9.98, -0.0007, math.nan)] == [
        "+1678%", "+998.0%", "-0.1%", ""
    ]  # fmt: skip


def recovered(change, ratio, pt, it):
    return changes.Change(math.nan, math.nan, change, ratio, None, None, pt, it)


@pytest.mark.parametrize(
    ("change", "metric", "text"),
    [
        (changes.between(0.4, 0.3996), "conf_ece", "-0.000, -0.1%"),
        (changes.between(0.4, 0.4004), "conf_ece", "+0.000, +0.1%"),
        (changes.between(0.4, 0.4), "conf_ece", "0.000, 0.0%"),
        (changes.between(0.5, 0.49999), "accuracy", "-0.00 pts, -0.0%"),
        # As printed: the ratio knows the way.
        (recovered(0.0, -0.001, (0, 0.5), (0, 0.5)), "conf_ece", "-0.000, -0.1%"),
    ],
)
def test_a_change_that_rounds_to_zero_keeps_its_sign(change, metric, text):
    assert wording.change_text(change, metric) == text


@pytest.mark.parametrize(
    ("pt", "it", "text"),
    [
        ((0.4221, 0.4249), (0.5981, 0.601), "0.422–0.425 → 0.598–0.601"),
        ((0.001, 0.001), (0.0, 1.0), "0.001 → –"),
        ((0.0, 0.3), (0.943, 0.9984), "0.000–0.300 → 0.943–0.999"),
    ],
)
def test_only_what_the_rounding_determines_is_printed(pt, it, text):
    assert wording.values_text(recovered(0.176, 0.4, pt, it)) == text


def test_only_a_whole_interval_is_better_or_worse(cells):
    verdicts = {
        pair: {m: wording.verdict(c, m) for m, c in by_task["t"]["choice"].changes.items()}
        for pair, by_task in cells.items()
    }
    # The one-vs-rest form rises with sharpness alone: never a verdict.
    assert verdicts["a_1|x"] == {
        "conf_ece": "worse", "cw_ece": "worse", "sce_ovr": "", "accuracy": "better"
    }  # fmt: skip
    assert verdicts["b"]["conf_ece"] == "" and verdicts["c"]["conf_ece"] == ""


def test_the_headline_says_whose_figures_they_are(cells):
    said = (
        "by choice ECE in 1 of 3 (0 significantly; 1 significantly higher) and SCE in 0 of 3 "
        "(0 significantly; 3 significantly higher)"
    )
    assert wording.headline(cells) == f"Lower after alignment: {said}"
    files = {"a.csv": "cw_ece", "b.csv": "sce_ovr"}
    assert wording.headline(cells, files) == (
        "Published figures of a.csv (SCE), b.csv (SCE, one-vs-rest), not measured here: "
        f"lower after alignment: {said}"
    )
