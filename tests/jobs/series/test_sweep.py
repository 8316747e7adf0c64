"""The job "sweep": every setting is a run; what is refused."""

import pytest

from calib_jax.errors import UserError
from calib_jax.jobs import sweep
from calib_jax.reports import predictions
from calib_jax.runs.run import show_if_finished
from configs.sweep import get_config as sweep_config
from tests.jobs.series.conftest import fill, start


@pytest.fixture
def sweeping(tmp_path, tiny_model):
    return fill(sweep_config("debug"), tmp_path, tiny_model)


def test_a_sweep_runs_every_weight_with_every_number_of_bins(sweeping, tmp_path, trained, capsys):
    _, calls = trained
    sweeping.sweep.ece_weight, sweeping.sweep.num_bins = "0,0.3,10", "5,20"
    result = start(sweeping, tmp_path / "run", sweep)
    assert [name for name, _, _ in calls] == [
        "lambda0-seed0",
        "lambda0.3-bins5-seed0",
        "lambda0.3-bins20-seed0",
        "lambda10-bins5-seed0",
        "lambda10-bins20-seed0",
    ]
    assert [(c.train.ece_weight, c.em.num_bins) for _, c, _ in calls] == [
        (0, 10),
        (0.3, 5),
        (0.3, 20),
        (10, 5),
        (10, 20),
    ]
    rows = result["comparisons"][0]["rows"]
    assert list(rows) == ["before", *result["points"]]
    # Every setting is measured with the same bins.
    scores = predictions.read(tmp_path / "run/lambda10-bins5-seed0/predictions/after-exam.parquet")
    from calib_jax import metrics

    expected = float(metrics.conf_ece(scores.probs, scores.answers, scores.mask, num_bins=10))
    found = rows["lambda10-bins5"]["in"]["conf_ece"]["value"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert set(result["frontier"]) == {"in", "out"} and all(result["frontier"].values())
    assert (tmp_path / "run/figures/frontier_conf_ece.png").is_file()
    assert {row["subject"] for row in result["rows"]} == set(rows)
    assert {row["a"] for row in result["contrasts"]} == {"before"}
    assert "Pareto" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert show_if_finished(tmp_path / "run") and "λ = 0.3, M = 20" in capsys.readouterr().out


def test_a_sweep_that_cannot_be_is_refused(sweeping, tmp_path):
    for field, value, message in (
        ("ece_weight", "0,-1", "holds '-1'; expected numbers of at least 0"),
        ("ece_weight", "nan", "holds 'nan'"),
        ("num_bins", "0", "holds '0'"),
        ("num_bins", "2.5", "expected whole numbers"),
    ):
        config = sweeping.copy_and_resolve_references()
        config.sweep[field] = value
        with pytest.raises(UserError, match=message):
            start(config, tmp_path / "run", sweep)
    sweeping.train.sft = "none"
    with pytest.raises(UserError, match="no loss"):
        start(sweeping, tmp_path / "run", sweep)
    assert not (tmp_path / "run").exists()
