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
    assert summary["boundaries"]["population"]["accuracy"] == max(within)
    assert all(found["recalibrated"]["conf_ece"] < 1e-9 for found in summary["ends"].values())
    rows = [row for row in summary["rows"] if row["metric"] == "conf_ece"]
    assert len(rows) == 97 and {row["probe"] for row in rows} == {"population"}
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
