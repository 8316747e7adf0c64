"""The job "alignment": two tiny models on pairs and text, a trained run, a stop, and bad input."""

import json

import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.jobs import alignment
from calib_jax.main import main
from calib_jax.questions.preferences import encode_preferences, load_preferences
from calib_jax.reports.pairs import predictions
from calib_jax.reports.result import read
from calib_jax.runs.run import Run, show_if_finished
from calib_jax.training.interrupt import Stopped, StopRequest
from configs.alignment import get_config
from tests.conftest import write_tiny_model
from tests.jobs.conftest import StopWhen


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Another tiny model, invented pairs and invented texts."""
    folder = tmp_path_factory.mktemp("alignment")
    write_tiny_model(folder / "after", 2)
    rows = [
        {"prompt": f"Say {i} ", "chosen": "yes" + "!" * (i % 3), "rejected": "no" + "?" * (i % 4)}
        for i in range(8)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(text)
    documents = "\n\n".join(f"Paragraph {i} goes on" + " and on" * (5 * i) for i in range(6))
    (folder / "text.txt").write_text(documents)
    return folder


@pytest.fixture
def config(inputs, tiny_model, one_device):
    config = get_config("debug")
    config.model.name = str(tiny_model)
    config.alignment.models = f"after={inputs / 'after'}"
    config.alignment.pairs = str(inputs / "pairs.jsonl")
    config.alignment.pairs_size = 0
    config.alignment.text = str(inputs / "text.txt")
    config.alignment.window = 32
    config.align.max_length = 64
    config.batch.token_budget = 128
    config.batch.max_buckets = 1
    return config


def run(config, workdir, stop):
    with Run(config, workdir, stop) as run:
        alignment.main(run)


def test_before_and_after_with_paired_changes_over_a_stop(
    config, inputs, undrawn, tmp_path, capsys
):
    workdir = tmp_path / "run"
    first = workdir / "models" / "before" / "predictions" / "pairs.parquet"
    with pytest.raises(Stopped):
        run(config, workdir, StopWhen(first))
    written = first.read_bytes()
    assert not (workdir / "summary.json").exists()
    run(config, workdir, StopRequest())
    assert first.read_bytes() == written  # kept, not scored again
    result = read(workdir / "summary.json")
    assert list(result["models"]) == ["before", "after"]

    # The figures, again from the model's own logits.
    items = load_preferences(config.alignment.pairs).items
    model = load_model(str(inputs / "after"))
    _, groups, _ = encode_preferences(model.tokenizer, items, 64)
    sums = []
    for pair in groups[1:2]:
        for side in pair:
            logits = np.asarray(model.logits(side.tokens[None]))[0].astype(np.float64)
            logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            L = len(side.tokens)
            places = range(L - side.num_targets, L)
            sums.append(sum(logs[t - 1, side.tokens[t]] for t in places))
    scores = {
        label: predictions.read_pairs(workdir / "models" / label / "predictions" / "pairs.parquet")
        for label in ("before", "after")
    }
    after = scores["after"]
    np.testing.assert_allclose([after.chosen[1], after.rejected[1]], sums, atol=3e-4)
    row, change = result["pairs"]["after"], result["change"]["pairs"]["after"]
    assert row["n"] == 8
    assert row["accuracy"] == pytest.approx(np.mean(after.chosen > after.rejected))
    assert row["mean_margin"] == pytest.approx(np.mean(after.margins), rel=1e-5)
    gained = 0.1 * (after.margins - scores["before"].margins)
    assert row["mean_reward_margin"] == pytest.approx(np.mean(gained), rel=1e-4)
    assert "mean_reward_margin" not in result["pairs"]["before"]
    assert change["mean_margin"] == pytest.approx(np.mean(gained) / 0.1, rel=1e-4)
    low, high = change["mean_margin_ci"]
    assert low <= change["mean_margin"] <= high

    losses = predictions.read_text(workdir / "models" / "after" / "predictions" / "text.parquet")
    text = result["text"]["after"]
    assert text["nll"] == pytest.approx(losses.nll.sum() / losses.tokens.sum())
    assert text["perplexity"] == pytest.approx(np.exp(text["nll"]))
    moved = result["change"]["text"]["after"]
    assert moved["perplexity_ratio"] == pytest.approx(
        text["perplexity"] / result["text"]["before"]["perplexity"]
    )
    # The same as rows, whatever the job.
    kept = {(r["subject"], r["probe"], r["metric"]): r for r in result["rows"]}
    assert kept["after", "pairs", "mean_margin"]["value"] == row["mean_margin"]
    assert kept["before", "text", "nll"]["n"] == result["text"]["before"]["n"]
    (margin,) = [r for r in result["contrasts"] if r["metric"] == "mean_margin"]
    assert (margin["a"], margin["b"], margin["difference"]) == (
        "before", "after", change["mean_margin"],
    )  # fmt: skip  # one row
    assert [margin["low"], margin["high"]] == change["mean_margin_ci"]

    assert (workdir / "report.html").read_text() == "Alignment kept?"
    assert undrawn == ["figures/margins", "figures/text"]
    assert {path.suffix for path in (workdir / "tables").iterdir()} == {".md", ".tex", ".csv"}
    capsys.readouterr()
    assert show_if_finished(workdir)
    assert "preference accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ""}, "names no model to compare"),
        ({"models": "before=x"}, "the label 'before' is taken"),
        ({"models": "x"}, "is not understood"),
        (
            {"models": "a=run:nowhere"},
            "config.alignment.models, a: nowhere/config.json: no such file",
        ),
        ({"models": "a=nowhere"}, "no such file or folder"),
        ({"pairs": "", "text": ""}, "config.alignment.pairs and config.alignment.text are empty"),
        ({"window": 4096}, "config.alignment.window is 4096; choose 2 to 512"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(config, tmp_path, changes, said, capsys):
    flags = [f"--config.alignment.{key}={value}" for key, value in changes.items()]
    settings = {
        "model.name": config.model.name,
        "alignment.models": config.alignment.models,
        "alignment.pairs": config.alignment.pairs,
        "alignment.text": config.alignment.text,
        "align.max_length": 64,
    }
    given = [flag.split("=")[0] for flag in flags]
    flags += [f"--config.{k}={v}" for k, v in settings.items() if f"--config.{k}" not in given]
    workdir = tmp_path / "run"
    status = main(["x", "--config=configs/alignment.py:debug", f"--workdir={workdir}", *flags])
    assert status == 1 and said in capsys.readouterr().err
    assert not workdir.exists()
