"""The job answers on a tiny model: its confidences recomputed, stopped and continued, reported."""

import json

import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.confidence import free
from calib_jax.main import main
from calib_jax.questions import sources
from calib_jax.questions.free import answer_prompt, confidence_prompt, load_free
from calib_jax.reports import predictions
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import write_tiny_model


@pytest.fixture
def call(tmp_path, capsys, one_device, undrawn):
    """The command line in this process."""
    model = write_tiny_model(tmp_path / "model", eos_token_id=70)
    rows = [{"id": f"q{i}", "question": f"Item {i}?", "answers": ["x"]} for i in range(6)]
    source = tmp_path / "mine.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model.name": model,
        "answers.source": source,
        "answers.samples": 3,
        "answers.max_new_tokens": 5,
        "answers.batch_size": 4,
        "report.num_resamples": 20,
    }

    def run(workdir, config="answers", **changes):
        given = {**(settings if config == "answers" else {}), **changes}
        flags = [f"--config.{k.replace('__', '.')}={v}" for k, v in given.items()]
        place = tmp_path / workdir
        status = main(["calib_jax", f"--config=configs/{config}.py", f"--workdir={place}", *flags])
        out, err = capsys.readouterr()
        return status, out + err, place

    return run


def rows_of(place, name="answers.jsonl"):
    return [json.loads(line) for line in (place / name).read_text().splitlines()]


def log_softmax(model, tokens):
    logits = np.asarray(model.logits(np.array([tokens], np.int32))[0], np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_confidences_are_those_of_the_full_forward_pass(call, tmp_path):
    status, said, place = call("whole")
    assert status == 0, said
    found = rows_of(place)
    summary = json.loads((place / "summary.json").read_text())
    data = summary["data"]
    assert data["answered"] + data["empty"] == data["asked"] == 6 and len(found) == data["answered"]
    model = load_model(tmp_path / "model")
    questions = {q.id: q for q in load_free(str(tmp_path / "mine.jsonl"))}

    def ids(text):
        return model.tokenizer(text).input_ids

    for row in found[:2]:
        question = questions[row["id"]]
        # Verbalised: every number's tokens after the prompt, one forward pass each.
        context = confidence_prompt(question, row["output"])
        tokens, logs = [], []
        head = ids(context)
        for k in free.PERCENT:
            whole = ids(f"{context} {k}")
            table = log_softmax(model, whole)
            tokens.append(whole[len(head) :])
            logs.append(np.array([table[t - 1, whole[t]] for t in range(len(head), len(whole))]))
        probs = free.number_probabilities(tokens, logs)
        expected = probs @ (np.arange(101) / 100) / probs.sum()
        assert row["confidence_verbalised"] == pytest.approx(expected, abs=1e-5)
    methods = predictions.methods_of(place / "predictions" / "measured-mine.parquet")
    assert methods == list(free.METHODS)
    for row in found:
        assert row["confidence_sequence"] <= row["confidence_length_normalised"] + 1e-7
        shares = free.self_consistency(row["output"], row["samples"])
        assert row["confidence_self_consistency"] == pytest.approx(shares)
        assert answer_prompt(questions[row["id"]]).endswith("Answer:")
    items = rows_of(place, "p_true.jsonl")
    assert [item["answer"] for item in items] == [0 if row["correct"] else 1 for row in found]
    # What finetune learns from: any source of questions.
    loaded = sources.load(str(place / "p_true.jsonl"))
    assert [q.answer for q in loaded] == [item["answer"] for item in items]
    assert all(q.choices == ("True", "False") for q in loaded)


def test_a_stopped_run_goes_on_and_its_rows_can_be_reported(call, monkeypatch):
    _, _, whole = call("whole")
    checks = 0

    class Stopping(StopRequest):
        def check(self):
            nonlocal checks
            checks += 1
            if checks == 3:
                raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("calib_jax.main.StopRequest", Stopping)
        status, said, parted = call("parted")
    assert status != 0 and "the same command continues" in said
    assert not (parted / "summary.json").exists()
    status, said, parted = call("parted")
    assert status == 0 and "continuing from there" in said
    assert (parted / "answers.jsonl").read_text() == (whole / "answers.jsonl").read_text()
    assert not (parted / "partial").exists()

    status, said, reported = call(
        "reported",
        "report",
        report__predictions=whole / "answers.jsonl",
        report__method="p_true",
        report__num_resamples=20,
    )
    assert status == 0, said
    ours = json.loads((whole / "summary.json").read_text())["measured"]["mine"]["p_true"]
    theirs = json.loads((reported / "summary.json").read_text())["measured"]["all"]
    for key in ("conf_ece", "brier", "nll", "mean_confidence", "accuracy", "conf_ece_ci"):
        assert theirs[key] == pytest.approx(ours[key], abs=1e-5), key


def test_bad_input_is_refused_and_nothing_is_written(call, tmp_path):
    for changes, said in (
        ({"answers__source": "trivia"}, "choose from: trivia_qa, nq_open"),
        ({"answers__samples": 0}, "config.answers.samples is 0"),
        ({"answers__temperature": 0}, "config.answers.temperature is 0"),
        ({"prompt__chat": True}, "has no effect in the job 'answers'"),
    ):
        status, text, place = call("bad", **changes)
        assert status != 0 and said in text
        assert not place.exists()


def test_calibrators_of_free_answers_are_refused(call):
    _, _, whole = call("whole")
    status, said, place = call(
        "calibrated",
        "report",
        report__predictions=whole / "answers.jsonl",
        report__method="p_true",
        posthoc__methods="temperature",
    )
    assert status != 0 and "no options to share it" in said and not place.exists()
