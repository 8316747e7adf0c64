"""The job "evaluate": its summary's two forms, its files, and a finished folder read back."""

import numpy as np
import pytest

from calib_jax import posthoc
from calib_jax.errors import UserError
from calib_jax.jobs import evaluate
from calib_jax.reports import predictions
from calib_jax.reports.result import read as read_result
from calib_jax.runs import results
from calib_jax.runs.run import Run
from calib_jax.training.interrupt import StopRequest
from tests.jobs.conftest import METHODS

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def config(exam_config, monkeypatch):
    """Figures, pages and intervals have tests of their own, and take longer than all else here."""

    def measure(scores, domain, **options):
        right = (scores.predictions == scores.answers).mean()
        confidence = float(scores.confidences.mean())
        row = {"domain": domain, "method": scores.method, "n": len(scores), "accuracy": right}
        row |= {"mean_confidence": confidence, "conf_ece": abs(confidence - right)}
        return row | {"answer_counts": [len(scores)], "top_letter": "A", "top_letter_share": 1.0}

    monkeypatch.setattr(results.measure, "measure", measure)
    return exam_config


def test_several_methods(config, tmp_path, monkeypatch, capsys):
    config.data.eval_size = 8
    evaluate.main(Run(config, tmp_path / "run", StopRequest()))
    said = capsys.readouterr().out
    result = read_result(tmp_path / "run" / "summary.json")
    measured = result["measured"]
    assert list(measured) == ["exam", "exam_hard", "exam_soft", "plain"]
    for name, by_method in measured.items():
        assert list(by_method) == METHODS.split(",") and name in said
        for method, row in by_method.items():
            assert row["method"] == method and f"{row['accuracy']:.3f}".lstrip("0") in said
    assert measured["exam_hard"]["choice"]["n"] + measured["exam_soft"]["choice"]["n"] == 8
    assert result["data"]["n"] == {"exam": 8, "plain": 8} and result["data"]["shots"] == 0
    assert result["data"]["reading"]["exam"]["scored"] == 8
    path = tmp_path / "run" / "predictions" / "measured-exam.parquet"
    assert predictions.methods_of(path) == METHODS.split(",")
    row = measured["exam"]["continuation_min"]
    scores = predictions.read(path, "continuation_min")
    assert row["accuracy"] == pytest.approx((scores.predictions == scores.answers).mean())
    assert (tmp_path / "run" / "tables" / "overview.csv").exists()

    # A finished folder is shown again: no model, no questions.
    monkeypatch.setattr(evaluate, "load_tasks", None)
    with Run(config, tmp_path / "run") as again:
        assert again.show_if_finished()
    assert "exam_hard" in capsys.readouterr().out
    config.confidence.methods = "choice"
    with pytest.raises(UserError, match="another config"), Run(config, tmp_path / "run"):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_head_on_the_states(config, tmp_path):
    config.data.eval = config.data.eval.split(",")[1]
    config.confidence.methods = "choice"
    config.posthoc.methods = "temperature,ridge_head"
    config.posthoc.folds = 2
    run = tmp_path / "run"
    evaluate.main(Run(config, run, StopRequest()))
    figures = read_result(run / "summary.json")["posthoc"]
    assert list(figures) == ["temperature", "ridge_head"]
    head = posthoc.load(run / figures["ridge_head"]["plain"]["calibrator"])
    scores = predictions.read(run / "predictions/measured-plain.parquet", states=True)
    assert scores.states.shape == (10, len(head.mean)) and scores.states.dtype == np.float32
    np.testing.assert_allclose(head(scores.states, scores.mask).sum(axis=1), 1, atol=1e-5)


def test_one_method_is_the_state_measured(config, tmp_path, capsys):
    config.data.eval = config.data.eval.split(",")[1]
    config.confidence.methods = "choice"
    evaluate.main(Run(config, tmp_path / "run", StopRequest()))
    result = read_result(tmp_path / "run" / "summary.json")
    assert result["measured"]["plain"]["n"] == 10
    assert "plain (10 questions)" in capsys.readouterr().out
    assert (tmp_path / "run" / "tables" / "overview.csv").exists()
