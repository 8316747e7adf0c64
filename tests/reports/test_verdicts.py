import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports import verdicts
from calib_jax.reports.measure import null_figures
from tests.reports.conftest import build_scores


def row(value, limit, n=16, domain="out"):
    return {"conf_ece": value, "conf_ece_null_q95": limit, "n": n, "domain": domain}


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


def test_the_headline_says_what_is_chance_and_what_is_no_change():
    states = {"before": {"s": row(0.327, 0.2)}, "after": {"s": row(0.174, 0.213)}}
    changes = {"s": {"conf_ece_ci": [-0.463, 0.102]}}
    assert verdicts.of_states(states, changes) == [
        "conf-ECE on s: 0.327 (before) → 0.174 (after, no significant change: its 95% interval "
        "[-0.463, +0.102] includes 0); the last is within what 16 questions show of a perfectly "
        "calibrated model by chance, up to 0.213"
    ]
    (alone,) = verdicts.of_states({"measured": {"s": row(0.4, 0.2)}})
    assert alone == (
        "conf-ECE on s: 0.400, more than 16 questions show of a perfectly calibrated model by "
        "chance, 0.200"
    )
    # A summary of an earlier version knows of no chance, and one of two models of no change.
    assert verdicts.of_states({"m": {"s": {"conf_ece": 0.4, "n": 1}}}) == ["conf-ECE on s: 0.400"]
    both = verdicts.of_states({"m": {"s": row(0.1, 0.2)}, "o": {"s": row(0.3, 0.2)}})
    assert (
        both[0].startswith("conf-ECE on s: 0.100 (m, within what") and "0.300 (o, more" in both[0]
    )


def test_many_splits_are_counted_and_methods_are_summed_up():
    rows = {f"s{i}": row(0.1 * i, 0.25) for i in range(6)}
    said = verdicts.of_states({"m": rows})
    assert len(said) == 5 and said[-1] == "The tables hold 2 more splits"
    (text,) = verdicts.of_methods({"choice": rows})
    assert text.startswith(
        "conf-ECE by choice: 0.000 (s0, n = 16) to 0.500 (s5, n = 16); on 3 of 6"
    )
    assert text.endswith("by chance (s0, s1, s2)")


def test_a_calibrated_model_of_few_questions_is_said_to_be_within_chance():
    """From scores to words: the answers are drawn from the model's own probabilities."""
    rng = np.random.default_rng(3)
    scores = build_scores(40)
    cut = (scores.probs.cumsum(axis=1) < rng.random((40, 1))).sum(axis=1)
    scores.answers[:] = np.minimum(cut, scores.mask.sum(axis=1) - 1)
    error = float(metrics.conf_ece(scores.probs, scores.answers, scores.mask))
    chance = null_figures(scores, 10, "right", num_draws=20, seed=0)
    measured = {"n": 40, "domain": "out", "conf_ece": error, **chance}
    (said,) = verdicts.of_states({"measured": {"exam": measured}})
    assert said.startswith(f"conf-ECE on exam: {error:.3f}, within what 40 questions")
