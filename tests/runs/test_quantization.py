"""The shift in confidence that int8 weights cause: its figures, and the jobs that report it."""

import json

import numpy as np
import pytest

from calib_jax.confidence.scores import Scores
from calib_jax.config import base
from calib_jax.errors import UserError
from calib_jax.jobs import finetune
from calib_jax.metrics import conf_ece
from calib_jax.reports import predictions
from calib_jax.runs import base_model
from calib_jax.runs.quantization import shift
from calib_jax.runs.run import Run
from calib_jax.training.interrupt import StopRequest

pytest.importorskip("qwix")


def scores(probs, answers) -> Scores:
    probs = np.asarray(probs, np.float32)
    names = tuple(str(i) for i in range(len(probs)))
    return Scores(
        log_scores=np.log(probs),
        probs=probs,
        mask=np.ones(probs.shape, bool),
        answers=np.asarray(answers, np.int32),
        ids=names,
        tasks=(None,) * len(probs),
        subjects=(None,) * len(probs),
    )


def test_figures_of_the_shift(capsys):
    before = scores([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]], [0, 1, 1, 1])
    after = scores([[0.8, 0.2], [0.55, 0.45], [0.7, 0.3], [0.1, 0.9]], [0, 1, 1, 1])
    config = base()
    config.report.num_resamples = 20
    row = shift(config, {"test": before}, {"test": after})["quantization"]["test"]
    # Confidences 0.9, 0.6, 0.7, 0.8 become 0.8, 0.55, 0.7, 0.9.
    assert row["n"] == 4
    assert row["mean_abs_confidence_shift"] == pytest.approx(0.25 / 4, abs=1e-6)
    assert row["max_abs_confidence_shift"] == pytest.approx(0.1, abs=1e-6)
    assert row["mean_confidence_shift"] == pytest.approx(-0.05 / 4, abs=1e-6)
    assert row["argmax_agreement"] == 0.75
    assert (row["accuracy"]["unquantized"], row["accuracy"]["quantized"]) == (0.75, 0.5)
    assert row["accuracy"]["change"] == pytest.approx(-0.25)
    nll = [-np.log([0.9, 0.6, 0.3, 0.8]).mean(), -np.log([0.8, 0.45, 0.3, 0.9]).mean()]
    assert row["nll"]["unquantized"] == pytest.approx(nll[0], rel=1e-5)
    assert row["nll"]["change"] == pytest.approx(nll[1] - nll[0], rel=1e-3)
    ece = [float(conf_ece(s.probs, s.answers)) for s in (before, after)]
    assert row["conf_ece"]["change"] == pytest.approx(ece[1] - ece[0], abs=1e-6)
    assert row["conf_ece"]["change_ci"] == [None, None]  # of four questions none is known
    assert "0.0625 on average (mean -0.0125, at most 0.1000), same prediction in 75.0%" in (
        capsys.readouterr().out
    )
    assert shift(config, {}, {"test": after}) == {}


def check(folder, state):
    """The summary's shift, compared with the predictions that lie beside it."""
    row = json.loads((folder / "summary.json").read_text())["quantization"]["test"]
    first, last = (
        predictions.read(folder / "predictions" / f"{name}-test.parquet", "choice")
        for name in ("unquantized", state)
    )
    moved = last.confidences - first.confidences
    assert np.abs(moved).mean() == pytest.approx(row["mean_abs_confidence_shift"])
    assert 0 < np.abs(moved).max() < 0.05
    assert "What quantisation changes" in (folder / "report.html").read_text()
    return row


@pytest.mark.slow
def test_both_jobs_report_the_shift(command, tmp_path):
    """They compare the model as it is with the one that they go on with."""
    rows = {}
    for job, state in (("evaluate", "measured"), ("finetune", "before")):
        done = command.run(
            f"--workdir={tmp_path / job}",
            f"--config.job={job}",
            "--config.model.quantize=int8",
            *(["--config.train.method=lora", "--config.train.epochs=1"] * (job == "finetune")),
        )
        assert done.returncode == 0, done.stderr
        assert "int8 on test: confidence moves by" in done.stdout
        assert done.stdout.count("Loading") == 2 and done.stdout.count("in int8 onto") == 1
        rows[job] = check(tmp_path / job, state)
    # A fresh adapter changes nothing, so the two measure the same.
    for key in ("unquantized", "quantized"):
        nll = rows["evaluate"]["nll"][key]
        assert rows["finetune"]["nll"][key] == pytest.approx(nll, abs=1e-5)
    # What was trained is the int8 model: it moved, and from the int8 figures.
    before, after = (
        json.loads((tmp_path / "finetune" / "summary.json").read_text())[state]["test"]["nll"]
        for state in ("before", "after")
    )
    assert before == pytest.approx(rows["finetune"]["nll"]["quantized"], abs=1e-6)
    assert after != before


def test_not_measured_where_not_asked_for():
    config = base()
    assert not base_model.measures_quantization(config)
    config.model.quantize = "int8"
    assert base_model.measures_quantization(config)
    config.model.measure_quantization = False
    assert not base_model.measures_quantization(config)


def test_full_fine_tuning_has_no_frozen_base_to_quantise(tmp_path):
    config = base()
    config.model.quantize = "int8"
    with pytest.raises(UserError, match="Set --config.train.method=lora"):
        finetune.main(Run(config, tmp_path / "run", StopRequest()))
    assert not (tmp_path / "run").exists()
