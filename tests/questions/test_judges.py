"""Several judges' scores as the rate at which an answer is preferred."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.questions.preferences import load_demonstrations, load_preferences


def user(text):
    return {"role": "user", "content": text}


def write(folder, *rows, name="data.jsonl"):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def rated(response, *ratings):
    """A completion as UltraFeedback's own rows hold it."""
    annotations = {
        name: {"Rating": str(r), "Rationale": "r"} for name, r in zip(ASPECTS, ratings, strict=True)
    }
    return {
        "model": "m",
        "principle": "p",
        "response": response,
        "annotations": annotations,
        "overall_score": 10.0,
    }


def ultrafeedback(*completions):
    return {"source": "x", "instruction": "Why?", "models": ["m"], "completions": list(completions)}


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_the_rate_of_ultrafeedback_is_the_share_of_its_aspects(tmp_path, name):
    # The best by the mean over aspects (4.25 against 3.25): three of four, and one alike.
    row = ultrafeedback(rated("No.", 2, 3, 4, 4), rated("So.", 5, 4, 4, 4))
    (item,) = load_preferences(write(tmp_path, row, name=name)).items
    assert (item.prompt, item.chosen, item.rejected) == ((user("Why?"),), "So.", "No.")
    assert item.rate == (1 + 1 + 0.5 + 0.5) / 4
    (learnt,) = load_demonstrations(write(tmp_path, row, name=name)).items
    assert learnt.response == "So."


def test_what_ultrafeedback_does_not_rate_is_no_vote(tmp_path):
    divided = ultrafeedback(rated("a", 5, 5, 5, "N/A"), rated("b", 4, 4, "N/A", 5))
    unknown = ultrafeedback(rated("a", "N/A", "N/A", "N/A", 5), rated("b", 4, 4, 4, "N/A"))
    alike = ultrafeedback(rated("a", 3, 3, 3, 3), rated("b", 3, 3, 3, 3))
    for i, row in enumerate((divided, unknown, alike)):
        row["instruction"] = f"Why {i}?"
    loaded = load_preferences(write(tmp_path, divided, unknown, alike))
    assert [(i.chosen, i.rate) for i in loaded.items] == [("a", 1.0), ("a", None)]
    assert loaded.report["left_out"] == {"ties": 1}
    # Of several worse answers one is drawn, the same every time, and never the best.
    many = [
        ultrafeedback(*(rated(f"{k}", k, k, k, k) for k in (1, 5, 2, 3)))
        | {"instruction": f"Why {i}?"}
        for i in range(60)
    ]
    drawn = load_preferences(write(tmp_path, *many)).items
    assert {i.chosen for i in drawn} == {"5"} and {i.rejected for i in drawn} == {"1", "2", "3"}
    again = load_preferences(write(tmp_path, *many[::-1])).items[::-1]
    assert [i.rejected for i in again] == [i.rejected for i in drawn]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((8.0, 5.0), None),  # one judge: no rate is known
        (([5, 4, 2, 4], [4, 4, 3, 1]), 0.625),
        (({"gpt-4": 9, "claude": 4}, {"claude": 5, "gpt-4": 3}), 0.5),
        (({"gpt-4": 9, "claude": None}, {"claude": 5, "gpt-4": 3}), None),
    ],
)
def test_scores_of_several_judges_give_the_rate(tmp_path, scores, expected):
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    row |= dict(zip(("score_chosen", "score_rejected"), scores, strict=True))
    (item,) = load_preferences(write(tmp_path, row)).items
    assert item.rate == expected
    # What the row itself says counts first.
    (item,) = load_preferences(write(tmp_path, row | {"rate": 0.9})).items
    assert item.rate == 0.9


def test_people_of_helpsteer3_are_counted(tmp_path):
    def row(text, *scores):
        people = [{"score": score} for score in scores]
        row = {"context": [user(text)], "response1": "one", "response2": "two"}
        return row | {"overall_preference": 0, "individual_preference": people}

    rows = [row("a", 2, -1, 3), row("b", -1, 0, -2, 1), row("c", 1, -1), row("d")]
    loaded = load_preferences(write(tmp_path, *rows))
    assert [(i.chosen, i.rate) for i in loaded.items] == [
        ("two", pytest.approx(2 / 3)),
        ("one", pytest.approx(0.625)),
    ]
    assert loaded.report["left_out"] == {"ties": 1, "without_preference": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ultrafeedback("x"), "completions 1: field 'response' must be text"),
        (ultrafeedback({"response": "x"}), "completions 1: field 'annotations' must hold"),
        (ultrafeedback(rated("x", "good", 1, 1, 1)), "annotations' holds 'good'; expected numbers"),
        (ultrafeedback() | {"completions": 3}, "'completions' must be a list"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": ["x"]},
         "'score_chosen' holds 'x'"),
        ({"context": [{"role": "assistant", "content": "x"}], "response1": "a", "response2": "b",
          "individual_preference": [{"score": 1}]}, "'context' must end in a turn of the user"),
        ({"context": [user("x")], "response1": "a", "response2": "b",
          "individual_preference": [1]}, "'individual_preference' must be a list of objects"),
    ],
)  # fmt: skip  # a table: a row and its message
def test_bad_judgements_are_named(tmp_path, row, message):
    with pytest.raises(UserError) as error:
        load_preferences(write(tmp_path, row))
    assert "row 1: " in str(error.value) and message in str(error.value)
