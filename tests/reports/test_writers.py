import json

import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.writers import MetricsWriter, plain, read_metrics


def test_plain_turns_arrays_into_numbers_and_nan_into_null():
    value = {"a": np.float32(0.5), "b": [np.nan, np.inf, jnp.array([1, 2])], 3: (True, None, "x")}
    assert plain(value) == {"a": 0.5, "b": [None, None, [1, 2]], "3": [True, None, "x"]}


def test_each_line_is_on_disk_at_once(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write("train", step=1, epoch=0, loss=jnp.float32(0.25))
        assert read_metrics(tmp_path / "m.jsonl") == [
            {"step": 1, "epoch": 0, "kind": "train", "loss": 0.25}
        ]


def test_nan_is_null_in_the_file(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl") as writer:
        writer.write("eval", 1, 0, split="s", auroc=float("nan"))
    assert json.loads((tmp_path / "m.jsonl").read_text())["auroc"] is None


def test_unknown_kind_is_refused(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl") as writer, pytest.raises(ValueError, match="kind"):
        writer.write("test", 1, 0)


def _steps(path):
    return [row["step"] for row in read_metrics(path)]


@pytest.mark.parametrize(
    "torn", ["", '{"step": 5, "ep', '{"step": 5, "epoch": 0, "kind": "train"}']
)
def test_resume_continues_after_a_torn_line(tmp_path, torn):
    path = tmp_path / "m.jsonl"
    with MetricsWriter(path) as writer:
        for step in range(1, 5):
            writer.write("train", step, 0)
    with path.open("a") as file:
        file.write(torn)  # no newline: the kill came while this was written
    assert _steps(path) == [1, 2, 3, 4]
    with MetricsWriter(path) as writer:
        writer.truncate_after(2)
        for step in range(3, 6):
            writer.write("train", step, 0)
    assert _steps(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lines_before_kill", range(8))
def test_killed_anywhere_a_resumed_run_leaves_the_lines_of_an_uninterrupted_one(
    tmp_path, lines_before_kill
):
    story = [  # (kind, step, epoch, split); a checkpoint is taken at step 2, after its "train" line
        ("estep", 0, 0, None),
        ("train", 1, 0, None),
        ("train", 2, 0, None),
        ("eval", 2, 0, "near"),
        ("eval", 2, 0, "far"),
        ("estep", 2, 1, None),
        ("train", 3, 1, None),
        ("train", 4, 1, None),
    ]

    def tell(writer, lines):
        for kind, step, epoch, split in lines:
            writer.write(kind, step, epoch, split=split, value=step * 10 + epoch)

    with MetricsWriter(tmp_path / "whole.jsonl") as writer:
        tell(writer, story)
    path = tmp_path / "killed.jsonl"
    with MetricsWriter(path) as writer:
        tell(writer, story[:lines_before_kill])
    checkpoint = 2 if lines_before_kill >= 3 else -1
    with MetricsWriter(path) as writer:
        writer.truncate_after(checkpoint)
        tell(writer, story[3:] if checkpoint == 2 else story)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)
    path.write_text('{"step": 1}\n{"epoch": 2}\n')
    with pytest.raises(UserError, match="line 2.*step"):
        read_metrics(path)


def test_disabled_writes_nothing(tmp_path):
    with MetricsWriter(tmp_path / "m.jsonl", enabled=False) as writer:
        writer.truncate_after(0)
        writer.write("train", 1, 0)
    assert list(tmp_path.iterdir()) == []
