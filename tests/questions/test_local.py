"""A file is read whole or refused with the row that is wrong."""

import csv
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.questions import local
from calib_jax.questions.answers import AnswerReader

ROWS = [
    {"id": "a", "question": "Which is a bird?", "choices": ["crow", "cod"], "answer": 0},
    {"id": "b", "question": "Which, of 3, swims?", "choices": ["owl", "elk", "cod"], "answer": 2},
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def check(questions):
    assert [question.id for question in questions] == ["a", "b"]
    assert [question.answer for question in questions] == [0, 2]
    assert questions[1].choices == ("owl", "elk", "cod")
    assert {question.task for question in questions} == {"mine"}


@pytest.mark.parametrize(
    "text",
    [
        jsonl(ROWS),
        jsonl(ROWS).rstrip("\n"),
        jsonl(ROWS) + "\n  \n\n",
        "\ufeff" + jsonl(ROWS),
        jsonl(ROWS).replace("\n", "\r\n"),
    ],
    ids=["plain", "no last newline", "blank at the end", "BOM", "CRLF"],
)
def test_jsonl(tmp_path, text):
    check(local.load(write(tmp_path / "mine.jsonl", text)))


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    row = ROWS[0] | {"question": "One\u2028two\x85three?"}
    path = write(tmp_path / "mine.jsonl", json.dumps(row, ensure_ascii=False))
    assert local.load(path)[0].question == row["question"]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
def test_csv_with_quoted_commas_newlines_and_json_choices(tmp_path, prefix):
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "question", "choices", "answer"])
        writer.writeheader()
        for row in ROWS:
            text = row["question"].replace(", ", ",\n")
            writer.writerow(row | {"question": text, "choices": json.dumps(row["choices"])})
        file.write("\r\n\r\n")
    path.write_bytes(prefix + path.read_bytes())
    questions = local.load(path)
    check(questions)
    assert questions[1].question == "Which,\nof 3,\nswims?"


def test_csv_with_option_columns(tmp_path):
    path = write(tmp_path / "mine.csv", "question,A,B,C,answer\nWhich?,1,2,3,C\nWhat?,x,y,z,0\n")
    questions = local.load(path)
    assert [(q.id, q.choices, q.answer) for q in questions] == [
        ("row-1", ("1", "2", "3"), 2),
        ("row-2", ("x", "y", "z"), 0),
    ]


def test_parquet(tmp_path):
    folder = tmp_path / "seed=3"  # not a partition to be read into a column
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "mine.parquet")
    check(local.load(folder / "mine.parquet"))


def test_parquet_in_the_layout_of_the_hub(tmp_path):
    choices = {"text": ["crow", "cod"], "label": ["A", "B"]}
    row = {"question_stem": "Which swims?", "choices": choices, "answerKey": "B"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    assert local.load(tmp_path / "x.parquet")[0].answer == 1


BAD_JSONL = {
    "answer out of range": (jsonl([ROWS[0], ROWS[1] | {"answer": 5}]), "row 2.*5 but there are 3"),
    "empty option": (jsonl([ROWS[0] | {"choices": ["a", ""]}]), "row 1.*option B, is empty"),
    "equal options": (jsonl([ROWS[0] | {"choices": ["a", "a "]}]), "row 1.*'a'.*equal options"),
    "same id": (jsonl([*ROWS, ROWS[0]]), "row 3: id 'a' appears in row 1"),
    "not JSON": (jsonl(ROWS) + '{"id": ', "row 3: not valid JSON"),
    "not an object": (json.dumps(ROWS), "row 1: expected a JSON object per line, not list"),
    "not UTF-8": (jsonl(ROWS[:1]).encode() + b'{"id": "\xff"}', "row 2: not UTF-8"),
    "UTF-16": (jsonl(ROWS).encode("utf-16"), "row 1: not UTF-8"),
    "blank inside": (jsonl(ROWS[:1]) + "\n" + jsonl(ROWS[1:]), "row 2: the line is blank"),
    "key twice": ('{"id": "a", "id": "b"}', "row 1: field 'id' appears twice"),
    "misspelt": ('{"qestion": "?", "choices": ["a", "b"], "answer": 0}', "row 1.*'question'.*qest"),
    "empty": ("", "no rows"),
    "only blank": ("\n\n", "no rows"),
    "nested too deep": ("[" * 100_000, "row 1"),
}


@pytest.mark.parametrize(("text", "message"), BAD_JSONL.values(), ids=BAD_JSONL.keys())
def test_bad_jsonl(tmp_path, text, message):
    path = write(tmp_path / "mine.jsonl", text)
    with pytest.raises(UserError, match=rf"mine\.jsonl.*{message}"):
        local.load(path)


BAD_CSV = {
    "no rows": ("question,A,B,answer\n", "no rows"),
    "empty": ("", "no rows"),
    "too many cells": ("question,A,B,answer\nWhich?,x,y,z,0\n", "row 1: 5 cells.* 4 columns"),
    "too few cells": ("question,A,B,answer\nIs it?,x,y,0\nWhich?,x\n", "row 2: 2 cells"),
    "blank inside": ("question,A,B,answer\n\nWhich?,x,y,0\n", "row 1: 0 cells"),
    "header twice": ("question,A,A,answer\nWhich?,x,y,0\n", "line names 'A' twice.*put one first"),
    "open quote": ('question,A,B,answer\n"Which?,x,y,0\n', "line 2: not valid csv"),
    "not UTF-8": (b"question,A,B,answer\nWhich\xff?,x,y,0\n", "line 2: not UTF-8"),
    "empty option": ("question,A,B,answer\nWhich?,x,,0\n", "row 1.*'B' is empty"),
    "equal options": ("question,A,B,answer\nWhich?,x,x,0\n", "row 1.*equal options"),
    "no answer": ("question,A,B,answer\nWhich?,x,y,\n", "row 1.*'answer' is ''"),
    "no header": ("Which?,x,y,A\nWhat?,x,y,B\n", "row 1.*'answer'.*put one first"),
    "no header, equal cells": ("Which?,x,y,x\n", "names 'x' twice.*put one first"),
    "semicolons": ("question;A;B;answer\nWhich?;x;y;A\n", "by commas, not by ';'"),
    "semicolons, quoted": (
        '"question";"A";"answer"\n"Which, x?";"x";"A"\n',
        "by commas, not by ';'",
    ),
    "tabs": ("\nquestion\tA\tB\tanswer\nWhich, x?\tx\ty\tA\n", r"by commas, not by '\\t'"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CSV.values(), ids=BAD_CSV.keys())
def test_bad_csv(tmp_path, text, message):
    path = write(tmp_path / "mine.csv", text)
    with pytest.raises(UserError, match=rf"mine\.csv.*{message}"):
        local.load(path)


def test_a_csv_cell_of_any_length(tmp_path):
    text = "word " * 40_000
    path = write(tmp_path / "mine.csv", f"question,A,B,answer\n{text},x,y,B\n")
    assert local.load(path)[0].question == text


def test_blank_rows_at_the_end_are_no_rows(tmp_path, caplog):
    text = "\n\nquestion,A,B,answer\nWhich?,x,y,y\n,,,\n , ,,\n\n"
    assert [q.answer for q in local.load(write(tmp_path / "x.csv", text))] == [1]
    rows = [*ROWS, dict.fromkeys(ROWS[0]), {"question": " ", "answer": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    check(local.load(tmp_path / "mine.parquet"))
    messages = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert messages == ["2 blank rows at the end left out"] * 2


def numbered(answers, choices=("w", "x", "y", "none of these")):
    return jsonl(
        {"question": f"Number {i}?", "choices": choices, "answer": answer}
        for i, answer in enumerate(answers)
    )


def test_answers_that_may_count_from_1_are_refused_with_both_remedies(tmp_path, caplog):
    path = write(tmp_path / "mine.jsonl", numbered([1, 2, 3] * 10))
    with pytest.raises(UserError, match=r"mine\.jsonl: the 30 answers .* 1 to 3") as error:
        local.load(path)
    assert "--config.data.answer_base=0 or --config.data.answer_base=1" in str(error.value)
    for base in (0, 1):
        answers = [q.answer for q in local.load(path, answers=AnswerReader(str(base)))]
        assert answers == [k - base for k in [1, 2, 3] * 10]
    # A 0 says it; other ways of answering have no base; few rows are read from 0, and it is said.
    for some in ([1, 2, 3] * 10 + [0], ["B", "C", "D"] * 10, ["x", "y"] * 15):
        local.load(write(path, numbered(some)))
    assert not caplog.records
    local.load(write(path, numbered(["1", 2.0, "3.0"] * 9)))
    assert "27 answers that are numbers run from 1 to 3; they are read as" in caplog.text


def test_a_base_must_fit_the_answers(tmp_path):
    path = write(tmp_path / "mine.jsonl", numbered([1, 0]))
    with pytest.raises(UserError, match=r"row 2.*'answer' is 0 .*1-based: 1 to 4"):
        local.load(path, answers=AnswerReader("1"))
    with pytest.raises(UserError, match="expected 'auto', '0' or '1'"):
        AnswerReader("2")


def test_numbers_are_places_or_texts_in_a_whole_file(tmp_path):
    path = write(tmp_path / "mine.jsonl", numbered(["11", "12"], ["10", "11", "12"]))
    assert [q.answer for q in local.load(path)] == [1, 2]
    write(path, numbered(["11", "2"], ["10", "11", "12"]))
    with pytest.raises(UserError, match="'11' is the text of an option, and 1 other.* one way"):
        local.load(path)


def test_bad_parquet(tmp_path):
    path = write(tmp_path / "mine.parquet", "no parquet")
    with pytest.raises(UserError, match=r"mine\.parquet: not a valid parquet file"):
        local.load(path)
    pq.write_table(pa.Table.from_pylist([], ROWS_SCHEMA), path)
    with pytest.raises(UserError, match="no rows"):
        local.load(path)
    pq.write_table(pa.Table.from_pylist([*ROWS, {"id": "c", "question": "?"}]), path)
    with pytest.raises(UserError, match="row 3.*'choices'.*None"):
        local.load(path)


ROWS_SCHEMA = pa.Table.from_pylist(ROWS).schema


def test_missing_file_folder_and_unknown_kind(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: there is no such file"):
        local.load(tmp_path / "none.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: there is no such file"):
        local.load(tmp_path / "folder.jsonl")
    with pytest.raises(UserError, match=r"x\.json: .*must end in \.jsonl, \.csv, \.parquet"):
        local.load(write(tmp_path / "x.json", "[]"))


def test_columns_that_are_not_used_are_logged_once(tmp_path, caplog):
    rows = [row | {"explanation": "because", "source": 1} for row in ROWS]
    path = write(tmp_path / "mine.jsonl", jsonl(rows))
    with caplog.at_level(logging.WARNING):
        local.load(path)
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "columns not used: explanation, source"
    ]
