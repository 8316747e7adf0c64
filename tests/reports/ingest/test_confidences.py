"""Free answers that somebody else generated and graded: a confidence and a truth a row."""

import json

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports import predictions
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading

C = [0.25, 0.5, 0.875, 1.0]
RIGHT = [True, False, True, True]


def load(path, **reading):
    found = files.load(str(path), Reading(**reading))
    ((_, splits),) = found.states.items()
    ((_, scores),) = splits.items()
    return scores, found.about[str(path)]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("true, false", [(True, False), (1, 0), ("yes", "no"), ("True", "False")])
def test_a_confidence_and_a_truth(tmp_path, true, false):
    rows = [
        {"id": f"q{i}", "answer": f"text {i}", "confidence": c, "correct": true if y else false}
        for i, (c, y) in enumerate(zip(C, RIGHT, strict=True))
    ]
    scores, about = load(jsonl(tmp_path / "a.jsonl", rows))
    assert scores.is_free and scores.probs[:, 0].tolist() == C
    assert scores.answers.tolist() == [0, -1, 0, 0]
    np.testing.assert_allclose(np.exp(scores.log_scores), scores.probs, rtol=1e-6)
    assert about["answers"] == "column 'correct', whether the answer given is right"
    # What a run writes of them is read again.
    path = tmp_path / "measured-a.parquet"
    predictions.write(path, scores)
    again, _ = load(path)
    assert again.is_free and again.answers.tolist() == scores.answers.tolist()
    np.testing.assert_array_equal(again.probs, scores.probs)


def test_columns_of_other_names_and_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "score,ok\n" + "".join(f"{c},{int(y)}\n" for c, y in zip(C, RIGHT, strict=True))
    )
    scores, _ = load(path, columns="confidence=score,correct=ok")
    assert scores.probs[:, 0].tolist() == C and scores.answers.tolist() == [0, -1, 0, 0]


def test_one_of_several_confidences(tmp_path):
    rows = [{"confidence_a": c, "confidence_b": 0.5, "correct": True} for c in C]
    path = jsonl(tmp_path / "a.jsonl", rows)
    scores, _ = load(path, method="a")
    assert scores.method == "a" and scores.probs[:, 0].tolist() == C
    with pytest.raises(UserError, match="choose one with --config.report.method"):
        load(path)
    with pytest.raises(UserError, match="the methods are: a, b"):
        load(path, method="c")


@pytest.mark.parametrize(
    "row, said",
    [
        ({"confidence": 85, "correct": True}, "of percent, divide by 100"),
        ({"confidence": "high", "correct": True}, "holds 'high' in column 'confidence'"),
        ({"confidence": 0.5, "correct": "maybe"}, "write true or false"),
        ({"confidence": 0.5}, "holds None in column 'correct'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, said):
    path = jsonl(tmp_path / "a.jsonl", [{"confidence": 0.5, "correct": False}, row])
    with pytest.raises(UserError, match=rf"a\.jsonl row 2 .*{said}"):
        load(path)


def test_options_come_before_a_confidence_beside_them(tmp_path):
    rows = [
        {"probs": [0.3, 0.7], "answer": i, "confidence": 0.7, "correct": i == 1} for i in (0, 1)
    ]
    scores, _ = load(jsonl(tmp_path / "a.jsonl", rows))
    assert not scores.is_free and scores.probs.shape == (2, 2)
