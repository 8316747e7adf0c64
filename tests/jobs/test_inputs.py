"""No result of old inputs: every job, finished or killed, with every input changed in turn."""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import UserError, provenance
from calib_jax import main as entry
from calib_jax.config import FIELDS, base
from calib_jax.jobs import winrate
from calib_jax.main import main
from calib_jax.models import model as models
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.runs import run
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import make_questions, write_questions, write_tiny_model

MODEL = ["m/config.json", "m/model.safetensors", "m/tokenizer.json", "m/tokenizer_config.json"]
ADAPTER = ["lora/adapter_config.json", "lora/adapter_model.safetensors"]
TASK = """
shots_split = "dev"
eval_split = "test"
choice = "{question}\\n{options}\\nAnswer:"
[files]
dev = "dev.jsonl"
test = "test.jsonl"
"""
TRAINING = {
    "data.train": "train.jsonl",
    "data.eval": "test.jsonl",
    "data.validation": "",
    "data.train_size": 0,
    "data.eval_size": 0,
    "prompt.max_length": 256,
    "train.batch_size": 8,
}
# job -> config file, settings, inputs beside the model's.
JOBS = {
    "evaluate": ("evaluate", {"data.eval": "exam.toml", "data.shots": 1,
                              "confidence.methods": "choice", "model.adapter": "lora",
                              "data.eval_size": 0},
                 ["exam.toml", "dev.jsonl", "test.jsonl", *ADAPTER]),
    "finetune": ("cft", TRAINING, ["train.jsonl", "test.jsonl"]),
    "align": ("dpo", {"align.train": "pairs.jsonl", "align.eval": "train:3", "align.train_size": 0,
                      "align.eval_size": 0, "align.max_length": 256, "data.eval": "test.jsonl",
                      "data.eval_size": 0, "prompt.max_length": 256, "train.batch_size": 8},
              ["pairs.jsonl", "test.jsonl"]),
    "compare": ("compare", {**TRAINING, "compare.methods": "before,temperature,sft"},
                ["train.jsonl", "test.jsonl"]),
    "sweep": ("sweep", {**TRAINING, "sweep.ece_weight": "1"}, ["train.jsonl", "test.jsonl"]),
    "stages": ("stages", {**TRAINING, "stages.chain": "cft", "align.eval": "pairs.jsonl",
                          "align.eval_size": 0, "align.max_length": 256},
               ["train.jsonl", "test.jsonl", "pairs.jsonl"]),
    "study": ("study", {"study.pairs": "one=m->m+lora", "data.eval": "test.jsonl",
                        "confidence.methods": "choice"},
              ["test.jsonl", *ADAPTER]),
    "lifecycle": ("lifecycle", {"lifecycle.models": "a=m,b=m+lora", "lifecycle.axis": "model",
                                "lifecycle.text": "text.txt", "lifecycle.context_length": 24,
                                "lifecycle.facts": "facts", "lifecycle.tasks": "test.jsonl",
                                "data.shots": 0},
                  ["text.txt", "facts/P0.jsonl", "facts/templates.jsonl", "test.jsonl", *ADAPTER]),
    "alignment": ("alignment", {"alignment.models": "after=m+lora",
                                "alignment.pairs": "pairs.jsonl", "alignment.text": "text.txt",
                                "alignment.window": 16, "align.max_length": 256},
                  ["pairs.jsonl", "text.txt", *ADAPTER]),
    "generate": ("generate", {"generate.prompts": "prompts.jsonl", "generate.max_new_tokens": 3,
                              "prompt.chat": False, "generate.name": "tiny"},
                 ["prompts.jsonl"]),
    "winrate": ("winrate", {"winrate.judgements": "wins.jsonl"}, ["wins.jsonl"]),
    "report": ("report", {"report.predictions": "p.csv"}, ["p.csv"]),
    "plan": ("plan:smollm2@cpu-1gib", {"plan.model": "m", "prompt.max_length": 32,
                                       "train.batch_size": 4}, ["m/config.json"]),
}  # fmt: skip  # a table: a field and what it is given
WITHOUT_MODEL = ("winrate", "report", "plan")
LIGHT = {"report.num_resamples": 5, "batch.max_buckets": 1}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with every kind of input, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_tiny_model(Path("m"), eos_token_id=70)
    checkpoint = models.open_checkpoint("m")
    lora = LoraConfig(2, 4.0, targets=("q_proj",))
    rng = np.random.default_rng(3)
    tree = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(0, 0.2, shape[0]), jnp.float32),
        lora_shapes(checkpoint.config, lora),
        is_leaf=lambda x: isinstance(x, tuple),
    )
    Path("lora").mkdir()
    peft.write_adapter(
        Path("lora"),
        tree,
        lora,
        checkpoint.config,
        base="m",
        revision="",
        dtype=jnp.dtype("float32"),
    )
    questions = make_questions(24, options=(4, 4))
    for i, name in enumerate(("train", "test", "dev")):
        write_questions(Path(f"{name}.jsonl"), questions[8 * i : 8 * i + 8])
    Path("exam.toml").write_text(TASK)
    Path("text.txt").write_text(
        "\n\n".join(f"Paragraph {i} continues" + " and on" * 9 for i in range(4))
    )
    Path("facts").mkdir()
    write_rows("facts/P0.jsonl", [{"sub_label": f"S{j}", "obj_label": f"O{j}"} for j in range(4)])
    write_rows("facts/templates.jsonl", [{"relation": "P0", "template": "[X] is in [Y] ."}])
    sides = {"chosen": "yes", "rejected": "no"}
    write_rows("pairs.jsonl", [{"prompt": f"Say {i} ", **sides} for i in range(11)])
    write_rows("prompts.jsonl", [{"instruction": f"Say {i}."} for i in range(2)])
    write_rows("wins.jsonl", [{"id": f"{i}", "win": i % 2} for i in range(6)])
    Path("p.csv").write_text("p_A,p_B,answer\n.9,.1,B\n.8,.2,B\n.3,.7,A\n.6,.4,A\n")
    return tmp_path


def write_rows(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def arguments(job, workdir="run", **changes):
    config, settings, _ = JOBS[job]
    name, _, preset = config.partition(":")
    has_preset = job not in ("export", "report", "winrate", "generate")
    preset = preset or ("debug" if has_preset else "")
    fixed = {k: v for k, v in LIGHT.items() if job in FIELDS[k].jobs and job != "plan"}
    if job not in WITHOUT_MODEL and "model.name" not in settings and job != "study":
        fixed["model.name"] = "m"
    if job == "lifecycle":
        fixed.pop("model.name")
    flags = {**fixed, **settings, **changes}
    return [
        "calib_jax",
        f"--config=configs/{name}.py" + (f":{preset}" if preset else ""),
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in flags.items()),
    ]


def changed(path: Path) -> bytes:
    """Changes a file, its size and its time of change as they were; returns what it held."""
    held, times = path.read_bytes(), path.stat()
    middle = len(held) // 2
    path.write_bytes(held[:middle] + bytes([held[middle] ^ 1]) + held[middle + 1 :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return held


def without_times(summary):
    if isinstance(summary, dict):
        names = ("wall_", "peak_", "speed", "seconds", "resumed", "versions")
        return {k: without_times(v) for k, v in summary.items() if not k.startswith(names)}
    return [without_times(v) for v in summary] if isinstance(summary, list) else summary


# One job with a model and one without; the rest, which takes minutes, is for `make test-slow`.
QUICK = ("evaluate", "report")


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=[] if job in QUICK else pytest.mark.slow) for job in JOBS]
)
def test_every_input_changed_in_turn(job, world, one_device, capsys, watched):
    opened, read_fields = watched
    assert main(arguments(job)) == 0
    record = json.loads(Path("run/inputs.json").read_text())
    assert record["code"] == provenance.code_version()
    files = {Path(e["path"]) for e in record["inputs"].values() if "size" in e}
    expected = [*JOBS[job][2], *(MODEL if job not in WITHOUT_MODEL else [])]
    assert files >= {world / name for name in expected}
    assert files >= opened, "what was opened was recorded"
    assert files == {world / name for name in expected}

    # Every field that the job is said to obey was looked at.
    needed = {path for path, field in FIELDS.items() if job in field.jobs}
    missed = {path for path in needed if path.split(".")[0] not in ("job",)} - read_fields
    assert missed <= UNREAD.get(job, set()) | {"accept_other_code"}, missed

    before = json.loads(Path("run/summary.json").read_text())
    capsys.readouterr()
    for finished in (True, False):
        if not finished:
            for path in Path("run").rglob("summary.json"):
                path.unlink()
        for path in sorted(files):
            held = changed(path)
            assert main(arguments(job)) == 1
            out, err = capsys.readouterr()
            assert str(path) in err and "other content" in err and "--workdir" in err
            assert "is finished" not in out
            assert finished or not Path("run/summary.json").exists()
            path.write_bytes(held)
        for folder in {path.parent for path in files if path.name in ("model.safetensors",)}:
            (folder / "model-00002.safetensors").write_bytes(b"")
            assert main(arguments(job)) == 1
            assert "model-00002.safetensors added" in capsys.readouterr().err
            (folder / "model-00002.safetensors").unlink()
            (folder / "notes.json").write_text("{}")  # of no use to any model
        # As it was: shown, or continued.
        assert main(arguments(job)) == 0
        assert ("is finished" in capsys.readouterr().out) == finished
    after = json.loads(Path("run/summary.json").read_text())
    assert without_times(after) == without_times(before)
    if job == "finetune":  # what was trained is not merged into another base
        held = changed(Path("m/model.safetensors"))
        export = ["x", "--config=configs/export.py", "--workdir=out", "--config.export.run=run"]
        assert main(export) == 1 and not Path("out").exists()
        assert "m/model.safetensors: other content" in capsys.readouterr().err
        Path("m/model.safetensors").write_bytes(held)
        assert main(export) == 0


def test_a_change_after_a_kill_is_refused_and_what_was_scored_is_kept(
    world, one_device, capsys, monkeypatch
):
    """The first split of one model's, the second of another's: the fault that this is against."""
    more = {"data.eval": "a=test.jsonl,b=dev.jsonl", "data.shots": 0, "model.adapter": ""}
    first = Path("run/predictions/measured-a.parquet")
    monkeypatch.setattr(entry, "StopRequest", lambda: StopWhen(first))
    assert main(arguments("evaluate", **more)) == 143
    assert "the same command continues" in capsys.readouterr().err
    held_first = first.read_bytes()
    monkeypatch.undo()
    monkeypatch.chdir(world)
    for name in ("m/model.safetensors", "test.jsonl", "dev.jsonl"):
        held = changed(Path(name))
        assert main(arguments("evaluate", **more)) == 1
        assert f"{name}: other content" in capsys.readouterr().err
        Path(name).write_bytes(held)
    Path("dev.jsonl").rename("moved.jsonl")
    assert main(arguments("evaluate", **more)) == 1
    Path("moved.jsonl").rename("dev.jsonl")
    assert main(arguments("evaluate", **more)) == 0
    assert first.read_bytes() == held_first


class StopWhen(StopRequest):
    """A signal as soon as there is a file."""

    def __init__(self, path, signal=signal.SIGTERM):
        super().__init__()
        self.path, self.sent = path, signal

    def install(self):
        pass

    def check(self):
        if self.path.exists():
            self.signal = self.sent
            raise Stopped


@pytest.fixture
def report(world, capsys):
    """The quickest job, run once; calls it again: (status, standard output, standard error)."""
    assert main(arguments("winrate")) == 0
    capsys.readouterr()

    def again(*more):
        status = main([*arguments("winrate"), *more])
        return (status, *capsys.readouterr())

    return again


def edit_record(**changes):
    path = Path("run/inputs.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_touched_is_hashed_once_and_what_was_not_is_not(report, monkeypatch):
    hashed = []
    original = provenance._hash
    monkeypatch.setattr(
        provenance, "_hash", lambda path, *stamp: hashed.append(path) or original(path, *stamp)
    )
    assert report()[0] == 0 and not hashed
    os.utime("wins.jsonl")
    assert report()[0] == 0 and len(hashed) == 1
    assert report()[0] == 0 and len(hashed) == 1, "the new times were taken down"


def test_large_files_are_hashed_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_LARGE", 4)
    provenance._hash.cache_clear()
    (tmp_path / "w").write_bytes(b"weights")
    inputs = provenance.Inputs(tmp_path / "run" / "inputs.json")
    with provenance.listening(inputs):
        provenance.reads(tmp_path / "w")
    (tmp_path / "run").mkdir()
    inputs.save(lambda path, text: path.write_text(text))
    entry = json.loads((tmp_path / "run/inputs.json").read_text())["inputs"][str(tmp_path / "w")]
    assert entry["sha256"] == hashlib.sha256(b"weights").hexdigest() and entry["size"] == 7
    provenance._hash.cache_clear()


def test_a_branch_that_moved_is_another_model(tmp_path):
    """A hub's revision lies in another folder when it points to another commit."""
    inputs = provenance.Inputs(tmp_path / "run" / "inputs.json")
    for commit, content in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / commit).mkdir()
        (tmp_path / commit / "config.json").write_text(content)
    key = "owner/name@main/config.json"
    with provenance.listening(inputs):
        provenance.reads(tmp_path / "a" / "config.json", key)
        provenance.reads(tmp_path / "b" / "config.json", key)
        with pytest.raises(UserError, match="owner/name@main/config.json: other content"):
            provenance.reads(tmp_path / "c" / "config.json", key)
        provenance.reads_value("hf:some/set::test", lambda: "1")
        with pytest.raises(UserError, match="hf:some/set::test: other content"):
            provenance.reads_value("hf:some/set::test", lambda: "2")


def test_an_input_that_is_gone_is_said(report):
    Path("wins.jsonl").rename("elsewhere.jsonl")
    status, out, _ = report()
    assert status == 0 and "No longer there, so not compared: " in out and "wins.jsonl" in out


def test_runs_of_earlier_versions_open_but_do_not_continue(report):
    path = Path("run/config.json")
    settings = json.loads(path.read_text())
    del settings["accept_other_code"], settings["prompt"]["chat"]  # a version before these fields
    path.write_text(json.dumps(settings))
    Path("run/inputs.json").write_text('{"config.data.eval": "1234"}')
    status, out, _ = report()
    assert status == 0 and "Whether its inputs have changed is not known" in out
    assert "is finished" in out
    Path("run/summary.json").unlink()
    status, _, err = report()
    assert status == 1 and "an earlier version made it, and did not finish it" in err


def test_other_code(report):
    edit_record(code="0.1.0+0000beef")
    status, out, _ = report()
    assert status == 0 and "was made by the code 0.1.0+0000beef; this is" in out
    Path("run/summary.json").unlink()
    status, _, err = report()
    assert status == 1 and "was begun by the code 0.1.0+0000beef" in err
    assert report("--config.accept_other_code=True")[0] == 0
    code = json.loads(Path("run/inputs.json").read_text())["code"]
    assert code == f"0.1.0+0000beef, {provenance.code_version()}"


def test_two_runs_in_one_folder_are_refused(report):
    Path("run/summary.json").unlink()
    with run.locked(Path("run")):
        status, _, err = report()
        assert status == 1 and "another run is at work in it (process" in err
    assert report()[0] == 0
    with run.locked(Path("run")):
        assert report()[0] == 0, "a finished run can be looked at by several"


def test_a_run_that_began_meanwhile_is_not_overwritten(world, monkeypatch, capsys):
    def read_judgements(path, lengths):
        Path("run").mkdir()
        Path("run/config.json").write_text("{}")
        return []

    monkeypatch.setattr(winrate, "read_judgements", read_judgements)
    assert main(arguments("winrate")) == 1
    assert "another run began in it meanwhile" in capsys.readouterr().err
    assert Path("run/config.json").read_text() == "{}"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_fails_so_that_what_follows_does_not_begin(
    number, status, world, one_device, monkeypatch, capsys
):
    monkeypatch.setattr(entry, "StopRequest", lambda: StopWhen(Path("run/config.json"), number))
    assert main(arguments("generate")) == status
    assert "the same command continues from run" in capsys.readouterr().err
    handler = StopRequest()
    handler._handle(number, None)
    assert handler.signal == number and handler.requested


def test_ctrl_c_before_anything_is_written(world, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(winrate, "read_judgements", interrupted)
    assert main(arguments("winrate")) == 130
    assert "Interrupted; nothing was written" in capsys.readouterr().err


# Fields that a job obeys in other settings than those of this test.
UNREAD: dict[str, set[str]] = {}


@pytest.fixture
def watched(world, monkeypatch):
    """Files of the world that are opened, and fields of the config that are read, from here on."""
    opened: set[Path] = set()
    read: set[str] = set()
    _watchers.append((world, opened))
    sections = {
        frozenset(section.keys()): name for name, section in [("", base()), *sections_of(base())]
    }
    get = type(base()).__getitem__

    def getitem(self, key):
        name = sections.get(frozenset(self.keys()))
        if name is not None and sys._getframe(1).f_code.co_name != "to_dict":
            read.add(f"{name}.{key}" if name else key)
        return get(self, key)

    monkeypatch.setattr(type(base()), "__getitem__", getitem)
    yield opened, read
    _watchers.clear()


def sections_of(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, type(base())):
            yield prefix + key, value
            yield from sections_of(value, f"{prefix}{key}.")


_watchers: list = []


def _hook(event, args):
    if event != "open" or not _watchers or not isinstance(args[0], (str, os.PathLike)):
        return
    (folder, opened) = _watchers[0]
    path = Path(args[0]).absolute()
    reading = args[1] is None or "r" in str(args[1])
    if path.is_relative_to(folder) and not path.is_relative_to(folder / "run") and reading:
        if path.is_file():  # Python's import system looks for what is not there
            opened.add(path)


sys.addaudithook(_hook)
