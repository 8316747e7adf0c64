"""The main job from the command line: results, interruptions, folders that belong to others."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from calib_jax.reports import predictions, read_metrics

NUMBERS = ("before", "after", "change", "data")


def numbers(workdir):
    summary = json.loads((workdir / "summary.json").read_text())
    return {key: summary[key] for key in NUMBERS}


def training_lines(workdir):
    return read_metrics(workdir / "metrics.jsonl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model):
    from tests.jobs.conftest import CommandLine

    folder = tmp_path_factory.mktemp("undisturbed")
    command = CommandLine(folder, tiny_model)
    done = command.run(f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return command, folder / "run", done


def test_everything_that_a_run_leaves(undisturbed):
    _, workdir, done = undisturbed
    names = {path.name for path in workdir.iterdir()}
    assert names >= {
        "config.json",
        "summary.json",
        "metrics.jsonl",
        "report.html",
        "reliability.png",
        "figures",
        "tables",
        "predictions",
        "checkpoints",
    }
    summary = json.loads((workdir / "summary.json").read_text())
    row = summary["after"]["test"]
    assert row["n"] == 16 and row["domain"] == "out"
    assert 0 <= row["conf_ece"] <= 1 and len(row["conf_ece_ci"]) == 2
    scores = predictions.read(workdir / "predictions" / "after-test.parquet")
    assert (scores.predictions == scores.answers).mean() == pytest.approx(row["accuracy"])
    lines = training_lines(workdir)
    boxes = [line["sorted_confidences"] for line in lines if line["kind"] == "estep"]
    assert all(0 <= q <= 1 and row == sorted(row) for box in boxes for row in box for q in row)
    kinds = [line["kind"] for line in lines]
    assert kinds.count("estep") == 2 and kinds.count("train") == 10
    assert "conf-ECE" in done.stdout


def test_finished_run_prints_its_table_and_changes_nothing(undisturbed):
    command, workdir, _ = undisturbed
    before = (workdir / "summary.json").stat().st_mtime_ns
    again = command.run(f"--workdir={workdir}")
    assert again.returncode == 0 and "conf-ECE" in again.stdout
    assert (workdir / "summary.json").stat().st_mtime_ns == before


def test_folder_of_another_config_is_refused_with_the_difference(undisturbed):
    command, workdir, _ = undisturbed
    refused = command.run(f"--workdir={workdir}", "--config.train.epochs=3")
    assert refused.returncode == 1
    assert '"epochs": 2' in refused.stderr and '"epochs": 3' in refused.stderr
    assert "Traceback" not in refused.stderr


def test_folder_that_is_no_run_is_refused(command, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    refused = command.run(f"--workdir={tmp_path / 'full'}")
    assert refused.returncode == 1 and "not empty" in refused.stderr
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def wait_for(process, ready, limit=240):
    start = time.monotonic()
    while not ready():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() - start < limit
        time.sleep(0.005)


def steps(workdir):
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    return sum(line["kind"] == "train" for line in read_metrics(path))


def saving(workdir):
    """A checkpoint is being written: its folder has Orbax's temporary name."""
    folder = workdir / "checkpoints"
    return folder.exists() and any("tmp" in path.name for path in folder.iterdir())


MOMENTS = (
    saving,
    lambda workdir: steps(workdir) == 2,  # within an epoch
    lambda workdir: steps(workdir) == 5,  # between epochs
)


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_numbers(undisturbed, tmp_path):
    """Killed at every one of the moments in turn; then left alone."""
    command, expected, _ = undisturbed
    workdir = tmp_path / "run"
    for comes in MOMENTS:
        process = command.start(f"--workdir={workdir}")
        wait_for(process, lambda comes=comes: comes(workdir))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (workdir / "summary.json").exists()
    done = command.run(f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert numbers(workdir) == numbers(expected)
    assert training_lines(workdir) == training_lines(expected)
    for state in ("before", "after"):
        name = f"predictions/{state}-test.parquet"
        ours, theirs = predictions.read(workdir / name), predictions.read(expected / name)
        np.testing.assert_array_equal(ours.log_scores, theirs.log_scores)


@pytest.mark.slow
def test_sigterm_saves_exits_cleanly_and_the_run_goes_on(undisturbed, tmp_path):
    command, expected, _ = undisturbed
    workdir = tmp_path / "run"
    # No checkpoint is due, so the one that is there was made for the signal.
    rare = "--config.checkpoint.every_steps=1000"
    process = command.start(f"--workdir={workdir}", rare)
    wait_for(process, lambda: steps(workdir) == 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and "same command continues" in output
    assert [p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    done = command.run(f"--workdir={workdir}", rare)
    assert done.returncode == 0, done.stderr
    assert "continuing from step" in done.stdout
    assert numbers(workdir) == numbers(expected)
    assert training_lines(workdir) == training_lines(expected)


@pytest.mark.slow
def test_other_questions_than_the_run_began_with_are_refused(undisturbed, tmp_path):
    command, _, _ = undisturbed
    workdir, rare = tmp_path / "run", "--config.checkpoint.every_steps=1000"
    train = tmp_path / "train.jsonl"
    lines = Path(command.train).read_text().splitlines(keepends=True)
    train.write_text("".join(lines))
    flags = (f"--workdir={workdir}", rare, f"--config.data.train={train}")
    process = command.start(*flags)
    wait_for(process, lambda: steps(workdir) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    train.write_text("".join(lines[:-3]))
    done = command.run(*flags)
    assert done.returncode == 1 and f"{train}: other content" in done.stderr
    assert not (workdir / "summary.json").exists()
