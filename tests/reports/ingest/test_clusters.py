"""Clusters of a predictions file: by its columns, by config, by repeated questions."""

import dataclasses
import json

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports import predictions
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading

PROBS = np.random.default_rng(2).dirichlet(np.ones(3), 8).tolist()


def load(path, **reading):
    found = files.load(str(path), Reading(**reading))
    ((_, splits),) = found.states.items()
    ((_, scores),) = splits.items()
    return scores, found.about[str(path)]


@pytest.fixture
def write(tmp_path):
    def writer(**columns):
        path = tmp_path / "p.jsonl"
        rows = [
            {"id": i, "probs": PROBS[i], "answer": i % 3, **{k: f(i) for k, f in columns.items()}}
            for i in range(8)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return writer


def pairs(scores):
    return None if scores.units is None else scores.units.tolist()


HALVES = [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("name", ["cluster", "passage", "passage_id", "context"])
def test_a_column_of_a_known_name_is_taken(write, name):
    path = write(**{name: lambda i: f"text {i // 2}"})
    scores, about = load(path)
    assert pairs(scores) == HALVES
    assert about["clusters"] == f"column {name!r}: 8 rows in 4 clusters"
    assert name not in about["columns_not_used"]
    assert pairs(load(path, clusters="none")[0]) is None


def test_a_column_is_named_by_the_field_or_as_a_role(write):
    path = write(person=lambda i: i // 2, state=lambda i: "x" if i < 6 else None)
    assert load(path)[0].clusters == ()
    assert pairs(load(path, clusters="person")[0]) == HALVES
    assert pairs(load(path, columns="cluster=person")[0]) == HALVES
    # An empty cell: a row that stands alone, which is said.
    scores, about = load(path, clusters="state")
    assert pairs(scores) == [0, 0, 0, 0, 0, 0, 1, 2]
    assert about["clusters"] == (
        "column 'state': 8 rows in 3 clusters; 2 rows whose cell is empty are clusters of their own"
    )
    # A column can have another role beside.
    scores, _ = load(path, clusters="person", columns="subject=person")
    assert pairs(scores) == HALVES and scores.subjects[2] == "1"
    with pytest.raises(UserError, match="clusters is 'person', and .* says cluster=state"):
        load(path, clusters="person", columns="cluster=state")
    with pytest.raises(UserError, match="no column 'town' for the clusters"):
        load(path, clusters="town")


def test_a_cell_that_is_no_name_is_refused(write):
    with pytest.raises(UserError, match="row 3: column 'cluster' holds 1.5"):
        load(write(cluster=lambda i: 1.5 if i == 2 else i))


def test_a_column_in_which_no_two_rows_are_alike_says_so(write):
    scores, about = load(write(person=lambda i: i), clusters="person")
    assert pairs(scores) is None and about["clusters"] == (
        "column 'person': no two rows share a value, so they are taken for independent"
    )


@pytest.mark.parametrize(
    ("named", "columns", "what"),
    [
        ("answer", "", "the right answers"),
        ("truth", "answer=truth", "the right answers"),
        ("probs", "", "probabilities"),
        ("p_A", "", "probabilities"),
        ("Prediction", "", "what the model said"),
        ("correct", "", "what the model said"),
        ("choices", "", "the options"),
        ("split", "", "measured by themselves"),
        ("red", "red,green", "probabilities"),
    ],
)
def test_a_column_of_outcomes_is_no_cluster(tmp_path, named, columns, what):
    path = tmp_path / "p.jsonl"
    row = {"correct": 1, "Prediction": "A", "choices": ["x", "y"], "split": "test"}
    if named == "p_A":
        row |= {"p_A": 0.5, "p_B": 0.5}
    elif named == "red":
        row |= {"red": 0.5, "green": 0.5}
    else:
        row["probs"] = [0.25, 0.75]
    row["truth" if columns == "answer=truth" else "answer"] = "A" if named != "red" else 0
    path.write_text("".join(json.dumps(row | {"id": i}) + "\n" for i in range(4)))
    with pytest.raises(UserError, match=f"clusters names '{named}', which holds .*{what}.* none"):
        load(path, clusters=named, columns=columns)


def test_a_column_of_fractions_is_no_cluster(tmp_path):
    path = tmp_path / "p.csv"
    lines = [f"{i},0.5,0.5,A,{0.25 * i}" for i in range(4)]
    path.write_text("\n".join(["id,p_A,p_B,answer,sureness", *lines]) + "\n")
    with pytest.raises(UserError, match="row 1: column 'sureness' holds .*such as 0.0; the name"):
        load(path, clusters="sureness")


def test_repeats_of_a_question_are_found_in_its_text(write):
    options = ["red", "green", "blue"]
    path = write(
        question=lambda i: f"Which is number {i // 2}?",
        choices=lambda i: options if i % 2 else options[::-1],
    )
    scores, about = load(path)
    assert pairs(scores) == HALVES
    assert about["clusters"].startswith("rows that share a passage or a question: 8 rows in 4")
    assert load(path, clusters="none")[0].clusters == ()


def test_our_own_files_keep_them_and_other_columns_may_name_them(tmp_path, make_scores):
    scores = dataclasses.replace(
        make_scores(6), clusters=("a", "a", None, "b", "b", None), subjects=tuple("xxyyzz")
    )
    path = tmp_path / "before-all.parquet"
    predictions.write(path, scores)
    assert load(path)[0].clusters == scores.clusters
    assert load(path)[1]["clusters"].endswith("6 rows in 4 clusters")
    assert load(path, clusters="none")[0].clusters == ()
    assert pairs(load(path, clusters="subject")[0]) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(UserError, match="no column 'town'"):
        load(path, clusters="town")


def test_a_row_without_a_name_stands_alone(make_scores):
    scores = dataclasses.replace(make_scores(4), clusters=("a", None, "a", None))
    assert scores.units.tolist() == [0, 1, 0, 2]
    assert scores.take([1, 2, 0]).units.tolist() == [0, 1, 1]
    assert scores.take([0, 1]).units is None
    assert make_scores(4).units is None
