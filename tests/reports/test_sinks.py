"""TensorBoard and Weights & Biases: the numbers of metrics.jsonl, never at a run's expense."""

import pytest

from calib_jax.errors import UserError
from calib_jax.reports import open_metrics, read_metrics, sinks
from calib_jax.reports.writers import MetricsWriter


class Recorder:
    """A sink that keeps what it is told."""

    def __init__(self):
        self.lines, self.closed = [], 0

    def reset(self, lines):
        self.lines = list(lines)

    def write(self, line):
        self.lines.append(line)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("lines_before_kill", range(6))
def test_a_resumed_run_tells_a_sink_exactly_the_lines_of_the_file(tmp_path, lines_before_kill):
    story = [("estep", 0), ("train", 1), ("train", 2), ("eval", 2), ("train", 3), ("train", 4)]
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, sinks=[Recorder()]) as writer:
        for kind, step in story[:lines_before_kill]:
            writer.write(kind, step, 0, loss=step / 2)
    sink = Recorder()
    with MetricsWriter(path, sinks=[sink]) as writer:
        writer.truncate_after(2 if lines_before_kill >= 3 else -1)
        for kind, step in story[3:] if lines_before_kill >= 3 else story:
            writer.write(kind, step, 0, loss=step / 2)
    assert sink.lines == read_metrics(path) and len(sink.lines) == 6 and sink.closed == 1


def test_only_process_0_tells_a_sink(tmp_path):
    sink = Recorder()
    with MetricsWriter(tmp_path / "m.jsonl", enabled=False, sinks=[sink]) as writer:
        writer.truncate_after(0)
        writer.write("train", 1, 0, loss=1.0)
    assert sink.lines == [] and sink.closed == 0


def test_a_sink_that_fails_is_said_once_and_the_run_goes_on(tmp_path, capsys, monkeypatch):
    def fail(folder):
        raise OSError("no network")

    monkeypatch.setattr(sinks, "TensorBoard", fail)
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: object())
    with open_metrics(tmp_path, "tensorboard") as writer:
        for step in range(3):
            writer.write("train", step, 0, loss=1.0)
    assert capsys.readouterr().err.count("tensorboard is off") == 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_unknown_and_missing_writers_are_refused_with_the_extra(monkeypatch):
    with pytest.raises(UserError, match="'tensorbord'; choose from: tensorboard, wandb"):
        sinks.check("tensorbord")
    monkeypatch.setattr(sinks.importlib.util, "find_spec", lambda name: None)
    for name in sinks.EXTRAS:
        with pytest.raises(UserError, match=rf"{name!r}, which needs.*calib_jax\[{name}\]"):
            sinks.check(name)
    assert sinks.check("") == ()


def _tell(workdir, names):
    with open_metrics(workdir, names) as writer:
        writer.truncate_after(-1)
        for step in range(1, 5):
            writer.write("train", step, 0, loss=1 / step, bins=[1, 2])
    with open_metrics(workdir, names) as writer:
        writer.truncate_after(2)
        for step in range(3, 6):
            writer.write("train", step, 0, loss=1 / step)


def test_tensorboard_shows_each_step_once(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    from tensorboardX.proto import event_pb2

    _tell(tmp_path, "tensorboard")
    found = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, an event, its checksum
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [
                (event.step, v.simple_value) for v in event.summary.value if v.tag == "train/loss"
            ]
            at += length + 16
    assert [step for step, _ in found] == [1, 2, 3, 4, 5]
    assert [value for _, value in found] == pytest.approx([1 / s for s in range(1, 6)])


def test_wandb_runs_offline_and_leaves_one_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    _tell(tmp_path, "wandb")
    (record,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert record.stat().st_size > 0
    assert (tmp_path / "wandb-run-id").read_text() in record.name
