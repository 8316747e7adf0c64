"""The parts of a divided source share nothing, whatever it is called and wherever it is named."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import Question, load, prepare
from calib_jax.questions.division import divide


def questions(count, groups=None, texts=None):
    return [
        Question(
            f"q{i}",
            f"Number {i % texts if texts else i}?",
            ["a", "b"],
            i % 2,
            group=None if groups is None else str(i % groups),
        )
        for i in range(count)
    ]


def ids(part):
    return {question.id for question in part}


@pytest.mark.parametrize("shares", [(70, 30), (70, 15, 15), (50, 49, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_question_is_in_one_part_of_its_share(shares, seed):
    whole = questions(300)
    parts = divide(whole, shares, seed, "exam")
    assert [len(part) for part in parts] == [3 * share for share in shares]
    assert sorted(ids(whole)) == sorted(q.id for part in parts for q in part)
    for part in parts:
        assert part == [q for q in whole if q.id in ids(part)]


def test_the_draw_depends_on_the_seed_and_not_on_order_or_names():
    whole = questions(300)
    first, _ = divide(whole, (70, 30), 0, "exam")
    assert ids(divide(whole[::-1], (70, 30), 0, "other")[0]) == ids(first)
    other = ids(divide(whole, (70, 30), 1, "exam")[0])
    assert 100 < len(other & ids(first)) < 200  # 147 expected of independent draws


def test_groups_and_repeated_texts_stay_together():
    for whole in (questions(300, groups=30), questions(300, texts=30)):
        parts = divide(whole, (60, 40), 0, "exam")
        assert [len(part) for part in parts] == [180, 120]
        units = [{q.group or q.question for q in part} for part in parts]
        assert not units[0] & units[1]
    # A group larger than a share: parts hold whole groups, as near as these allow.
    uneven = [*questions(90, groups=1), *questions(10)[:10]]
    assert sum(map(len, divide(uneven, (50, 50), 0, "exam"))) == 100


def test_too_few_questions_for_the_parts_are_refused():
    with pytest.raises(UserError, match="exam: 20 questions in 1 groups are too few.*70:30"):
        divide(questions(20, groups=1), (70, 30), 0, "exam")
    with pytest.raises(UserError, match="would be empty"):
        divide(questions(2), (70, 15, 15), 0, "exam")


@pytest.fixture
def exam(tmp_path):
    path = tmp_path / "exam.jsonl"
    rows = [
        {"question": f"Number {i}?", "choices": ["a", "b", "c"], "answer": i % 3, "group": i // 4}
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "exam.toml").write_text('files = { test = "exam.jsonl" }')
    return path


@pytest.mark.parametrize("seed", [0, 7])
def test_one_file_for_training_and_for_measuring(exam, seed):
    spec = f"{exam}%70:10:20"
    prepared = prepare([f"mine={spec}"], [spec, f"dev={spec}/validation"], seed=seed)
    assert prepared.report["n"] == {"train": 140, "exam": 40, "dev": 20}
    assert prepared.report["removed_overlap_total"] == 0
    groups = [{q.group for q in part} for part in (prepared.train, *prepared.evals.values())]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 50
    # The same file as a task, and the test part as what is measured alone.
    alone = prepare([], [str(exam).replace(".jsonl", ".toml") + "%70:10:20"], seed=seed)
    assert ids(alone.evals["exam"]) == ids(prepared.evals["exam"])


def test_a_group_is_text_or_a_whole_number(exam):
    exam.write_text(json.dumps({"question": "?", "choices": ["a", "b"], "answer": 0, "group": 1.5}))
    with pytest.raises(UserError, match="row 1: field 'group' must be a string or an integer"):
        load(str(exam))
