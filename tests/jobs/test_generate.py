"""The job generate on a tiny model: stopped and continued, finished, refused."""

import json

import pytest

from calib_jax.api import load_model
from calib_jax.generation import Generator, Sampling
from calib_jax.main import main
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import write_tiny_model


@pytest.fixture
def call(tmp_path, capsys):
    """The command line in this process."""
    model = write_tiny_model(tmp_path / "model", eos_token_id=70)
    rows = [{"instruction": f"Say {'more ' * (i % 3)}about item {i}."} for i in range(7)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model.name": model,
        "generate.prompts": tmp_path / "prompts.jsonl",
        "generate.batch_size": 3,  # the mesh makes it 4
        "generate.max_new_tokens": 12,
        "generate.temperature": 1.0,
        "generate.name": "tiny",
        "prompt.chat": False,
        "mesh.shape": "(2,2,2)",
    }

    def run(workdir, **changes):
        flags = [f"--config.{k.replace('__', '.')}={v}" for k, v in {**settings, **changes}.items()]
        config = "--config=configs/generate.py"
        status = main(["calib_jax", config, f"--workdir={tmp_path / workdir}", *flags])
        out, err = capsys.readouterr()
        return status, out, err, tmp_path / workdir

    return run


def test_a_stopped_job_goes_on_and_ends_as_an_undisturbed_one(call, monkeypatch):
    status, out, _, whole = call("whole")
    assert status == 0 and "cut at the limit" in out
    expected = (whole / "tiny.json").read_text()
    rows = json.loads(expected)
    assert [row["generator"] for row in rows] == ["tiny"] * 7

    # Eight devices say what one says.
    model = load_model(json.loads((whole / "summary.json").read_text())["model"])
    ids = [model.tokenizer(row["instruction"]).input_ids for row in rows]
    names = [f"row-{i}" for i in range(1, 8)]
    generator = Generator(
        model, Sampling(temperature=1.0), max_new_tokens=12, batch_size=4, stops=[70]
    )
    for row, answer in zip(rows, generator.generate(ids, names), strict=True):
        assert row["output"] == model.tokenizer.decode(answer.tokens)

    checks = 0

    class Stopping(StopRequest):
        def check(self):
            nonlocal checks
            checks += 1
            if checks == 2:
                raise Stopped

    monkeypatch.setattr("calib_jax.main.StopRequest", Stopping)
    status, _, err, parted = call("parted")
    assert "the same command continues" in err and not (parted / "tiny.json").exists()
    held = (parted / "partial" / "answers.jsonl").read_text().splitlines()
    assert 1 < len(held) < 8
    status, out, _, parted = call("parted")
    assert status == 0 and f"holds {len(held) - 1} of 7 answers" in out
    assert (parted / "tiny.json").read_text() == expected
    assert not (parted / "partial").exists()
    found = json.loads((parted / "summary.json").read_text())
    assert found["resumed_answers"] == len(held) - 1 and found["prompts"] == 7
    assert found["stops"] == {"70": model.tokenizer.convert_ids_to_tokens(70)}
    same = json.loads((whole / "summary.json").read_text())
    for key in ("answer_tokens", "truncated", "empty", "mean_answer_characters"):
        assert found[key] == same[key]
    assert 0 < found["truncated"] <= 7

    status, out, _, _ = call("parted")
    assert status == 0 and "is finished" in out and "cut at the limit" in out


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"generate.prompts": ""}, "config.generate.prompts names no source"),
        ({"generate.format": "arena_hard"}, "neither uid"),
        ({"generate.max_new_tokens": 0}, "config.generate.max_new_tokens is 0"),
        ({"generate.top_p": 2.0}, "config.generate.top_p is 2"),
        ({"prompt.chat": True}, "no chat template"),
        ({"prompt.max_length": 3}, "at most 3 are allowed"),
        ({"generate.name": "a/b"}, "hold a slash"),
    ],
)
def test_bad_input_is_refused_with_one_message(call, changes, message):
    status, _, err, workdir = call("bad", **changes)
    assert status == 1 and message in err and "Traceback" not in err
    assert not workdir.exists()
