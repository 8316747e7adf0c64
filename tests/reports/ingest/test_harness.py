"""Samples logged by lm-evaluation-harness, in the layout that its --log_samples writes."""

import json

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading

VALUES = [[-4.5, -2.25, -3.0, -9.0], [-1.0, -1.5, -7.0, -2.0], [-3.0, -2.0, -1.0, -0.5]]
TARGETS = [1, 2, 3]


def sample(i, values, target, **more):
    continuations = [f" option {k}" for k in range(len(values))]
    return {
        "doc_id": i,
        "doc": {"question": f"Which is number {i}?", "subject": "counting"},
        "target": str(target),
        "arguments": {
            f"gen_args_{k}": {"arg_0": f"Q{i}:", "arg_1": text}
            for k, text in enumerate(continuations)
        },
        "resps": [[[str(v), "False"]] for v in values],
        "filtered_resps": [[str(v), "False"] for v in values],
        "filter": "none",
        "doc_hash": "h",
        "acc": float(int(np.argmax(values)) == target),
    } | more


ROWS = [sample(i, v, t) for i, (v, t) in enumerate(zip(VALUES, TARGETS, strict=True))]


def load(tmp_path, rows, ragged=False):
    path = tmp_path / "samples_invented_2026-01-02T03-04-05.678.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = files.load(str(path), Reading(ragged=ragged))
    return found.states["measured"]["invented"], found.about[str(path)]


def test_scores_are_the_summed_log_likelihoods(tmp_path):
    scores, about = load(tmp_path, ROWS)
    assert scores.method == "continuation_sum" and scores.answers.tolist() == TARGETS
    np.testing.assert_array_equal(scores.log_scores, np.float32(VALUES))
    expected = np.exp(VALUES) / np.exp(VALUES).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores.probs, expected, rtol=1e-6)
    assert scores.subjects == ("counting",) * 3 and scores.ids == ("0", "1", "2")
    assert scores.questions[2] == "Which is number 2?" and scores.choices[0][1] == "option 1"
    assert "continuation_sum" in about["probabilities"] and "'acc'" in about["answers"]


def test_accuracy_and_brier_are_the_harness_s_own(tmp_path):
    scores, _ = load(tmp_path, ROWS)
    own = [row["acc"] for row in ROWS]
    assert float(metrics.accuracy(scores.probs, scores.answers)) == pytest.approx(np.mean(own))
    hot = np.eye(4)[TARGETS]
    probs = np.exp(VALUES) / np.exp(VALUES).sum(axis=1, keepdims=True)
    brier = ((probs - hot) ** 2).sum(axis=1).mean()
    assert float(metrics.brier(scores.probs, scores.answers)) == pytest.approx(brier, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "option 1"},
        {"target": 1},
        {"filtered_resps": [[v, False] for v in VALUES[0]]},
        {"filtered_resps": None},
        {"arguments": [[f"Q{k}", f" option {k}"] for k in range(4)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_older_and_other_layouts(tmp_path, change):
    rows = [{k: v for k, v in (ROWS[0] | change).items() if v is not None}, *ROWS[1:]]
    scores, _ = load(tmp_path, rows)
    assert scores.answers.tolist() == TARGETS
    np.testing.assert_array_equal(scores.log_scores, np.float32(VALUES))


def test_letters_as_continuations_show_what_they_stand_for(tmp_path):
    texts = ["red", "green", "blue", "grey"]
    letters = {f"gen_args_{k}": {"arg_0": "Q", "arg_1": f" {'ABCD'[k]}"} for k in range(4)}
    rows = [{**row, "arguments": letters, "doc": {"choices": texts}} for row in ROWS]
    assert load(tmp_path, rows)[0].choices[0] == tuple(texts)


def test_unconditional_requests_are_set_aside_and_counted(tmp_path):
    row = ROWS[0]
    again = {f"gen_args_{k + 4}": {"arg_0": "", "arg_1": f" option {k}"} for k in range(4)}
    doubled = {
        **row,
        "arguments": row["arguments"] | again,
        "filtered_resps": row["filtered_resps"] * 2,
    }
    scores, about = load(tmp_path, [doubled, *ROWS[1:]])
    assert scores.probs.shape == (3, 4)
    assert about["rows_with_unconditional_requests_set_aside"] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (sample(7, VALUES[0], 9), r"row 2 \(id '7'\).*answer 9"),
        (sample(7, [float("nan"), -1, -2, -3], 1), r"row 2 \(id '7'\) holds log-scores"),
        (sample(7, VALUES[0][:3], 1), r"row 2 \(id '7'\) has 3 options.*ragged=True"),
        (sample(7, VALUES[0], 1, acc=0.0), r"row 2 \(id '7'\) has acc 0.0, but option 1"),
        (sample(7, VALUES[0], "nothing", acc=0.0), r"row 2 \(id '7'\).*'target' is 'nothing'"),
        (sample(7, VALUES[0], 1, filtered_resps=["42"]), r"output_type multiple_choice"),
        (sample(7, VALUES[0], 1, filter="strict"), r"filters none, strict"),
        (sample(0, VALUES[0], 1), r"row 2 \(id '0'\) repeats the id of row 1"),
        (sample(7, VALUES[0], 1, arguments={}), r"row 2 \(id '7'\): 'arguments' holds no pairs"),
    ],
)
def test_bad_samples_are_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, [ROWS[0], row, ROWS[2]])


def test_ragged_when_asked(tmp_path):
    scores, about = load(tmp_path, [ROWS[0], sample(1, [-1.0, -2.0], 0)], ragged=True)
    assert scores.mask.sum(axis=1).tolist() == [4, 2] and about["options"] == [2, 4]


def test_a_task_logged_subject_by_subject_is_one_split(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for subject, rows in (("algebra", ROWS), ("law", ROWS[:2])):
        path = folder / f"samples_exam_{subject}_2026-01-02T03-04-05.678.jsonl"
        rows = [row | {"doc": {"question": subject, "subject": subject}} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = files.load(str(folder))
    scores = found.states["measured"]["exam"]
    assert list(found.states["measured"]) == ["exam"]
    assert scores.subjects == ("algebra",) * 3 + ("law",) * 2
    assert scores.ids == ("algebra-0", "algebra-1", "algebra-2", "law-0", "law-1")
    assert scores.answers.tolist() == TARGETS + TARGETS[:2]
    assert {about["subject"] for about in found.about.values()} == {"algebra", "law"}
    with pytest.raises(UserError, match="would both be 'before' on 'exam'"):
        files.load(f"before={path},before={path}")
