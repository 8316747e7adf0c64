"""The steps between a source and a model: what they remove, keep, permute and report."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.errors import UserError
from calib_jax.questions import (
    Question,
    balance_answers,
    base_rates,
    drop_duplicate_options,
    prepare,
    remove_overlap,
    sample,
    sample_evenly,
    shuffle_options,
)


def make(i, K=4, answer=0, task="t"):
    return Question(
        f"q{i}", f"What is thing {i}?", [f"{i}-{k}" for k in range(K)], answer, None, task
    )


MANY = [make(i) for i in range(400)]


def orders(question, choices):
    return [question.choices.index(choice) for choice in choices]


# Sampling


def test_a_sample_is_a_seeded_subset_in_source_order():
    drawn = sample(MANY, 50, seed=1)
    assert len(drawn) == 50
    assert [MANY.index(question) for question in drawn] == sorted(map(MANY.index, drawn))
    assert drawn == sample(MANY, 50, seed=1)
    assert drawn != sample(MANY, 50, seed=2)
    assert drawn != MANY[:50]


def test_a_sample_does_not_depend_on_the_order_and_grows_by_adding():
    drawn = set(sample(MANY, 50, seed=1))
    assert set(sample(MANY[::-1], 50, seed=1)) == drawn
    assert drawn < set(sample(MANY, 80, seed=1))


def test_sample_sizes():
    assert sample(MANY, 0, seed=1) == MANY == sample(MANY, 400, seed=1)
    for size in (401, -1):
        with pytest.raises(UserError, match=f"sample {size} of 400"):
            sample(MANY, size, seed=1)


# Overlap and duplicates


def test_overlap_is_found_by_normalised_text_and_counted_per_split():
    train = [replace(MANY[i], id=f"x{i}") for i in range(6)]
    evals = {
        "one": [replace(MANY[0], question=" what is THING 0 "), replace(MANY[1])],
        "two": [replace(MANY[1], choices=("other", "options"), answer=1)],
        "three": [],
    }
    kept, counts = remove_overlap(train, evals)
    assert kept == train[2:]
    assert counts == {"one": 2, "two": 1, "three": 0}


def test_duplicate_options_are_dropped_and_counted():
    double = replace(MANY[0], choices=("a b", "c", "a  b"))
    assert drop_duplicate_options([double, *MANY[1:4]]) == (MANY[1:4], 1)


# Shuffling


def test_the_answer_moves_with_its_option():
    questions = [make(i, K=2 + i % 25, answer=i % (2 + i % 25)) for i in range(300)]
    shuffled, counts = shuffle_options(questions, seed=3)
    assert counts == {"pinned_options": 0, "kept_order": 0}
    for before, after in zip(questions, shuffled, strict=True):
        assert after.choices[after.answer] == before.choices[before.answer]
        assert sorted(after.choices) == sorted(before.choices)
        assert replace(after, choices=before.choices, answer=before.answer) == before


def test_a_permutation_depends_on_seed_task_and_id_only():
    shuffled = {q.id: q.choices for q in shuffle_options(MANY, seed=3)[0]}
    again = shuffle_options(reversed(MANY[50:90]), seed=3)[0]
    assert all(shuffled[q.id] == q.choices for q in again)
    reworded = [replace(q, question="Something else?", answer=2) for q in MANY[:40]]
    assert all(shuffled[q.id] == q.choices for q in shuffle_options(reworded, seed=3)[0])
    for other in (
        shuffle_options(MANY, seed=4)[0],
        shuffle_options([replace(q, task="u") for q in MANY], seed=3)[0],
    ):
        same = sum(shuffled[q.id] == q.choices for q in other)
        assert same < 50  # 400 / 24 expected


def test_known_permutations_stay_what_they_are():
    """A change here changes every reported figure: the hash must not drift between versions."""
    shuffled = shuffle_options(MANY[:3], seed=0)[0]
    assert [[int(c.split("-")[1]) for c in q.choices] for q in shuffled] == KNOWN


KNOWN = [[0, 2, 1, 3], [1, 3, 2, 0], [0, 3, 1, 2]]


def test_all_permutations_are_about_equally_frequent_and_letters_balanced():
    questions = [make(i) for i in range(4800)]
    shuffled = shuffle_options(questions, seed=0)[0]
    counts = Counter(tuple(c.split("-")[1] for c in q.choices) for q in shuffled)
    assert len(counts) == 24
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi_squared < 49.7  # the 0.999 quantile for 23 degrees of freedom
    assert all(abs(count - 1200) < 120 for count in base_rates(shuffled)[4])  # 4 sigma


def test_a_summary_keeps_its_place_and_nothing_crosses_it():
    choices = ("oak", "elm", "both of these", "moss", "fern", "none of the above")
    questions = [Question(f"q{i}", "Which?", choices, i % 6) for i in range(200)]
    shuffled, counts = shuffle_options(questions, seed=0)
    assert counts == {"pinned_options": 400, "kept_order": 0}
    for question in shuffled:
        assert question.choices[2::3] == choices[2::3]
        assert set(question.choices[:2]) == {"oak", "elm"}
    assert len({question.choices for question in shuffled}) == 4
    assert {question.choices.index("oak") for question in shuffled} == {0, 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=8), st.integers(0, 2**40))
def test_every_place_of_summaries_is_safe(is_summary, seed):
    choices = [f"all of these {i}" if s else f"kind {i}" for i, s in enumerate(is_summary)]
    question = Question("q", "Which?", choices, len(choices) - 1)
    (shuffled,), _ = shuffle_options([question], seed)
    for i, summary in enumerate(is_summary):
        if summary:
            assert shuffled.choices[i] == choices[i]
            assert set(shuffled.choices[:i]) == set(choices[:i])
    assert shuffled.choices[shuffled.answer] == choices[-1]


def test_named_options_keep_the_whole_order():
    question = Question("q", "Which?", ["oak", "elm", "moss", "both A and B"], 3)
    questions = [replace(question, id=f"q{i}") for i in range(20)]
    assert shuffle_options(questions, seed=0) == (
        questions,
        {"pinned_options": 0, "kept_order": 20},
    )


def test_base_rates_by_number_of_options():
    questions = [make(0, 4, 1), make(1, 4, 1), make(2, 4, 3), make(3, 2, 0)]
    assert base_rates(questions) == {2: [1, 0], 4: [0, 2, 0, 1]}
    assert base_rates([]) == {}


# All together


@pytest.fixture
def files(tmp_path):
    """A function that writes questions to <name>.jsonl and returns its path."""

    def write(name, rows):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def rows(*numbers, answer=0):
    return [
        {"id": str(i), "question": f"Is it {i}?", "choices": list("wxyz"), "answer": answer}
        for i in numbers
    ]


def test_prepare_reports_what_it_did(files):
    naming = {"question": "Is it?", "choices": ["x", "y", "both A and B"], "answer": 2, "id": "n"}
    summary = {"question": "Was it?", "choices": ["x", "y", "all of these"], "answer": 0, "id": "s"}
    repeat = rows(100)[0] | {"id": "r", "choices": list("zyxw")}
    train = files("mine", [*rows(*range(120)), naming, summary, repeat])
    inside = files("inside", rows(*range(100, 130)))
    outside = files("outside", rows(5, *range(200, 260), answer="B"))
    result = prepare([train], [f"in={inside}", outside], train_size=0, eval_size=40, seed=5)
    report = result.report
    assert report["n"] == {"train": 101, "in": 30, "outside": 40}
    assert report["removed_overlap"] == {"in": 21, "outside": 1}
    assert report["removed_overlap_total"] == 22
    shares = {name: (row["shared_texts"], row["texts"]) for name, row in report["domains"].items()}
    assert shares == {"in": (20, 30), "outside": (1, 61)}
    assert report["skipped_duplicate_options"] == 0
    assert report["duplicate_options"] == {"in": 0, "outside": 0}
    assert report["pinned_options"] == {"train": 1, "in": 0, "outside": 0}
    assert report["kept_order"] == {"train": 1, "in": 0, "outside": 0}
    assert report["repeated_questions"] == {"train": 0, "in": 0, "outside": 0}
    assert report["answer_counts_as_given"]["outside"] == {"4": [0, 40, 0, 0]}
    assert sum(report["answer_counts"]["outside"]["4"]) == 40
    assert max(report["answer_counts"]["outside"]["4"]) < 25
    assert json.loads(json.dumps(report)) == report
    assert list(result.evals) == ["in", "outside"]
    assert {q.task for q in result.train} == {"mine"}
    assert prepare([train], [f"in={inside}", outside], 0, 40, 5) == result


def test_overlap_is_removed_against_the_whole_evaluation_split(files):
    train, test = files("a", rows(*range(40))), files("b", rows(*range(20, 60)))
    for seed in range(3):
        result = prepare([train], [test], train_size=20, eval_size=2, seed=seed)
        assert {q.id for q in result.train} == {str(i) for i in range(20)}


def test_the_training_size_asked_for_is_reached_after_removals_or_refused(files):
    train, test = files("a", rows(*range(40))), files("b", rows(*range(20, 60)))
    assert len(prepare([train], [test], train_size=7).train) == 7
    with pytest.raises(UserError, match="train_size is 21, but there are 20 .* 20 were removed"):
        prepare([train], [test], train_size=21)
    with pytest.raises(UserError, match="no training question is left: of 40, 40"):
        prepare([train], [f"b={train}"])


def test_without_shuffling_the_order_is_the_sources(files):
    path = files("a", rows(*range(9)))
    result = prepare([], [path], shuffle=False)
    assert result.train == [] and "train" not in result.report["n"]
    assert all(question.choices == tuple("wxyz") for question in result.evals["a"])
    assert result.report["answer_counts"] == result.report["answer_counts_as_given"]


def test_the_options_of_some_tasks_alone_are_shuffled(files):
    names = ("a", "b")
    one, two = (files(name, rows(*range(9))) for name in names)
    train = files("c", rows(*range(9, 18)))
    result = prepare([train], [one, f"b={two}"], shuffle_tasks=("b",))
    orders = {name: {q.choices for q in result.evals[name]} for name in names}
    assert orders["a"] == {tuple("wxyz")} and len(orders["b"]) > 1
    assert (
        result.report["shuffled"] == ["b"]
        and result.report["answer_counts"]["a"] == (result.report["answer_counts_as_given"]["a"])
    )
    # Of the training set nothing is moved to even out the letters either.
    assert {q.choices for q in result.train} == {tuple("wxyz")}
    whole = prepare([], [one, f"b={two}"])
    assert whole.evals["b"] == result.evals["b"]  # one question's order does not hang on others
    with pytest.raises(UserError, match="names 'd'; the questions are of a, b. Name some of these"):
        prepare([], [one, f"b={two}"], shuffle_tasks=("b", "d"))
    with pytest.raises(UserError, match="shuffle_options is False: nothing would be shuffled"):
        prepare([], [one], shuffle=False, shuffle_tasks=("a",))


def test_repeated_rows_are_counted(files):
    repeated = [*rows(1, 2), rows(1)[0] | {"id": "again", "choices": list("zyxw")}]
    assert prepare([], [files("a", repeated)]).report["repeated_questions"] == {"a": 1}


def test_ids_are_unique_after_merging_and_the_shuffle_does_not_notice(files):
    one, two = files("one", rows(*range(8))), files("two", rows(*range(4, 12)))
    both = prepare([one, two], [])
    merged = both.train
    assert [q.id for q in merged][3:6] == ["3", "one/4", "one/5"]
    assert len({q.id for q in merged}) == 16
    alone = prepare([one], [])
    # Only what evens out the letters depends on the other questions.
    moved = both.report["balanced_answers"] + alone.report["balanced_answers"]
    assert sum(a.choices != b.choices for a, b in zip(merged, alone.train, strict=False)) <= moved


def test_odd_tasks_and_ids_cannot_clash_after_the_prefix(files):
    odd = rows(1, 2, 3)
    for row, (task, id) in zip(odd, [("a", "b"), ("c", "b"), ("c", "a/b")], strict=True):
        row.update(task=task, id=id)
    train = prepare([files("x", odd[:1]), files("y", odd[1:])], []).train
    assert len({q.id for q in train}) == 3


def test_the_same_source_twice_is_refused(files):
    path = files("a", rows(1, 2))
    with pytest.raises(UserError, match="id '1' of task 'a' appears in .*a.jsonl and in"):
        prepare([path, path], [])


def test_sources_of_one_task_that_count_their_rows_alike_are_joined(files):
    parts = []
    for name, first in (("a", 0), ("b", 10), ("c", 20)):
        numbered = [{k: v for k, v in row.items() if k != "id"} for row in rows(first, first + 1)]
        parts.append(f"exam={files(name, numbered)}")
    train = prepare(parts, [], shuffle=False).train
    assert [q.id for q in train] == ["row-1", "row-2", "2/row-1", "2/row-2", "3/row-1", "3/row-2"]
    assert [q.question for q in train] == [f"Is it {i}?" for i in (0, 1, 10, 11, 20, 21)]


@pytest.mark.parametrize(
    ("evals", "message"),
    [
        (["{a}", "x/../{a}"], "two evaluation splits are called 'a'"),
        (["train={a}"], "cannot be called 'train'"),
        ("{a}", "eval_specs is the text"),
    ],
)
def test_names_of_evaluation_splits(files, tmp_path, evals, message):
    path = files("a", rows(1, 2))
    (tmp_path / "x").mkdir()
    evals = evals.format(a=path) if isinstance(evals, str) else [e.format(a=path) for e in evals]
    with pytest.raises(UserError, match=message):
        prepare([], evals)


@pytest.mark.parametrize("sizes", [{"train_size": -1}, {"eval_size": -2}])
def test_negative_sizes_are_refused(files, sizes):
    with pytest.raises(UserError, match="must be 0"):
        prepare([], [files("a", rows(1, 2))], **sizes)


def test_sample_evenly_takes_equal_parts():
    questions = [
        Question(f"{task}{i}", f"What is {task}{i}?", ("x", "y"), 0, task=task)
        for task, count in (("a", 9), ("b", 30), ("c", 5))
        for i in range(count)
    ]
    chosen = sample_evenly(questions, 11, seed=0)
    tasks = [q.task for q in chosen]
    assert [tasks.count(task) for task in "abc"] == [4, 4, 3]
    assert chosen == [q for q in questions if q in chosen], "the order is kept"
    assert set(chosen) <= set(sample_evenly(questions, 14, seed=0))
    assert sample_evenly(questions, 0, seed=0) == questions
    with pytest.raises(UserError, match="'c' has 5"):
        sample_evenly(questions, 18, seed=0)


def test_balanced_answers_are_even_and_still_right():
    questions = [make(i, answer=0 if i % 3 else i % 4) for i in range(103)]
    pinned = Question("p", "Which?", ("x", "y", "z", "all of the above"), 0, task="t")
    balanced, changed = balance_answers([*questions, pinned], seed=0)
    assert max(base_rates(balanced)[4]) - min(base_rates(balanced)[4]) <= 1
    assert balanced[-1] == pinned
    assert changed == sum(a != b for a, b in zip([*questions, pinned], balanced, strict=True)) > 20
    for before, after in zip(questions, balanced, strict=False):
        assert before.choices[before.answer] == after.choices[after.answer]
        assert sorted(before.choices) == sorted(after.choices)
    assert balance_answers(balanced, seed=0) == (balanced, 0)
