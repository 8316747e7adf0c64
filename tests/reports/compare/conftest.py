"""Invented comparisons."""

import functools

import numpy as np
import pytest

from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue
from calib_jax.reports.compare.comparison import Comparison, Estimate, Part, Versus
from calib_jax.reports.measure import uniform


class Few:
    """A catalogue of fewer metrics, which compile in a third of the time."""

    LOG, get = catalogue.LOG, staticmethod(catalogue.get)

    @staticmethod
    @functools.cache
    def functions(place, num_bins, edges):
        names = ("accuracy", "conf_ece", "cw_ece", "nll", "mean_confidence")
        every = catalogue.functions(place, num_bins, edges)
        return {name: every[name] for name in names}


def make_scores(seed, sharp=1.0, skill=0.3, n=40, options=4, ids=None):
    """Scores of invented questions; the same answers for every n."""
    answers = np.random.default_rng(n).integers(0, options, n).astype(np.int32)
    logits = np.random.default_rng(seed).normal(size=(n, options))
    logits[np.arange(n), answers] += skill
    logits *= sharp
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scores(
        log_scores=np.log(probs).astype(np.float32),
        probs=probs.astype(np.float32),
        mask=np.ones((n, options), bool),
        answers=answers,
        ids=tuple(ids or (f"q{i}" for i in range(n))),
        tasks=("exam",) * n,
        subjects=(None,) * n,
    )


def estimate(value, deviation=0.01, best=False, versus=None, seeds=3):
    per_seed = tuple(value + deviation * k for k in (-1, 0, 1))[:seeds]
    return Estimate(value, per_seed, (value - 0.05, value + 0.05), best, versus)


def make_comparison():
    """Three methods over three seeds; the third was not measured out-of-domain."""

    def row(value, best=False, versus=None):
        return {
            "conf_ece": estimate(value, best=best, versus=versus),
            "cw_ece": estimate(value / 2, versus=versus),
            "accuracy": estimate(0.5, best=best, versus=versus),
            "nll": estimate(1 + value, versus=versus),
            "brier": estimate(0.5 + value, versus=versus),
        }

    lower = Versus(-0.1, (-0.2, -0.05), 0.002, 3)
    higher = Versus(0.2, (-0.1, 0.5), 0.3, 2)
    return Comparison(
        model="a_b 50%",
        labels={"before": "DPO, as it is", "temperature": "Temp. scale", "cft": "CFT"},
        parts={"in": Part("in", ("x", "y"), 70), "out": Part("out", ("z",), 30)},
        seeds=(0, 1, 2),
        reference="cft",
        unchanged=frozenset({"temperature"}),
        rows={
            "before": {"in": row(0.4, versus=higher), "out": row(0.3, versus=higher)},
            "temperature": {"in": row(0.1, True, lower), "out": row(0.2, versus=higher)},
            "cft": {"in": row(0.2)},
        },
        chance={"before": {"in": 0.08}},
        guesser={"in": uniform(np.array([4, 2])), "out": uniform(np.array([4, 4]))},
        remarks=("Temp. scale (seeds 0, 2): T stays at its upper bound 1000",),
    )


@pytest.fixture
def comparison():
    return make_comparison()
