"""Judgements as the benchmarks write them."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.reports.ingest.judgements import read_answer_lengths, read_judgements


def write(path, rows):
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) if lines else json.dumps(rows))
    return path


def annotation(number, preference, **more):
    return {
        "instruction": f"Do {number}.",
        "generator_1": "base",
        "output_1": "x" * 10,
        "generator_2": "ours",
        "output_2": "y" * number,
        "preference": preference,
        **more,
    }


def game(uid, first, second, **more):
    games = [{"score": first, "judgment": "..."}, {"score": second, "judgment": "..."}]
    return {"uid": uid, "model": "ours", "baseline": "base", "games": games, **more}


def test_alpaca_evals_annotations(tmp_path):
    preferences = [1, 2.0, 1.5, 0, 1.25, None, float("nan")]
    rows = [annotation(i + 1, p) for i, p in enumerate(preferences)]
    (contest,) = read_judgements(write(tmp_path / "annotations.json", rows), {})
    assert (contest.model, contest.baseline, contest.unjudged) == ("ours", "base", 2)
    assert [j.wins for j in contest.judgements] == [0, 1, 0.5, 0.5, 0.25]
    assert [j.lengths for j in contest.judgements] == [(n, 10) for n in range(1, 6)]


@pytest.mark.parametrize(
    "first, second, wins, games",
    [
        ("A>B", "B>A", 0, 2),  # the baseline twice
        ("B>A", "A>B", 2, 2),
        ("A>B", "A>B", 1, 2),  # whoever stands first
        ("A=B", "B=A", 1, 2),
        ("B>>A", "A>B", 4, 4),
        ("A>>B", "A>>B", 3, 6),
        ("A<<B", "B<A", 4, 4),
        ("A<B", "B<<A", 1 + 0 + 3, 4),
    ],
)
def test_arena_hards_games(tmp_path, first, second, wins, games):
    """The model is B in the first game and A in the second; >> counts three times."""
    (contest,) = read_judgements(write(tmp_path / "m.jsonl", [game("u", first, second)]), {})
    (judgement,) = contest.judgements
    assert (judgement.wins, judgement.games) == (wins, games)


def test_arena_hards_two_versions_and_categories(tmp_path):
    rows = [
        game("u1", "A>B", "A>B", category="hard_prompt"),
        game("u2", "A>B", None, category="hard_prompt"),
        game("u1", "A>B", "B>A", category="creative_writing"),
    ]
    hard, creative = read_judgements(write(tmp_path / "new.jsonl", rows), {})
    assert (hard.category, len(hard.judgements), hard.unjudged) == ("hard_prompt", 1, 1)
    assert (creative.category, creative.judgements[0].wins) == ("creative_writing", 0)
    old = {"question_id": "q", "model": "ours", "judge": "j", "games": rows[0]["games"]}
    answers = [
        {"question_id": "q", "model_id": m, "choices": [{"turns": [{"content": "z" * n}]}]}
        for m, n in (("ours", 4), ("theirs", 9))
    ]
    lengths = read_answer_lengths(write(tmp_path / "answers.jsonl", answers))
    assert lengths == {"ours": {"q": 4}, "theirs": {"q": 9}}
    (contest,) = read_judgements(write(tmp_path / "old.jsonl", [old]), lengths)
    assert contest.baseline == "theirs" and contest.judgements[0].lengths == (4, 9)
    new = [{"uid": "q", "model": "m", "messages": [{}, {"content": {"answer": "zzz"}}]}]
    assert read_answer_lengths(write(tmp_path / "new-answers.jsonl", new)) == {"m": {"q": 3}}


def test_plain_rows(tmp_path):
    rows = [{"win": 1, "length": 5, "baseline_length": 7}, {"win": 0.25}, {"win": None}]
    (contest,) = read_judgements(write(tmp_path / "rows.jsonl", rows), {})
    assert [j.wins for j in contest.judgements] == [1, 0.25] and contest.unjudged == 1
    assert [j.lengths for j in contest.judgements] == [(5, 7), None]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "a"}], "row 1: no judgement"),
        ([annotation(1, 2), {"win": 1}], "row 2: another layout"),
        ([annotation(1, 3)], "'preference' is 3; expected a number from 1 to 2"),
        ([annotation(1, True)], "'preference' is True"),
        ([annotation(1, 2), annotation(1, 1)], "'Do 1.' is in row 1 already"),
        ([annotation(1, None)], "none of the 1 judgements of ours holds a verdict"),
        ([annotation(1, 1, generator_2=None)], "'generator_2' must name a model"),
        ([game("u", "A>C", "A>B")], "the score is 'A>C'"),
        ([{**game("u", "A>B", "A>B"), "games": []}], "'games' must be a list of two"),
        ([{"win": 2}], "'win' is 2; expected a number from 0 to 1"),
        ([{"win": 1, "length": -1, "baseline_length": 1}], "a length is -1"),
        ([], "no rows"),
    ],
)
def test_rows_that_are_refused(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read_judgements(write(tmp_path / "j.jsonl", rows), {})


def test_files_that_are_refused(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for name, message in (("bad.json", "not valid JSON"), ("none.json", "no such file")):
        with pytest.raises(UserError, match=message):
            read_judgements(tmp_path / name, {})
    with pytest.raises(UserError, match="row 1: no answer in Arena-Hard's layout"):
        read_answer_lengths(write(tmp_path / "a.jsonl", [{"uid": 1}]))
