"""In-domain is what has the content of the training questions, whatever the sources are called."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import Question, prepare
from calib_jax.questions.domains import Origins, decide
from calib_jax.questions.sources import data_set


def domains(train, evals, **named):
    found = decide(train, evals, **named)
    return {name: row["domain"] for name, row in found.items()}


def of(data_set, numbers):
    return Origins.of([data_set], [f"Is it {i}?" for i in numbers])


def test_a_split_of_a_training_source_s_data_set_is_in_domain():
    train = of("mmlu", range(100))
    evals = {"mmlu": of("mmlu", range(200, 300)), "arc": of("arc_easy", range(200, 300))}
    found = decide(train, evals)
    assert {name: row["domain"] for name, row in found.items()} == {"mmlu": "in", "arc": "out"}
    assert found["mmlu"]["decided_by"] == "training has questions of the same data set, mmlu"
    assert found["arc"]["decided_by"] == (
        "training has no questions of arc_easy, and 0 of its 100 texts (0.0%) appear in the "
        "training sources"
    )


@pytest.mark.parametrize(("shared", "domain"), [(0, "out"), (1, "out"), (2, "in"), (200, "in")])
def test_one_per_cent_of_shared_texts_makes_a_split_in_domain(shared, domain):
    found = decide(of("a", range(500)), {"b": of("b", range(500 - shared, 700 - shared))})["b"]
    assert (found["domain"], found["shared_texts"], found["texts"]) == (domain, shared, 200)
    assert f"{shared} of its 200 texts" in found["decided_by"]


def test_texts_are_compared_normalised_and_once():
    train = Origins.of(["a"], ["What  is THIS?", "other"])
    twice = Origins.of(["b"], ["what is this", "what is this!", "something else"])
    assert decide(train, {"b": twice})["b"]["shared_texts"] == 1
    assert decide(train, {"b": twice})["b"]["texts"] == 2


def test_half_of_a_data_set_that_was_trained_on_is_not_enough():
    mixed = Origins.of(["a", "b"], ["x", "y"])
    found = decide(Origins.of(["a"], ["z"]), {"mixed": mixed})["mixed"]
    assert found["domain"] == "out" and "no questions of b, and" in found["decided_by"]
    assert domains(Origins.of(["a", "b", "c"], ["z"]), {"mixed": mixed}) == {"mixed": "in"}


def test_pairs_of_unknown_origin_say_nothing_unless_texts_are_shared():
    train = Origins.of([], ["x", "y"])
    evals = {"one": Origins.of(["a"], ["x"]), "other": Origins.of(["a"], ["z"])}
    assert domains(train, evals) == {"one": "in", "other": ""}


def test_the_user_knows_better():
    evals = {"b": of("b", range(9)), "a": of("a", range(20, 30))}
    found = decide(of("a", range(9)), evals, in_domain=["b"], out_of_domain=["a"])
    assert {name: row["domain"] for name, row in found.items()} == {"b": "in", "a": "out"}
    assert found["b"]["decided_by"] == "named in config.data.in_domain"
    with pytest.raises(UserError, match="config.data.out_of_domain names 'c'; choose from: b, a"):
        decide(of("a", [1]), evals, out_of_domain=["c"])
    with pytest.raises(UserError, match="'b' appears in config.data.in_domain and in"):
        decide(of("a", [1]), evals, in_domain=["b"], out_of_domain=["b"])


@pytest.mark.parametrize(
    ("spec", "task", "name"),
    [
        ("arc_easy/train", "arc_easy", "arc_easy"),
        ("x=offline:arc_easy/test", "arc_easy", "arc_easy"),
        ("hf:allenai/ai2_arc:ARC-Easy:train", "ai2_arc", "arc_easy"),
        ("hf:allenai/ai2_arc:ARC-Challenge:train", "ai2_arc", "arc_challenge"),
        ("hf:cais/mmlu:all:validation", "mmlu", "mmlu"),
        ("hf:cais/mmlu:all:auxiliary_train", "mmlu", "hf:cais/mmlu:all:auxiliary_train"),
        ("hf:somebody/mmlu:all:test", "mmlu", "hf:somebody/mmlu:all"),
        ("hf:somebody/mmlu:test", "mmlu", "hf:somebody/mmlu"),
        ("exam=here/x.jsonl", "exam", "exam"),
        ("exam=here/x.jsonl", "own", "own"),
    ],
)
def test_what_one_data_set_is(spec, task, name):
    assert data_set(spec, Question("q", "Wet?", ("yes", "no"), 0, task=task)) == name


def test_files_of_one_stem_are_not_one_data_set():
    question = Question("q", "Wet?", ("yes", "no"), 0, task="train")
    one, other = (data_set(f"{folder}/train.jsonl", question) for folder in "ab")
    assert one != other and one.endswith("/a/train.jsonl")
    assert data_set("a/sciq.toml", question) != data_set("sciq", question)


def test_prepare_says_what_decided(tmp_path):
    def write(name, numbers):
        rows = [{"question": f"Is it {i}?", "choices": ["x", "y"], "answer": 0} for i in numbers]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    train = write("train.jsonl", range(50))
    (tmp_path / "copy").mkdir()
    copy, other = write("copy/train.jsonl", range(90, 140)), write("renamed.jsonl", range(40, 90))
    report = prepare([train], [f"copy={copy}", f"renamed={other}"]).report
    assert {k: v["domain"] for k, v in report["domains"].items()} == {
        "copy": "out",
        "renamed": "in",
    }
