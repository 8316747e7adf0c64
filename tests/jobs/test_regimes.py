"""The job regimes through the command line."""

import csv
import json

import pytest

from calib_jax.main import main

SMALL = ("train_size=60", "sample_size=200", "population_size=500", "epochs=12", "batch_size=20",
         "learning_rates=0.003,0.02", "ece_weight=5", "seeds=0,1")  # fmt: skip  # fields


@pytest.fixture
def call(tmp_path, capsys):
    def run(*settings):
        status = main(
            [
                "calib_jax",
                "--config=configs/regimes.py",
                f"--workdir={tmp_path / 'run'}",
                *(f"--config.regimes.{setting}" for setting in settings),
            ]
        )
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_known_world_from_command_to_page(call, tmp_path):
    status, out, err = call(*SMALL)
    assert (status, err) == (0, "")
    folder = tmp_path / "run"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["target"]["conf_ece"] == 0
    # 2 methods × 2 rates × 2 seeds, at epochs 0 to 10 and 12.
    points = summary["points"]
    assert len(points) == 8 * 12 and {p["epoch"] for p in points} == {*range(11), 12}
    assert {p["method"] for p in points} == {"SFT", "CFT λ = 5"}
    assert all(p["accuracy"] <= summary["target"]["accuracy"] for p in points)
    within = [p["accuracy"] for p in points if p["conf_ece"] <= p["chance"]]
    assert summary["boundaries"]["the population"]["accuracy"] == max(within)
    assert all(found["recalibrated"]["conf_ece"] < 1e-9 for found in summary["ends"].values())
    rows = [row for row in summary["rows"] if row["metric"] == "conf_ece"]
    assert len(rows) == 97 and {row["probe"] for row in rows} == {"the population"}
    page = (folder / "report.html").read_text()
    assert "target generative model is calibrated" in page and "empirical boundary" in page
    with (folder / "tables" / "regimes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(points)
    assert (folder / "figures" / "plane.png").exists()
    again, shown, _ = call(*SMALL)
    assert again == 0 and "is finished" in shown and "Empirical boundary" in shown


def test_a_batch_larger_than_the_questions_is_refused(call, tmp_path):
    status, _, err = call("train_size=40")
    assert status == 1 and "config.regimes.batch_size is 50" in err and "40 at most" in err
    assert not (tmp_path / "run").exists()
    status, _, err = call("train_size=80", "held_out=0.5")
    assert status == 1 and "80, of which 40 are held out" in err
    for share, count in ((0.001, 0), (0.999, 80)):
        status, _, err = call("train_size=80", f"held_out={share}")
        assert status == 1 and f"holds {count} of 80 questions out" in err


def test_finished_runs_from_command_to_page(call, tmp_path):
    figures = {"n": 50, "accuracy": 0.3, "conf_ece": 0.4, "conf_ece_null_q95": 0.1}
    after = {**figures, "accuracy": 0.7, "conf_ece": 0.05, "accuracy_ci": [0.6, 0.8]}
    summary = {
        "schema": 2, "job": "finetune", "method": "cft", "data": {"seed": 0, "n": {"train": 8}},
        "before": {"exam": {**figures, "accuracy_ci": [0.2, 0.4]}}, "after": {"exam": after},
    }  # fmt: skip  # a summary
    (tmp_path / "cft").mkdir()
    (tmp_path / "cft" / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "cft" / "metrics.jsonl").write_text(
        json.dumps({"step": 0, "epoch": 0, "kind": "estep", "accuracy": 0.2, "conf_ece": 0.5})
    )
    status, out, err = call(f"runs={tmp_path / 'cft'}")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    (edge,) = found["boundaries"].values()
    assert edge["accuracy"] == 0.7
    (advice,) = found["advice"]
    assert advice.startswith("before on exam of") and advice.endswith("try CFT")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "try CFT" in page and "target generative model is calibrated" not in page
    read = (tmp_path / "run" / "inputs.json").read_text()
    assert "cft/summary.json" in read


def test_fields_of_the_world_are_refused_beside_runs(call, tmp_path):
    status, _, err = call("runs=somewhere", "epochs=3")
    assert status == 1 and "config.regimes.epochs" in err and "config.regimes.runs" in err
    assert not (tmp_path / "run").exists()
