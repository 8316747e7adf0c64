"""Any predictions file: what is read as what, and what is refused with file, row and count."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.reports import predictions
from calib_jax.reports.ingest import files, sources
from calib_jax.reports.ingest.places import Reading

PROBS = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]]
ROWS = [
    {"id": f"q{i}", "probs": row, "answer": answer}
    for i, (row, answer) in enumerate(zip(PROBS, (0, 2, 1), strict=True))
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def only(found):
    """The one state's one split."""
    (splits,) = found.states.values()
    (scores,) = splits.values()
    return scores


def changed(row, **changes):
    return [{**r, **(changes if i == row else {})} for i, r in enumerate(ROWS)]


def wide(prefix, names):
    return [
        {**{f"{prefix}_{n}": p for n, p in zip(names, r["probs"], strict=True)}, "answer": a}
        for r, a in zip(ROWS, (0, 2, 1), strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "rows", "read_as"),
    [
        ("jsonl", ROWS, "column 'probs'"),
        ("jsonl", [{"probs_choice": r["probs"], "answer": r["answer"]} for r in ROWS],
         "column 'probs_choice'"),
        ("csv", wide("prob", range(3)), "columns prob_0 to prob_2"),
        ("csv", wide("p", "ABC"), "columns p_A to p_C"),
        ("csv", [{**r, "probs": json.dumps(r["probs"])} for r in ROWS], "column 'probs'"),
        ("jsonl", [{"probabilities": r["probs"], "label": "ACB"[i]} for i, r in enumerate(ROWS)],
         "column 'probabilities'"),
        ("jsonl", [{"logits": np.log(r["probs"]).tolist(), "answer": r["answer"]} for r in ROWS],
         "softmax of column 'logits'"),
        ("csv", [{f"logit_{k}": x + 3 for k, x in enumerate(np.log(r["probs"]))}
                 | {"gold": r["answer"]} for r in ROWS], "softmax of columns logit_0 to logit_2"),
    ],
)  # fmt: skip  # a table: rows and what is said of them
def test_spellings(tmp_path, kind, rows, read_as):
    path = tmp_path / f"some.{kind}"
    (jsonl if kind == "jsonl" else table)(path, rows)
    found = files.load(str(path))
    scores = only(found)
    np.testing.assert_allclose(scores.probs, PROBS, rtol=1e-6)
    np.testing.assert_allclose(
        scores.log_scores - scores.log_scores[:, :1],
        np.log(PROBS) - np.log(PROBS)[:, :1],
        atol=1e-5,
    )
    assert scores.answers.tolist() == [0, 2, 1] and scores.mask.all()
    assert read_as in found.about[str(path)]["probabilities"]
    assert scores.probs.dtype == scores.log_scores.dtype == np.float32


def test_parquet_with_every_optional_column(tmp_path):
    extra = {"subject": "s", "task": "t", "question": "Why?", "choices": ["x", "y", "z"], "more": 1}
    pq.write_table(pa.Table.from_pylist([{**r, **extra} for r in ROWS]), tmp_path / "a.parquet")
    found = files.load(str(tmp_path / "a.parquet"))
    scores = only(found)
    assert list(found.states["measured"]) == ["t"]
    assert scores.ids == ("q0", "q1", "q2") and scores.subjects == ("s",) * 3
    assert scores.questions == ("Why?",) * 3 and scores.choices[0] == ("x", "y", "z")
    facts = found.about[str(tmp_path / "a.parquet")]
    assert facts["columns_not_used"] == ["more"] and len(facts["sha256"]) == 64
    assert "0-based" in facts["answers"] and "'id'" in facts["ids"]


def test_half_precision_rows_may_be_further_from_1(tmp_path):
    probs = np.random.default_rng(0).dirichlet(np.ones(7), 50).astype(np.float16)
    assert np.abs(probs.astype(np.float64).sum(1) - 1).max() > 1e-4
    columns = {f"p_{k}": pa.array(probs[:, k]) for k in range(7)}
    pq.write_table(pa.table({**columns, "answer": [0] * 50}), tmp_path / "h.parquet")
    found = files.load(str(tmp_path / "h.parquet"))
    np.testing.assert_allclose(only(found).probs.sum(axis=1), 1, atol=1e-6)
    assert found.about[str(tmp_path / "h.parquet")]["rows_divided_by_their_sum"] > 25


def test_own_predictions_with_ragged_options_are_read_bit_for_bit(tmp_path, make_scores):
    scores = make_scores(12, 5, ragged=True)
    predictions.write(tmp_path / "before-near.parquet", scores)
    predictions.write(tmp_path / "after-near.parquet", make_scores(12, 5, seed=3, ragged=True))
    found = files.load(str(tmp_path))
    assert {s: list(splits) for s, splits in found.states.items()} == {
        "after": ["near"],
        "before": ["near"],
    }
    assert found.states["before"]["near"].probs.tobytes() == scores.probs.tobytes()


def bad(rows, message, **reading):
    return pytest.param(rows, message, Reading(**reading), id=message[:40])


@pytest.mark.parametrize(
    ("rows", "message", "reading"),
    [
        bad(changed(1, probs=[0.5, 0.5, 0.5]), r"row 2 \(id 'q1'\) sums to 1.5.*1 bad row of 3"),
        bad(changed(1, probs=[-0.5, 1.0, 0.5]), r"row 2 \(id 'q1'\).*-0.5.*1 bad row"),
        bad(changed(2, probs=[float("nan"), 0.5, 0.5]), r"row 3 \(id 'q2'\).*nan.*1 bad row"),
        bad(changed(2, probs=[None, 0.5, 0.5]), r"row 3 \(id 'q2'\).*None, not a number"),
        bad(changed(1, answer=3), r"row 2 \(id 'q1'\) has answer 3, outside 0..2.*1 bad row of 3"),
        bad(changed(1, answer=-1), r"row 2 \(id 'q1'\) has answer -1.*1 bad row"),
        bad(changed(1, answer=1.5), r"row 2 \(id 'q1'\) has answer 1.5.*0-based"),
        bad(changed(1, answer="B"), r"row 2 \(id 'q1'\) has answer 'B'.*letters in every row"),
        bad(changed(1, answer=None), r"row 2 \(id 'q1'\) has answer None"),
        bad(changed(2, probs=[0.5, 0.5]), r"row 3 \(id 'q2'\) has 2 options.*report.ragged=True"),
        bad(
            changed(1, probs=[0.5, 0.5]),
            r"has answer 2, outside 0..1 of its 2 options",
            ragged=True,
        ),
        bad(changed(2, id="q0"), r"row 3 \(id 'q0'\) repeats the id of row 1 \(1 bad row of 3"),
        bad(changed(2, id=""), r"row 3: column 'id' holds ''"),
        bad([{**r, "answer": i % 2 + 1} for i, r in enumerate(ROWS)], r"none is 0.*answer_base=1"),
        bad([{"prbs": r["probs"], "answer": 0} for r in ROWS], r"'prbs' be called 'probs'"),
        bad([{"x": 1, "answer": 0}], r"no column with the probabilities.*a row needs 'probs'"),
        bad([{"probs": r["probs"], "anwser": 0} for r in ROWS], r"'anwser' be called 'answer'"),
        bad([{**r, "label": 0} for r in ROWS], r"the answer appears in answer and label"),
        bad(
            [{**r, "probs_x": r["probs"]} for r in ROWS],
            r"column 'probs' and in column 'probs_x'.*report.method",
        ),
        bad([{**r, "logits": [3, 0, 0]} for r in ROWS], r"row 1.*away from the softmax of.*logits"),
        bad([{"p_0": 0.5, "p_2": 0.5, "answer": 0}], r"p_0, p_2 are not one per option"),
        bad([{"logits": [0, float("inf")], "answer": 0}], r"row 1.*log-scores that are no numbers"),
        bad([{**r, "choices": ["a", "b"]} for r in ROWS], r"2 choices beside 3"),
        bad(changed(1, probs=0.5), r"row 2 \(id 'q1'\): column 'probs' holds 0.5, not a list"),
        bad([ROWS[0], {**ROWS[1], "split": "a"}], "row 1: column 'split' is empty"),
    ],
)
def test_bad_rows_name_file_row_id_and_count(tmp_path, rows, message, reading):
    path = jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(UserError, match=message) as error:
        files.load(str(path), reading)
    assert str(path) in str(error.value)


def test_unreadable_files_are_named(tmp_path):
    for name, content, message in (
        ("none.csv", None, "no such file"),
        ("a.txt", "x", "must end in"),
        ("empty.jsonl", "", "no rows"),
        ("empty.csv", "probs,answer\n", "no rows"),
        ("torn.jsonl", '{"probs": [0.5', "row 1: not valid JSON"),
        ("torn.parquet", "PAR1 rubbish", "not a valid parquet"),
        ("lines.csv", "probs,answer\n1\n", "row 1: 1 cells"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=message) as error:
            files.load(str(tmp_path / name))
        assert name in str(error.value)
    for text, message in (
        ("", "names no file"),
        ("change=x.csv", "cannot name predictions"),
        (str(tmp_path / "sub"), "holds no .parquet"),
    ):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=message):
            files.load(text)


def test_answer_base_is_as_asked(tmp_path):
    rows = [{**r, "answer": r["answer"] + 1} for r in ROWS]
    path = jsonl(tmp_path / "one.jsonl", rows)
    found = files.load(str(path), Reading(answer_base="1"))
    assert only(found).answers.tolist() == [0, 2, 1]
    assert "1-based" in found.about[str(path)]["answers"]
    with pytest.raises(UserError, match="has answer 3, outside 0..2"):
        files.load(str(path), Reading(answer_base="0"))
    with pytest.raises(UserError, match="answer_base is '2'"):
        files.load(str(path), Reading(answer_base="2"))


def test_rounded_rows_are_divided_only_when_asked_and_counted(tmp_path):
    path = jsonl(tmp_path / "r.jsonl", changed(0, probs=[0.33, 0.33, 0.33]))
    with pytest.raises(UserError, match="sums to 0.99"):
        files.load(str(path))
    found = files.load(str(path), Reading(sum_tolerance=0.02))
    np.testing.assert_allclose(only(found).probs[0], 1 / 3, rtol=1e-6)
    assert found.about[str(path)]["rows_divided_by_their_sum"] == 1


def test_ragged_rows_are_masked(tmp_path):
    path = jsonl(tmp_path / "r.jsonl", changed(2, probs=[0.5, 0.5]))
    scores = only(files.load(str(path), Reading(ragged=True)))
    assert scores.mask.tolist() == [[True] * 3, [True] * 3, [True, True, False]]
    assert scores.probs[2].tolist() == [0.5, 0.5, 0] and np.isneginf(scores.log_scores[2, 2])
    rows = wide("prob", range(3))
    rows[2] |= {"prob_0": 0.5, "prob_1": 0.5, "prob_2": ""}
    cells = table(tmp_path / "r.csv", rows)
    assert only(files.load(str(cells), Reading(ragged=True))).mask.sum() == 8


def test_split_column_makes_splits_with_ids_of_their_own(tmp_path):
    rows = [{**r, "split": s} for s in ("dev", "test") for r in ROWS]
    found = files.load(str(jsonl(tmp_path / "s.jsonl", rows)))
    assert list(found.states["measured"]) == ["dev", "test"]
    assert found.states["measured"]["test"].ids == ("q0", "q1", "q2")


def test_files_without_a_name_are_one_state_unless_they_share_a_split(tmp_path):
    first = jsonl(tmp_path / "first.jsonl", [{**row, "task": "near"} for row in ROWS])
    other = jsonl(tmp_path / "other.jsonl", [{**row, "task": "far"} for row in ROWS])
    found = files.load(f"{first},{other}")
    assert {state: list(splits) for state, splits in found.states.items()} == {
        "measured": ["near", "far"]
    }
    again = jsonl(tmp_path / "again.jsonl", [{**row, "task": "near"} for row in ROWS])
    found = files.load(f"{first},{again}")
    assert {state: list(splits) for state, splits in found.states.items()} == {
        "first": ["near"],
        "again": ["near"],
    }


def test_before_comes_before_after(tmp_path):
    for name in ("after-all", "before-all"):
        jsonl(tmp_path / f"{name}.jsonl", ROWS)
    text = f"after={tmp_path / 'after-all.jsonl'},before={tmp_path / 'before-all.jsonl'}"
    assert list(files.load(text).states) == ["before", "after"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("id;p_A;p_B;answer\n1;0.5;0.5;A\n", "separate the columns by commas, not by ';'"),
        ("p_A;p_B;answer\n0,5;0,5;A\n", "the header has 1 column: separate .* not by ';'"),
        ("p_A,p_B,answer\n0.333,0.666,A\n", "for rounded figures .*sum_tolerance"),
    ],
)
def test_messages_name_the_remedy(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        files.load(str(tmp_path / "a.csv"))


def test_two_files_are_brought_into_one_order(tmp_path):
    a, b = jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "b.jsonl", ROWS[::-1])
    found = files.load(f"before={a},after={b}")
    assert found.states["after"]["all"].ids == ("q0", "q1", "q2")
    np.testing.assert_allclose(found.states["after"]["all"].probs, PROBS)
    assert "order of" in found.about[str(b)]["reordered"]
    unnamed = files.load(f"{a},{b}")
    assert list(unnamed.states) == ["a", "b"]


def test_files_that_do_not_pair_are_refused(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", ROWS)
    for rows, message in (
        (changed(1, id="other"), r"1 ids are only in the first, 1 only in the second \('q1'"),
        (ROWS[:2], "1 ids are only in the first, 0"),
        (changed(1, answer=0), r"id 'q1' has another answer in each \(2 and 0; 1 such of 3\)"),
    ):
        b = jsonl(tmp_path / "b.jsonl", rows)
        with pytest.raises(UserError, match=message) as error:
            files.load(f"before={a},after={b}")
        assert str(a) in str(error.value) and str(b) in str(error.value)
    with pytest.raises(UserError, match="would both be 'x'"):
        files.load(f"x={a},x={b}")
    both = files.load(f"x:one={a},x:two={b}")
    assert list(both.states["x"]) == ["one", "two"]


def test_a_rounding_error_below_zero_is_zero(tmp_path):
    rows = [{"probs": [0.8, 0.1, 0.1, 1 - 0.8 - 0.1 - 0.1], "answer": k} for k in (0, 3)]
    assert rows[0]["probs"][3] < 0
    scores = only(files.load(str(jsonl(tmp_path / "a.jsonl", rows))))
    assert scores.probs[:, 3].tolist() == [0, 0]
    assert scores.log_scores[:, 3].tolist() == [-np.inf, -np.inf]


def test_a_comma_inside_a_path_may_be_escaped_or_not(tmp_path):
    for name in ("a,b.csv", "c.csv"):
        (tmp_path / name).write_text("p_A,p_B,answer\n0.5,0.5,A\n")
    for spelling in ("a,b.csv", r"a\,b.csv"):
        found = sources.parse(f"{tmp_path / spelling}, {tmp_path / 'c.csv'},")
        assert [source.path.name for source in found] == ["a,b.csv", "c.csv"]
