"""The job ``plan`` on hardware that can be compiled for anywhere, and its arithmetic."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from calib_jax import UserError, make_mesh
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.forward import score_rows
from calib_jax.confidence.letter_scores import letter_groups
from calib_jax.config import base
from calib_jax.jobs import plan
from calib_jax.main import main
from calib_jax.models.hf_config import parse_config
from calib_jax.models.lora import LoraConfig
from calib_jax.plan import programs, topology
from calib_jax.plan.topology import GIB
from configs import plan as plan_config
from tests.conftest import TINY

DIMENSIONS = TINY | {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 512,
    "tie_word_embeddings": False,
}
SIZE = ("--config.prompt.max_length=256", "--config.train.batch_size=4")


def tiny_plan(**train):
    config = plan_config.get_config("smollm2@cpu-16gib")
    config.plan.dimensions = ml_collections.ConfigDict(DIMENSIONS)
    config.prompt.max_length, config.train.batch_size = 32, 8
    config.batch.token_budget = 256
    config.train.update(train)
    found = topology.find("cpu-16gib")
    mesh = make_mesh((1, 1, 1), topology.devices(found))
    return programs.Plan(config, plan.dimensions(config), found, mesh)


def test_the_job(tmp_path, capsys):
    """A folder's dimensions; four compilations; a result that is shown again."""
    workdir = tmp_path / "run"
    (tmp_path / "config.json").write_text(json.dumps(DIMENSIONS))
    command = ["x", "--config=configs/plan.py:smollm2@cpu-1gib", f"--workdir={workdir}", *SIZE]
    command.append(f"--config.plan.model={tmp_path}")
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("Compiling the M-step") == 3 and printed.count("Compiling the E-step") == 1
    result = json.loads((workdir / "summary.json").read_text())
    assert result["hbm_limit_gib"] == 1 and result["fits"] and result["max_batch_compiled"]
    assert 0 < result["hbm_gib_per_chip"] < 1
    assert result["max_batch"] > 40  # of four, which take next to nothing
    assert 0.85 < result["flops"] / result["ideal_flops"] < 1.2
    assert result["m_step"]["length"] == 256 and result["e_step"]["flops"] > 0
    assert main(command) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--config.plan.topology=v7-8"], "'v7-8'.*v5e-8.*gpu-80gib"),
        (["--config.plan.topology=gpu-0gib"], "'gpu-0gib'"),
        (["--config.prompt.max_length=9000"], "max_length is 9000.*8192"),
        (["--config.mesh.shape=(1,2,1)"], "does not fit 1 devices"),
        (["--config.plan.model=nowhere"], "nowhere.*no such file"),
        (["--config.train.sft=sft9"], "'sft9'"),
        (["--config.model.attention=splash"], "'splash', which is for TPUs"),
        (["--config.model.attention=flash"], "is 'flash'; choose from: auto, xla"),
    ],
)
def test_bad_input(tmp_path, capsys, changes, words):
    import re

    workdir = tmp_path / "run"
    command = ["x", "--config=configs/plan.py:smollm2@cpu-16gib", f"--workdir={workdir}", *SIZE]
    assert main(command + changes) == 1
    error = capsys.readouterr().err
    assert re.search(words, error) and error.count("\n") == 1
    assert not workdir.exists()


def test_without_the_tpu_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    with pytest.raises(UserError, match=r"pip install 'calib_jax\[tpu\]'"):
        topology.devices(topology.find("v5e-8"))


def test_presets():
    for name in plan_config.PAPER:
        config = plan_config.get_config(f"{name}@v5e-8")
        assert (config.train.batch_size, config.train.lora.rank) == (4, 128)
        assert (config.prompt.max_length, config.mesh.shape) == (2048, (1, 4, -1))
        assert plan.dimensions(config).num_layers == 32
    for bad in ("tulu3_8b", "gpt@v5e-8", "tulu3_8b@"):
        with pytest.raises(UserError, match="MODEL@TOPOLOGY"):
            plan_config.get_config(bad)


def test_the_e_step_is_the_engines():
    """The planned batch has the shapes of the one that an engine sends for such questions, and
    takes little more operations than the model's own."""
    planned = tiny_plan()
    run = planned.training(8)
    sent = []

    class Spy(Engine):
        def _send(self, arrays, count, prefix, chunk):
            sent.append((jax.tree.map(np.shape, arrays), chunk))
            return {
                "log_probs": np.zeros(arrays["targets"].shape),
                "top_log_probs": np.zeros(arrays["reads"].shape),
            }

    model = dataclasses.replace(_model(planned), params={})
    engine = Spy(model, token_budget=256, max_shapes=5, length_multiple=8)
    engine.reads_at_a_time = 8  # no more than are read
    engine.score(letter_groups(run.encoded))
    seen = {}

    def lower(decoder, variables, arrays, prefix, chunk, top):
        seen["sent"] = {k: x.shape for k, x in arrays.items() if k != "count"}, chunk
        return score_rows.lower(decoder, variables, arrays, prefix, chunk, top)

    fake = type("Fake", (), {"lower": staticmethod(lower)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "score_rows", fake)
        patch.setattr(programs, "CPU_READS_AT_A_TIME", 8)
        step = planned.e_step()
    assert seen["sent"] == sent[0]
    assert 1 <= step.costs.flops / step.ideal < 1.15


def _model(planned):
    from calib_jax.models.model import Model

    return Model("", planned.model, {}, None, np.dtype("float32"), "", planned.mesh)


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("nf4", 4)])
def test_a_quantised_base_is_planned_as_it_is_held(scheme, bits):
    pytest.importorskip("qwix")
    mesh = make_mesh((1, 4, 2))
    config = parse_config(DIMENSIONS, "config.json")
    weight = programs.abstract_params(config, mesh, jnp.bfloat16, scheme)["layers"]["gate_proj"]
    assert weight.qvalue.size * weight.qvalue.dtype.itemsize * 8 == 2 * 128 * 512 * bits
    for part in (weight.qvalue, weight.scale):
        assert part.sharding.shard_shape(part.shape)[-1] == 256


def test_ideal_operations_by_hand():
    config = parse_config(DIMENSIONS, "config.json")
    D, F, V, layers = 128, 512, 4096, 2
    weights = layers * (D * D + 2 * D * 64 + D * D + 3 * D * F)
    pairs = 3 * 10 * 11 // 2
    keys = pairs * 4 * layers * D
    assert programs.ideal_e_step(config, None, 3, 10) == 30 * 2 * weights + keys + 3 * 2 * D * V
    lora = LoraConfig(rank=4, alpha=8.0, targets=("q_proj",))
    adapters = 30 * 2 * layers * 4 * (D + D)
    train = base().train
    train.remat = True
    assert programs.ideal_m_step(config, train, lora, 3, 10) == (
        3 * 30 * 2 * weights + 4 * adapters + 4 * keys + 2 * 3 * 2 * D * V
    )
    train.remat, train.sft = False, "sft2"
    assert programs.ideal_m_step(config, train, None, 3, 10) == (
        3 * 30 * 2 * weights + 3 * keys + 3 * 3 * 2 * D * V + 4 * 30 * 2 * D * V
    )


def test_logits_at_every_position_are_never_there():
    """RCFT's loss reads every position, of a vocabulary of 262,144, a part of it at a time."""
    planned = tiny_plan(method="lora", sft="sft2")
    wide = dataclasses.replace(parse_config(TINY, "config.json"), vocab_size=262144)
    step = dataclasses.replace(planned, model=wide).m_step(8)
    assert step.memory.temporaries < 8 * 32 * 262144 * 4 / 3
    assert 0.85 < step.costs.flops / step.ideal < 1.2


def test_the_released_objective_is_planned():
    """Its bins are among the batch's arrays, and its terms cost next to nothing."""
    step = tiny_plan(method="lora", objective="released", ece_weight=0.0).m_step(8)
    assert 0.85 < step.costs.flops / step.ideal < 1.2


def linear(fixed, slope, arguments=2 * GIB):
    """Steps of a model whose memory grows with the batch, and the sizes that were compiled."""
    compiled = []

    def step(batch):
        compiled.append(batch)
        needed = int((fixed + slope * batch) * GIB)
        memory = programs.Memory(arguments, max(0, needed - arguments), 0)
        return programs.Compiled(batch, 1, memory, needed, None, 0)

    return step, compiled


@pytest.mark.parametrize(
    ("fixed", "slope", "batch", "unit", "expected"),
    [
        (3, 0.1, 32, 8, (120, 125)),
        (3, 0.5, 32, 8, (16, 25)),  # the first does not fit
        (3, 0.1, 4, 4, (116, 125)),
        (15, 2.0, 8, 8, (0, 0)),
        (20, 0.1, 8, 8, (0, 0)),
    ],
)
def test_the_largest_batch(fixed, slope, batch, unit, expected):
    step, compiled = linear(fixed, slope)
    first = step(batch)
    largest, sure = plan.largest_batch(first, batch, unit, int(15.75 * GIB), step)
    assert expected[0] <= largest <= expected[1] and largest % unit == 0
    assert len(compiled) <= 3 and sure == (largest > 0)
    assert largest == 0 or largest in compiled


def test_the_largest_batch_where_memory_grows_faster_than_the_line_says():
    """6.04, 7.04 and 16.96 GiB at 4, 8 and 40, as measured of a model: 8 + 98 % of 28.1."""
    sizes = {4: 6.04, 8: 7.04, 40: 16.96}

    def step(batch):
        needed = int(sizes[batch] * GIB)
        memory = programs.Memory(int(3.42 * GIB), int(2.55 * GIB), 0)
        return programs.Compiled(batch, 1, memory, needed, None, 0)

    assert plan.largest_batch(step(4), 4, 4, int(15.75 * GIB), step) == (32, False)


def test_what_a_compiler_needs_that_gave_up():
    used = "RESOURCE_EXHAUSTED: Ran out of memory. Used 16.70G of 15.75G hbm. Exceeded by 972.0M."
    assert programs._needed(used) == int(16.7 * GIB)
    over = "RESOURCE_EXHAUSTED: total memory required for HLO temporaries (20.00G) exceeds (15.75G)"
    assert programs._needed(over) == 20 * GIB
    assert programs._needed("INTERNAL: something else") is None
