import dataclasses
import json
import math

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.reports import catalogue, result
from calib_jax.reports.study import changes


def test_a_cell_holds_the_metrics_of_both_sides(make_scores):
    base, aligned = make_scores(bias=0.0), make_scores(bias=2.0, seed=1)
    cell = changes.measure(base, aligned, num_resamples=20)
    assert (cell.n, cell.dropped) == (60, 0)
    for name in changes.METRICS:
        found = cell.changes[name]
        values = [
            float(getattr(metrics, name)(s.probs, s.answers, s.mask)) for s in (base, aligned)
        ]
        assert [found.pt, found.it] == pytest.approx(values, abs=1e-6)
        assert found.change == pytest.approx(values[1] - values[0], abs=1e-6)
        assert found.ratio == pytest.approx(values[1] / values[0] - 1, abs=1e-5)
        assert found.change_ci[0] <= found.change <= found.change_ci[1]


def test_the_interval_is_paired(make_scores):
    scores = make_scores()
    cell = changes.measure(scores, scores, num_resamples=20)
    # Two sides that agree on every question differ by nothing in every resample.
    assert all(c.ratio == 0.0 for c in cell.changes.values())
    low, high = cell.changes["accuracy"].change_ci  # a score interval, of no flip
    assert low == -high < 0
    assert all(c.change_ci == (0.0, 0.0) for m, c in cell.changes.items() if m != "accuracy")


def test_a_change_that_is_made_is_found(make_scores):
    """Aligned confidences are pushed to 1: ECE and the one-vs-rest form rise, accuracy stays."""
    base = make_scores()
    sharp = np.asarray(base.probs, np.float64) ** 6
    aligned = dataclasses.replace(
        base, probs=(sharp / sharp.sum(axis=1, keepdims=True)).astype(np.float32)
    )
    cell = changes.measure(base, aligned, num_resamples=20)
    assert cell.changes["conf_ece"].change_ci[0] > 0.1
    assert cell.changes["sce_ovr"].change_ci[0] > 0
    assert cell.changes["accuracy"].change == 0


def test_letters_leave_out_the_few_questions_of_another_number_of_options(make_scores, monkeypatch):
    # Compiling the bootstrap for these shapes takes longer than all the rest.
    monkeypatch.setattr(
        changes.metrics, "paired_bootstrap_all", lambda fns, *_, **__: dict.fromkeys(fns, (0, 0))
    )
    base = make_scores(n=60, num_options=4)
    width = 5
    mask = np.zeros((60, width), bool)
    mask[:, :4], mask[0, 4], mask[1, 3] = True, True, False
    answers = np.minimum(base.answers, 2)
    rng = np.random.default_rng(3)

    def scores(method):
        probs = np.where(mask, rng.random((60, width)), 0)
        probs /= probs.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            logs = np.log(probs).astype(np.float32)
        return dataclasses.replace(
            base,
            log_scores=logs,
            probs=probs.astype(np.float32),
            mask=mask,
            answers=answers,
            method=method,
        )

    base, aligned = scores("choice"), scores("choice")
    cell = changes.measure(base, aligned, num_resamples=20)
    assert (cell.n, cell.dropped) == (58, 2)
    expected = metrics.cw_ece(base.probs[2:, :4], answers[2:], mask[2:, :4])
    assert cell.changes["cw_ece"].pt == pytest.approx(float(expected), abs=1e-6)

    texts = [dataclasses.replace(s, method="continuation_sum") for s in (base, aligned)]
    cell = changes.measure(*texts, num_resamples=20)
    assert (cell.n, cell.dropped) == (60, 0)
    expected = metrics.cw_ece(base.probs, answers, mask)
    assert cell.changes["cw_ece"].pt == pytest.approx(float(expected), abs=1e-6)


# Table 1 of the paper: the order of the models under each task, by letters.
MODELS = {
    "O": "OLMo-7B",
    "2": "Llama-2-7b",
    "g": "gemma-7b",
    "8": "Llama-3-8B",
    "M": "Mistral-7B",
    "7": "Llama-3-70B",
    "Q": "Qwen2-72B",
}
PAPER = {
    "arc_easy": "O2g8M7Q",
    "arc_challenge": "O2g8M7Q",
    "mmlu_stem": "O2g8M7Q",
    "mmlu_humanities": "O2g8M7Q",
    "piqa": "O2g8M7Q",
    "hellaswag": "O2g87MQ",
    "medmcqa": "Og278MQ",
    "mmlu_other": "O2gM87Q",
    "mmlu_social_sciences": "O2g8MQ7",
}


def test_the_papers_table_1(published_cells):
    """From ratios alone: the ranks are computed anew."""
    found = changes.ranking(changes.ranked(published_cells), "choice", "sce_ovr")
    orders = {task: order for order, tasks in found.items() for task in tasks}
    for task, letters in PAPER.items():
        assert orders[task] == tuple(MODELS[c] for c in letters), task
    # The five tasks that the paper has in one column are one here.
    assert next(iter(found.values())) == [
        "arc_challenge",
        "arc_easy",
        "mmlu_humanities",
        "mmlu_stem",
        "piqa",
    ]
    assert not any(" = " in name for order in found for name in order)


def test_pairs_of_one_ratio_share_a_place_and_those_without_have_none():
    cells = changes.ranked(
        {
            name: {"t": {"choice": changes.Cell({"conf_ece": changes.between(pt, 0.2)})}}
            for name, pt in {"a": 0.1, "b": 0.0, "c": 0.1, "d": 0.4}.items()
        }
    )
    assert changes.ranking(cells, "choice", "conf_ece") == {("a = c", "", "d"): ["t"]}


def test_the_metrics_are_the_catalogues_under_the_papers_names():
    labels = {key: metric.label for key, metric in changes.METRICS.items()}
    assert labels == {
        "conf_ece": "ECE",
        "cw_ece": "SCE",
        "sce_ovr": "SCE, one-vs-rest",
        "accuracy": "accuracy",
    }
    for key, metric in changes.METRICS.items():
        assert metric.direction == catalogue.get(key).direction


def test_a_task_without_a_usual_number_of_options_is_kept_whole():
    mask = np.arange(5) < np.array([2, 3, 4, 5, 4, 4])[:, None]
    assert changes.regular_rows(mask).all()
    mask = np.arange(5) < np.array([4] * 9 + [5])[:, None]
    assert changes.regular_rows(mask).tolist() == [True] * 9 + [False]


def test_a_base_value_of_nothing_has_no_ratio_and_no_rank():
    cells = {
        name: {"task": {"choice": changes.Cell({"conf_ece": changes.between(pt, 0.2)})}}
        for name, pt in {"a": 0.0, "b": 0.1, "c": 0.05, "d": 0.1, "e": 9e-5, "f": 0.4}.items()
    }
    found = changes.column(changes.ranked(cells), "choice", "conf_ece")
    ranks = {pair: change.rank for (pair, _), change in found.items()}
    assert ranks == {"a": None, "b": 2, "c": 1, "d": 2, "e": None, "f": 4}
    assert math.isnan(found["a", "task"].ratio) and found["f", "task"].falls
    assert found["f", "task"].ratio == pytest.approx(-0.5)


def test_pairs_that_lack_a_method_are_ranked_without_it():
    one = {"conf_ece": changes.between(0.1, 0.2)}
    cells = changes.ranked(
        {
            "a": {"t": {"choice": changes.Cell(one), "continuation_min": changes.Cell(one)}},
            "b": {"t": {"choice": changes.Cell({"conf_ece": changes.between(0.1, 0.5)})}},
        }
    )
    assert cells["a"]["t"]["choice"].changes["conf_ece"].rank == 2
    assert cells["a"]["t"]["continuation_min"].changes["conf_ece"].rank == 1
    assert "continuation_min" not in cells["b"]["t"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": tuple("abc"[:1] * 60)}, "question 1 is 'q-0' in one and 'a' in the other"),
        ({"method": "continuation_sum"}, "methods choice and continuation_sum"),
        ({"answers": np.zeros(60, np.int32)}, "the answer of question"),
    ],
)
def test_sides_of_other_questions_are_refused(make_scores, changed, message):
    base = make_scores()
    with pytest.raises(ValueError, match=message):
        changes.measure(base, dataclasses.replace(base, **changed))
    with pytest.raises(ValueError, match="60 and 40 questions"):
        changes.measure(base, make_scores(n=40))


def test_cells_come_back_from_a_summary(make_scores, tmp_path):
    cell = changes.measure(make_scores(), make_scores(seed=1), num_resamples=20)
    nothing = dataclasses.replace(
        cell, changes={**cell.changes, "conf_ece": changes.between(0.0, 0.5)}
    )
    cells = changes.ranked({"a": {"t": {"choice": cell}}, "b": {"t": {"choice": nothing}}})
    result.write(tmp_path / "summary.json", {"pairs": changes.as_dict(cells)})
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text)["pairs"]["b"]["t"]["choice"]["conf_ece"]["ratio"] is None
    back = changes.from_dict(json.loads(text)["pairs"])
    assert repr(back) == repr(cells)  # NaN equals nothing, but reads the same
    known = changes.Change(math.nan, math.nan, 0.1, 0.5, 1, None, (0.19, 0.21), (0.29, 0.31))
    published = {"a": {"t": {"choice": changes.Cell({"conf_ece": known})}}}
    result.write(tmp_path / "summary.json", {"published": changes.as_dict(published)})
    found = json.loads((tmp_path / "summary.json").read_text())["published"]
    assert found["a"]["t"]["choice"]["conf_ece"]["pt"] is None
    assert repr(changes.from_dict(found)) == repr(published)
    with pytest.raises(UserError, match='not the "pairs" of a study\'s'):
        changes.from_dict({"a": {"t": {"choice": 3}}})
