import pytest

from calib_jax.reports import verdicts


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((-0.463, 0.102), "no significant change"),
        ((0.0, 0.2), "no significant change"),
        ((-0.2, 0.0), "no significant change"),
        ((-0.2, -1e-9), "significantly lower"),
        ((0.01, 0.2), "significantly higher"),
        ((None, None), ""),
        ((float("nan"), float("nan")), ""),
        (None, ""),
    ],
)
def test_a_change_is_one_where_its_whole_interval_says_so(ends, said):
    assert verdicts.short(ends) == said and verdicts.of_change(ends).startswith(said)


def test_a_factor_is_held_against_one():
    assert verdicts.short((0.9, 1.1), null=1.0) == "no significant change"
    assert verdicts.of_change((0.5, 0.7), 1.0, signed=False).endswith("by × [0.500, 0.700]")


def test_chance_and_the_course_of_a_figure():
    row = {"n": 16, "conf_ece": 0.174, "conf_ece_null_q95": 0.213}
    chance = verdicts.of_chance(row, "answers")
    assert chance.startswith("within what 16 answers show") and chance.endswith("up to 0.213")
    assert verdicts.of_chance({**row, "conf_ece_null_q95": None}) == ""
    change = {"after": verdicts.of_change((-0.2, 0.1))}
    text = verdicts.course("conf-ECE on s", {"before": 0.3, "after": 0.174}, change, after=chance)
    assert text == (
        "conf-ECE on s: 0.300 (before) → 0.174 (after, no significant change: its 95% interval "
        "[-0.200, +0.100] includes 0); the last is within what 16 answers show of a perfectly "
        "calibrated model by chance, up to 0.213"
    )
    assert verdicts.course("conf-ECE on s", {"m": 0.4}, {}) == "conf-ECE on s: 0.400"
