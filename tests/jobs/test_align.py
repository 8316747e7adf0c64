"""The job align on the tiny model: SFT and DPO end to end, what it writes, what it refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from calib_jax.api import make_mesh
from calib_jax.confidence.preference import PreferenceScores
from calib_jax.config import base, check_config
from calib_jax.errors import UserError
from calib_jax.jobs import align
from calib_jax.questions import preference_rows
from calib_jax.reports import read_metrics
from calib_jax.reports.pairs import predictions
from calib_jax.runs import base_model, preference_setting
from calib_jax.runs.run import Run, show_if_finished
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import make_questions, write_questions


@pytest.fixture
def config(tmp_path, tiny_model, undrawn, monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(base_model, "make_mesh", lambda shape: make_mesh((1, 1, 1), one))
    # As many questions as in the other tests of jobs, which compile the same metrics.
    train = write_questions(tmp_path / "train.jsonl", make_questions(24))
    held_out = [
        q.__class__(q.id, "Held out. " + q.question, q.choices, q.answer)
        for q in make_questions(16, seed=1)
    ]
    test = write_questions(tmp_path / "test.jsonl", held_out)
    config = base()
    config.job = "align"
    config.method = "dpo"
    config.model.name = str(tiny_model)
    config.data.train = ""
    config.data.eval = str(test)
    config.align.train = f"questions:{train}@0.8"
    config.align.eval = f"questions:{test}@0.8"
    config.align.max_length = config.prompt.max_length = 256
    config.align.beta = 1.0
    config.batch.max_buckets = 1
    config.train.update({"method": "lora", "learning_rate": 1e-2, "remat": False})
    config.train.update({"epochs": 2, "batch_size": 16})
    config.report.num_resamples = 20
    config.checkpoint.every_steps = 0
    return config


@pytest.mark.slow
def test_dpo_end_to_end_stopped_and_continued(config, tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    align.main(Run(config, whole, StopRequest()))
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["job"] == "align" and summary["after"]["test"]["n"] == 16
    assert summary["data"]["align"]["train"]["rate"] == 0.8
    for name, count in (("held_out", 16), ("training", 16)):
        part = summary["preferences"][name]
        scores = predictions.read_pairs(whole / f"predictions/after-pairs-{name}.parquet")
        assert part["pairs"]["after"]["n"] == len(scores) == count
        assert part["pairs"]["after"]["accuracy"] == pytest.approx((scores.margins > 0).mean())
        ratio = 1 / (1 + np.exp(-scores.margins))
        excess = (ratio - scores.rates).mean()
        assert part["pairs"]["after"]["mean_excess"] == pytest.approx(excess, abs=1e-5)
    moved = summary["preferences"]["training"]["change"]["pairs"]["after"]
    assert moved["mean_margin"] > 0.1  # what is trained on is preferred more
    lines = read_metrics(whole / "metrics.jsonl")
    assert [line["kind"] for line in lines] == ["train", "train", "eval", "eval"] * 2
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    shown = capsys.readouterr().out
    assert "held-out preference pairs (16)" in shown and "conf-ECE" in shown
    assert show_if_finished(whole) and "preference rate" in capsys.readouterr().out
    assert (whole / "report.html").exists()
    assert (whole / "tables/preferences.md").read_text().count("Policy ratio: pi(chosen)") == 1

    # The same again, stopped in the second epoch.
    stop = StopRequest()
    original = align.Reporter.on_step

    def on_step(self, *arguments):
        original(self, *arguments)
        stop.requested = True

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(align.Reporter, "on_step", on_step)
        align.main(Run(config, parts, stop))
    assert not (parts / "summary.json").exists()
    align.main(Run(config, parts, StopRequest()))
    again = json.loads((parts / "summary.json").read_text())
    assert again["training"]["resumed_from_step"] is not None
    for key in ("before", "after", "preferences"):
        assert again[key] == summary[key]
    assert read_metrics(parts / "metrics.jsonl") == lines


def test_sft_on_the_chosen_answers_of_a_file(config, tmp_path):
    rows = [{"prompt": f"Say {i}.", "chosen": "yes", "rejected": "no"} for i in range(20)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.align.method = "sft"
    config.align.train, config.align.train_size = str(path), 16
    config.align.eval = ""
    config.train.epochs = 3
    align.main(Run(config, tmp_path / "run", StopRequest()))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["preferences"] == {} and summary["after"]["test"]["domain"] == ""
    losses = [
        line["loss"]
        for line in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if line["kind"] == "train"
    ]
    assert losses[-1] < losses[0] - 0.1


def load(config):
    check_config(config)
    return preference_setting.load_examples(config, set())


def test_pairs_of_one_file_are_held_out_by_prompt(config, tmp_path):
    rows = [{"prompt": f"Say {i % 10}.", "chosen": f"{i}", "rejected": "no"} for i in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.align.train, config.align.eval = str(path), "train:6"
    train, held_out, report = load(config)
    assert (len(train), len(held_out)) == (24, 6) and report["train"]["removed_overlap"] == 0
    assert not {item.text for item in train} & {item.text for item in held_out}
    config.align.eval = str(path)
    with pytest.raises(UserError, match=r"all 30 items.*align\.eval=train:200"):
        load(config)


def test_nothing_is_learnt_that_is_measured(config):
    train, held_out, report = preference_setting.load_examples(config, {"which number is item 3"})
    assert report["train"]["removed_overlap"] == 1 and len(train) == 23
    assert all(item.asked.startswith("Held out.") for item in held_out)


def test_sizes_are_at_most_so_many_and_what_is_left_aside_is_said(config, tmp_path):
    rows = [{"prompt": f"Say {i}.", "chosen": f"{i}", "rejected": "no"} for i in range(30)]
    rows += [rows[0], {"prompt": "Say it.", "chosen": "no", "rejected": "no"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.align.train, config.align.eval = str(path), "train:6"
    config.align.train_size = config.align.eval_size = 128
    train, held_out, report = load(config)
    assert (len(train), len(held_out)) == (24, 6) and report["train"]["not_drawn"] == 0
    rest = "config.align.train: left out of 32 rows: 1 with identical answers, 1 that occurred"
    assert preference_setting.left_out(report, config.align) == [f"{rest} before"]
    config.align.train_size = config.align.eval_size = 4
    train, held_out, report = load(config)
    assert (len(train), len(held_out), report["train"]["n"]) == (4, 4, 4)
    assert (report["train"]["not_drawn"], report["eval"]["not_drawn"]) == (20, 2)
    report["train"] |= {"n": 3, "skipped_too_long": 1}  # found later, of the four
    found = preference_setting.left_out(report, config.align)
    assert found[0].endswith(", 1 longer than 256 tokens (config.align.max_length)")
    assert found[1:] == [
        "config.align.train: 4 of 24 pairs (config.align.train_size)",
        "config.align.eval: 4 of 6 pairs (config.align.eval_size)",
    ]


def test_every_reason_has_words():
    known = {
        row_reason.reason
        for row_reason in vars(preference_rows).values()
        if isinstance(row_reason, preference_rows.Skipped)
    }
    assert known | {"duplicates", "duplicate_options"} == set(preference_setting._REASONS)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("align.method", "ppo", "align.method is 'ppo'; choose from: sft, dpo"),
        ("align.train", "", "align.train names no source"),
        ("align.train_size", -1, "align.train_size is -1; expected 0 or more"),
        ("align.max_length", 0, "align.max_length is 0; expected 1 or more"),
        ("data.eval", "", "data.eval names no source"),
        ("train.early_stopping", 2, "early_stopping belongs to the job finetune"),
        ("model.quantize", "int8", "freezes the base"),
    ],
)
def test_settings_that_cannot_be(config, field, value, message):
    config.train.method = "full"
    section, key = field.split(".")
    config[section][key] = value
    with pytest.raises(UserError, match=message):
        load(config)


def test_the_log_holds_the_ratio_per_token_of_answers_with_several():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(-80, 20, (2, 30))
    lengths = rng.integers(20, 60, (2, 30)).astype(np.int32)
    rates = np.where(np.arange(30) < 20, 0.7, np.nan)
    scores = PreferenceScores(chosen, rejected, *lengths, rates, tuple(map(str, range(30))))
    found = align.logged(scores)
    ratio = 1 / (1 + np.exp(rejected / lengths[1] - chosen / lengths[0]))[:20]
    assert found["mean_ratio_normalised"] == pytest.approx(ratio.mean(), abs=1e-5)
    assert found["mean_excess_normalised"] == pytest.approx(ratio.mean() - 0.7, abs=1e-5)
    letters = dataclasses.replace(scores, chosen_tokens=np.ones(30), rejected_tokens=np.ones(30))
    assert "mean_ratio_normalised" not in align.logged(letters)
