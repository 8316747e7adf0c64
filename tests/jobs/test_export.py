"""The job export: a finished run's model, whole or not at all, into a folder that others read."""

import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calib_jax import load_model
from calib_jax.config import base
from calib_jax.main import main
from calib_jax.models import export, peft
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.reports import result
from calib_jax.runs.run import as_json, locked
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import TrainState
from tests.conftest import write_tiny_model
from tests.devices import xla_flags
from tests.jobs.conftest import ROOT, CommandLine
from tests.jobs.test_multihost import free_port

TOKENS = np.arange(40, dtype=np.int32).reshape(2, 20) * 7
ROW = {
    "n": 16,
    "domain": "out",
    "accuracy": 0.5,
    "conf_ece": 0.1234,
    "conf_ece_ci": [0.1, 0.2],
    "answer_counts": [8, 8],
}
LORA = LoraConfig(2, 3.0, targets=("q_proj", "down_proj"))


def random_adapters(config, seed=0, lora=LORA):
    rng = np.random.default_rng(seed)
    return {
        name: {k: jnp.asarray(rng.normal(0, 0.3, s), jnp.float32) for k, (s, _) in ab.items()}
        for name, ab in lora_shapes(config, lora).items()
    }


@pytest.fixture
def call(tmp_path, capsys):
    """The command line in this process: status, standard output, standard error."""

    def run(*flags, config="configs/export.py"):
        status = main(["calib_jax", f"--config={config}", *map(str, flags)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def make_run(tmp_path, tiny_model):
    """A finished run's folder as fine-tuning leaves it, with the given trained parameters."""

    def make(trainable, method="lora", name="run", job="finetune", adapter="", model=None):
        folder = tmp_path / name
        folder.mkdir()
        config = base()
        config.job, config.model.name, config.model.adapter = job, str(model or tiny_model), adapter
        config.train.method = method
        config.train.lora.update({"rank": 2, "alpha": 3.0, "targets": "q_proj,down_proj"})
        (folder / "config.json").write_text(as_json(config))
        measured = {"before": {"test": ROW}, "after": {"test": {**ROW, "conf_ece": 0.0567}}}
        result.write(folder / "summary.json", {"method": "cft", **measured, "versions": {}})
        optimizer = OptimizerConfig(1e-3, 10, 0.1, 0.0, 1.0).transformation()
        state = TrainState(jnp.int32(5), trainable, optimizer.init(trainable))
        loaded = load_model(config.model.name, adapter=adapter or None)
        checkpoints = Checkpoints(folder / "checkpoints", keep=1, fingerprint=loaded.fingerprint)
        checkpoints.save(5, state, {"targets": jnp.zeros(3)}, {"epoch": 1, "batch": 0})
        checkpoints.close()
        return folder

    return make


@pytest.fixture
def config(tiny_model):
    return load_model(tiny_model).config


def logits(path, **options):
    return np.asarray(load_model(path, **options).logits(TOKENS))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_merged_and_adapter_compute_what_was_trained(call, make_run, config, tiny_model):
    run = make_run(random_adapters(config))
    status, out, err = call(f"--config.export.run={run}")
    assert status == 0, err
    merged = run / "export" / "merged"
    assert names(merged) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "prompt.json",
    }
    assert json.loads((merged / "config.json").read_text()) == json.loads(
        (tiny_model / "config.json").read_text()
    )
    status, out, err = call(f"--config.export.run={run}", "--config.export.format=adapter")
    assert status == 0, err
    adapter = run / "export" / "adapter"
    assert names(adapter) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "prompt.json",
    }
    assert json.loads((adapter / "adapter_config.json").read_text())["lora_alpha"] == 3
    beside = logits(tiny_model, adapter=adapter)
    np.testing.assert_allclose(logits(merged), beside, rtol=0, atol=1e-4)
    assert np.abs(beside - logits(tiny_model)).max() > 0.1
    read = peft.read_adapter(adapter, config)
    for name, ab in random_adapters(config).items():
        for key, value in ab.items():
            np.testing.assert_array_equal(read.tree[name][key], value)


def test_full_fine_tuning_exports_the_trained_parameters(call, make_run, tiny_model, tmp_path):
    import jax

    model = load_model(tiny_model)
    trained = jax.tree.map(lambda x: x * 1.25, model.params)
    run = make_run(trained, "full")
    status, _, err = call(f"--config.export.run={run}", f"--workdir={tmp_path / 'out'}")
    assert status == 0, err
    theirs = load_file(tiny_model / "model.safetensors")
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(value, theirs[name] * np.float32(1.25))
    status, _, err = call(f"--config.export.run={run}", "--config.export.format=adapter")
    assert status == 1 and "train.method 'full'" in err
    assert not (run / "export").exists()


def test_the_same_export_again_says_so_and_another_is_refused(call, make_run, config):
    run = make_run(random_adapters(config))
    where = f"--config.export.run={run}"
    assert call(where)[0] == 0
    files = run / "export" / "merged"
    before = (files / "model.safetensors").stat().st_mtime_ns
    status, out, _ = call(where)
    assert status == 0 and "holds this export already" in out
    status, _, err = call(where, "--config.export.dtype=bfloat16")
    assert status == 1 and "is not empty" in err
    assert (files / "model.safetensors").stat().st_mtime_ns == before


def test_a_killed_export_leaves_nothing_that_looks_complete(call, make_run, config, monkeypatch):
    run = make_run(random_adapters(config))
    leftover = run / "export" / ".merged.partial"
    leftover.mkdir(parents=True)  # of an export that was killed outright
    (leftover / "model.safetensors").write_text("half")
    (leftover / "model-00001-of-00002.safetensors").write_text("half")

    def broken(folder, content):
        raise OSError(28, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_json", broken)  # the weights are written by then
        status, _, err = call(f"--config.export.run={run}")
    assert status == 1 and "No space left" in err
    assert list((run / "export").iterdir()) == []
    assert call(f"--config.export.run={run}")[0] == 0
    assert names(run / "export") == {"merged"}
    assert "model-00001-of-00002.safetensors" not in names(run / "export" / "merged")


def _misspell(run):
    raw = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**raw, "seeed": 1}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "summary.json").unlink(), "not finished"),
        (lambda run: (run / "config.json").unlink(), "no run's folder"),
        (lambda run: (run / "config.json").write_text("{}"), "not the config of a run"),
        (_misspell, "seeed"),
        (lambda run: __import__("shutil").rmtree(run / "checkpoints"), "no checkpoint"),
    ],
    ids=["unfinished", "no run", "no config", "other version", "no checkpoint"],
)
def test_runs_that_cannot_be_exported(damage, words, call, make_run, config):
    run = make_run(random_adapters(config))
    damage(run)
    status, _, err = call(f"--config.export.run={run}")
    assert status == 1 and words in err and "Traceback" not in err
    assert not (run / "export").exists()


def test_other_refusals(call, make_run, config, tiny_model, tmp_path):
    run = make_run(random_adapters(config), job="evaluate")
    said = call(f"--config.export.run={run}")[2]
    assert f"config.export.run: {run}: " in said and "trains nothing" in said
    plain = (f"--config.model.name={tiny_model}", f"--workdir={tmp_path / 'out'}")
    for flag in ("export.format=gguf", "export.dtype=int8", "export.max_shard_bytes=0"):
        status, _, err = call(*plain, f"--config.{flag}")
        assert status == 1 and flag.split("=")[0] in err
    assert "there is no adapter" in call(*plain, "--config.export.format=adapter")[2]
    assert "config.model.quantize" in call(*plain, "--config.model.quantize=int8")[2]
    both = call(f"--config.export.run={tmp_path / 'run'}", "--config.model.name=other")[2]
    assert "config.model.name is 'other'" in both and "the run" in both
    assert "config.model.name is empty" in call("--config.model.name=")[2]
    assert "has revisions" in call(*plain, "--config.model.revision=step1")[2]
    (tmp_path / "out").write_text("a file")
    status, _, err = call(plain[0], f"--workdir={tmp_path / 'out' / 'below'}")
    assert status == 1 and "Choose another folder" in err
    assert call(*plain)[0] == 1
    assert (tmp_path / "out").read_text() == "a file"


def test_a_run_on_another_base_is_refused(call, make_run, config, tmp_path):
    model = write_tiny_model(tmp_path / "model")
    run = make_run(random_adapters(config), model=model)
    write_tiny_model(model, seed=1)
    status, _, err = call(f"--config.export.run={run}")
    assert status == 1 and "another base model" in err
    assert not (run / "export").exists()


def test_conversion_with_a_dtype_and_shards(call, tiny_model, tmp_path):
    out = tmp_path / "out"
    flags = ("--config.export.dtype=bfloat16", "--config.export.max_shard_bytes=20000")
    status, _, err = call(f"--config.model.name={tiny_model}", f"--workdir={out}", *flags)
    assert status == 0, err
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    theirs = load_file(tiny_model / "model.safetensors")
    for path in out.glob("*.safetensors"):
        for name, value in load_file(path).items():
            np.testing.assert_array_equal(value, theirs[name].astype(jnp.bfloat16))
    card = (out / "README.md").read_text()
    assert "nothing was measured" in card and "conf-ECE" not in card


def test_weights_that_are_no_numbers_are_not_exported(call, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for value, flags, words in (
        (np.nan, (), "NaN or infinity"),
        (1e6, ("--config.export.dtype=float16",), "65504"),
    ):
        tensors[name] = tensors[name].copy()
        tensors[name][3, 4] = value
        save_file(tensors, folder / "model.safetensors")
        out = tmp_path / "out"
        status, _, err = call(f"--config.model.name={folder}", f"--workdir={out}", *flags)
        assert status == 1 and name in err and words in err
        assert names(tmp_path) == {"model"}


def test_into_the_current_folder_and_through_a_link(call, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert call(f"--config.model.name={tiny_model}", "--workdir=.")[0] == 0
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert call(f"--config.model.name={tiny_model}", f"--workdir={tmp_path / 'link'}")[0] == 0
    assert names(tmp_path / "here") == names(tmp_path / "there") >= {"model.safetensors"}
    assert (tmp_path / "link").is_symlink()


def test_an_export_that_is_stopped_says_so_and_fails(call, tiny_model, tmp_path, monkeypatch):
    def stopped(self):
        raise Stopped

    monkeypatch.setattr(StopRequest, "check", stopped)
    status, _, err = call(f"--config.model.name={tiny_model}", f"--workdir={tmp_path / 'out'}")
    assert status == 143 and "nothing was written" in err and not names(tmp_path)


def test_two_exports_at_once_are_refused(call, tiny_model, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "half").write_text("of an export that was killed, or is at work")
    arguments = f"--config.model.name={tiny_model}", f"--workdir={tmp_path / 'out'}"
    with locked(partial):
        status, _, err = call(*arguments)
    assert status == 1 and "another run is at work in it" in err and (partial / "half").exists()
    assert call(*arguments)[0] == 0
    assert not partial.exists() and "half" not in names(tmp_path / "out") | {".lock"}


def test_an_adapter_of_another_base_is_merged_with_a_notice(call, config, tiny_model, tmp_path):
    (tmp_path / "adapter").mkdir()
    peft.write_adapter(tmp_path / "adapter", random_adapters(config), LORA, config, base="me/other")
    source = (f"--config.model.name={tiny_model}", f"--config.model.adapter={tmp_path / 'adapter'}")
    status, _, err = call(*source, f"--workdir={tmp_path / 'out'}")
    assert status == 0
    assert err.count("\n") == 1 and err.startswith("calib_jax: the adapter was trained on me/other")


def test_conversion_merges_an_adapter(call, config, tiny_model, tmp_path):
    (tmp_path / "adapter").mkdir()
    adapters = random_adapters(config)
    peft.write_adapter(tmp_path / "adapter", adapters, LORA, config, base=str(tiny_model))
    source = (f"--config.model.name={tiny_model}", f"--config.model.adapter={tmp_path / 'adapter'}")
    assert call(*source, f"--workdir={tmp_path / 'out'}")[0] == 0
    beside = logits(tiny_model, adapter=tmp_path / "adapter")
    np.testing.assert_allclose(logits(tmp_path / "out"), beside, rtol=0, atol=1e-4)


def test_an_adapter_trained_on_exports_as_one_on_the_original_base(
    call, make_run, config, tiny_model, tmp_path
):
    """Rank, scale and targets are those of the adapter that went in, whatever the config says."""
    start = tmp_path / "start"
    start.mkdir()
    lora = LoraConfig(3, 3.0, targets=("v_proj",), rank_stabilised=True)
    peft.write_adapter(
        start, random_adapters(config, lora=lora), lora, config, base=str(tiny_model)
    )
    trained = random_adapters(config, 1, lora)
    run = make_run(trained, adapter=str(start))
    status, _, err = call(f"--config.export.run={run}", "--config.export.format=adapter")
    assert status == 0, err
    after = peft.read_adapter(run / "export" / "adapter", config)
    assert after.lora == lora and after.base == str(tiny_model)
    np.testing.assert_array_equal(after.tree["v_proj"]["b"], trained["v_proj"]["b"])
    card = (run / "export" / "adapter" / "README.md").read_text()
    assert "LoRA of rank 3, alpha 3 (rank-stabilised)" in card and str(start) in card
    assert call(f"--config.export.run={run}")[0] == 0
    beside = logits(tiny_model, adapter=run / "export" / "adapter")
    np.testing.assert_allclose(logits(run / "export" / "merged"), beside, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_two_processes_export_what_one_does(call, make_run, config, tmp_path):
    """Arrays that no process could fetch alone are restored, merged, gathered; process 0 writes."""
    run = make_run(random_adapters(config))
    alone, pod = tmp_path / "alone", tmp_path / "pod"
    flags = (f"--config.export.run={run}", "--config.mesh.shape=(8,1,1)")
    assert call(*flags, f"--workdir={alone}")[0] == 0

    shared = {
        "XLA_FLAGS": xla_flags(2),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    arguments = ["--config=configs/export.py", f"--config.export.run={run}", f"--workdir={pod}"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "calib_jax.main", *arguments, "--config.mesh.shape=(1,-1,2)"],
            cwd=ROOT,
            env={**CommandLine.environment(), **shared, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Wrote" in outputs[0] and "Wrote" not in outputs[1]
    assert names(alone) == names(pod)
    for name in names(alone) - {"model.safetensors"}:
        assert (pod / name).read_bytes() == (alone / name).read_bytes()
    ours, expected = (load_file(folder / "model.safetensors") for folder in (pod, alone))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():  # the merge adds up in another order
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-6)


def test_a_damaged_checkpoint_is_not_exported(call, make_run, config):
    run = make_run(random_adapters(config))
    path = max((run / "checkpoints").rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    status, _, err = call(f"--config.export.run={run}")
    assert status == 1 and f"{run / 'checkpoints' / '5'}: the newest checkpoint is damaged" in err
    assert not (run / "export").exists() and (run / "checkpoints" / "5").exists()
