"""The job winrate from files to table."""

import json

import numpy as np
import pytest

from calib_jax.main import main
from calib_jax.metrics import winrate as metrics


@pytest.fixture
def call(tmp_path, capsys):
    def run(judgements, *more):
        status = main(
            [
                "calib_jax",
                "--config=configs/winrate.py",
                f"--workdir={tmp_path / 'run'}",
                f"--config.winrate.judgements={judgements}",
                *more,
            ]
        )
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_two_files_in_one_table(call, tmp_path):
    rng = np.random.default_rng(0)
    preferences, sizes = 1 + rng.random(40), rng.integers(5, 200, (40, 2))
    rows = [
        {
            "instruction": f"{i}",
            "generator_1": "base",
            "generator_2": "ours|x",
            "output_1": "a" * int(n),
            "output_2": "b" * int(m),
            "preference": p,
        }
        for i, (p, (m, n)) in enumerate(zip(preferences, sizes, strict=True))
    ]
    rows[3]["preference"] = None
    (tmp_path / "annotations.json").write_text(json.dumps(rows))
    games = [
        {"uid": f"{i}", "model": "ours", "baseline": "o3", "games": [{"score": a}, {"score": b}]}
        for i, (a, b) in enumerate([("A>B", "A>>B"), ("A=B", "A=B"), ("A>>B", "B>A")] * 3)
    ]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in games))
    files = f"{tmp_path / 'annotations.json'},{tmp_path / 'ours.jsonl'}"
    status, out, _ = call(files)
    assert status == 0
    alpaca, arena = json.loads((tmp_path / "run" / "summary.json").read_text())["contests"]
    kept = np.arange(40) != 3
    wins = preferences[kept] - 1
    assert (alpaca["n"], alpaca["unjudged"]) == (39, 1)
    assert alpaca["win_rate"] == pytest.approx(wins.mean())
    assert alpaca["standard_error"] == pytest.approx(wins.std(ddof=1) / np.sqrt(39))
    assert alpaca["won"] == (wins > 0.5).sum() and alpaca["tied"] == 0
    assert alpaca["discrete_win_rate"] == pytest.approx((wins > 0.5).mean())
    ours, theirs = sizes[kept].T
    fit = metrics.length_controlled(wins, ours, theirs)
    assert alpaca["length_controlled_win_rate"] == pytest.approx(float(fit.win_rate))
    assert alpaca["length_ratio"] == pytest.approx(ours.mean() / theirs.mean())
    for name in ("win_rate", "length_controlled_win_rate"):
        low, high = alpaca[f"{name}_ci"]
        assert low < alpaca[name] < high
    # Of every three questions: 3 of 4 games, 1 of 2, 0 of 4.
    assert arena["win_rate"] == pytest.approx(4 / 10)
    assert (arena["won"], arena["tied"], arena["lost"]) == (3, 3, 3)
    assert arena["length_controlled_win_rate"] is None
    assert "config.winrate.answers" in arena["no_length_control"]
    page = (tmp_path / "run" / "winrate.md").read_text()
    for text in ("ours\\|x : base", "ours : o3", "1 questions without a verdict", "Bradley-Terry"):
        assert text in page
    assert "40.0" in out
    status, out, _ = call(files)
    assert status == 0 and "is finished" in out and "40.0" in out


def test_few_questions_and_bad_input(call, tmp_path):
    status, _, err = call("")
    assert status == 1 and "config.winrate.judgements names no file" in err
    status, _, err = call(tmp_path / "none.json")
    assert status == 1 and "no such file" in err and not (tmp_path / "run").exists()
    status, _, err = call("a.json,a.json")
    assert status == 1 and "names a.json twice" in err
    row = {"win": 1, "length": 3, "baseline_length": 2}
    (tmp_path / "few.jsonl").write_text(json.dumps(row) + "\n")
    assert call(tmp_path / "few.jsonl")[0] == 0
    (found,) = json.loads((tmp_path / "run" / "summary.json").read_text())["contests"]
    assert found["win_rate"] == 1 and found["win_rate_ci"] == [None, None]
    assert found["no_length_control"] == "1 questions are too few"
