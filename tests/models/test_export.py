"""Checkpoints out: what was read is what is written, bit for bit, and others read it."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calib_jax import load_model, make_mesh
from calib_jax.errors import UserError
from calib_jax.models import export, peft
from calib_jax.models.formats import open_source
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.models.lora import LoraConfig
from calib_jax.models.table import parameter_table
from calib_jax.models.weights import load_params, stored_dtype
from tests.models.test_parity import GOLDEN, ONE_EACH
from tests.models.test_peft import random_adapters


def tensors_of(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
        assert ours[name].tobytes() == value.tobytes(), name


def rewritten(source, config, params, folder, **options):
    """Writes parameters as their checkpoint stores them."""
    folder.mkdir(exist_ok=True)
    dtypes = options.pop("dtypes", lambda row: stored_dtype(source, config, row))
    export.write_checkpoint(folder, params, config, dtypes, **options)
    return tensors_of(folder)


def read(folder, **options):
    config = parse_config(read_config(folder), "config.json")
    source = open_source(folder)
    return source, config, load_params(source, config, "stored", **options)


@pytest.fixture
def cast(golden, tmp_path):
    """``cast("qwen2", dtype)`` -> a copy of a golden checkpoint in that dtype."""

    def make(name, dtype):
        folder = tmp_path / "cast"
        folder.mkdir()
        (folder / "config.json").write_bytes((golden / name / "config.json").read_bytes())
        tensors = tensors_of(golden / name)
        save_file({k: v.astype(dtype(k)) for k, v in tensors.items()}, folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize("name", GOLDEN)
def test_every_family_comes_back_bit_for_bit(name, golden, tmp_path):
    ours = rewritten(*read(golden / name), tmp_path / "out")
    theirs = tensors_of(golden / name)
    same(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("name", ONE_EACH)
def test_sixteen_bits_come_back_bit_for_bit(name, dtype, cast, tmp_path):
    folder = cast(name, lambda _: dtype)
    same(rewritten(*read(folder), tmp_path / "out"), tensors_of(folder))


def test_mixed_dtypes_stay_and_lie_aligned(cast, tmp_path):
    folder = cast("qwen2", lambda name: np.float32 if "norm" in name else ml_dtypes.bfloat16)
    same(rewritten(*read(folder), tmp_path / "out"), tensors_of(folder))
    with (tmp_path / "out" / "model.safetensors").open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    assert header.pop("__metadata__") == {"format": "pt"}
    assert size % 8 == 0
    for entry in header.values():
        assert entry["data_offsets"][0] % (4 if entry["dtype"] == "F32" else 2) == 0


def test_a_mesh_writes_the_same_files(golden, tmp_path):
    from calib_jax.parallel.shards import row_sharding

    layouts = row_sharding(make_mesh((2, 2, 2)))
    source, config, params = read(golden / "gemma2", shardings=layouts)
    assert len(params["layers"]["q_proj"].sharding.device_set) == 8
    same(rewritten(source, config, params, tmp_path / "out"), tensors_of(golden / "gemma2"))


def test_shards_and_their_index(golden, tmp_path):
    tensors = tensors_of(golden / "llama2")
    limit = 100_000
    same(rewritten(*read(golden / "llama2"), tmp_path, max_shard_bytes=limit), tensors)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    count = len(files)
    assert count > 3
    assert files == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    sizes = {name: value.nbytes for name, value in tensors.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert index["metadata"]["total_parameters"] == sum(v.size for v in tensors.values())
    for file in files:
        inside = load_file(tmp_path / file)
        assert {name for name, where in index["weight_map"].items() if where == file} == set(inside)
        assert sum(sizes[name] for name in inside) <= limit or len(inside) == 1


def test_shards_are_as_full_as_they_can_be():
    entries = [
        export.Entry(str(i), (n,), np.dtype(np.uint8), lambda: None)
        for i, n in enumerate([3, 4, 4, 20, 1, 8, 1])
    ]
    parts = export.shard(entries, 9)
    assert [[e.num_bytes for e in part] for part in parts] == [[3, 4], [4], [20], [1, 8], [1]]


def test_a_tied_head_that_was_stored_twice_is_written_once(golden, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "config.json").write_bytes((golden / "llama32" / "config.json").read_bytes())
    tensors = tensors_of(golden / "llama32")
    copy = {"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}
    save_file(tensors | copy, folder / "model.safetensors")
    same(rewritten(*read(folder), tmp_path / "out"), tensors)


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=["one device", "2x2x2"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["f32", "bf16"])
def test_merging_adds_in_float32_and_rounds_once(dtype, mesh, cast, tmp_path):
    from calib_jax.parallel.shards import place_lora, row_sharding

    folder = cast("qwen3", lambda _: ml_dtypes.bfloat16)
    mesh = make_mesh(mesh) if mesh else None
    source, config, params = read(folder, shardings=mesh and row_sharding(mesh))
    lora = LoraConfig(3, 4.5, targets=("k_proj", "down_proj"))
    adapters = random_adapters(config, lora)
    if mesh:
        adapters = place_lora(jax.tree.map(np.asarray, adapters), mesh, config, lora)
    ours = rewritten(
        source,
        config,
        params,
        tmp_path / "out",
        dtypes=lambda _: dtype,
        adapters=adapters,
        lora=lora,
    )
    for name, value in tensors_of(folder).items():
        module = next((m for m in lora.targets if f"{m}.weight" in name), None)
        expected = value.astype(np.float64)
        if module:
            layer = int(name.split(".")[2])
            ab = {k: np.asarray(v[layer], np.float64) for k, v in adapters[module].items()}
            expected = expected + 1.5 * (ab["a"] @ ab["b"]).T
        else:
            assert ours[name].tobytes() == value.astype(dtype).tobytes()
        rounding = 2.0**-8 if dtype is ml_dtypes.bfloat16 else 1e-6  # half a unit in the last place
        np.testing.assert_allclose(
            ours[name].astype(np.float64), expected, rtol=rounding * 1.001, atol=1e-6
        )


def test_what_float16_cannot_hold_is_refused(golden, tmp_path):
    source, config, params = read(golden / "llama32")
    params["layers"]["up_proj"] = params["layers"]["up_proj"].at[1, 0, 0].set(70000.0)
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight.*float16"):
        rewritten(source, config, params, tmp_path, dtypes=lambda _: np.float16)
    with pytest.raises(UserError, match=r"lora_B.*float16"):
        lora = LoraConfig(1, 1.0, targets=("q_proj",))
        adapters = jax.tree.map(lambda x: x * 1e6, random_adapters(config, lora))
        adapters["q_proj"]["a"] *= 1e-6
        peft.write_adapter(tmp_path, adapters, lora, config, base="", dtype=np.float16)


@pytest.mark.parametrize("name", ONE_EACH)
def test_transformers_reads_the_export_and_gives_our_logits(name, golden, golden_tokens, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    model = load_model(golden / name)
    lora = LoraConfig(3, 4.5)
    adapters = random_adapters(model.config, lora)
    export.write_checkpoint(
        tmp_path, model.params, model.config, lambda _: np.float32, adapters=adapters, lora=lora
    )
    raw = export.hf_config(model.raw_config, "float32", "")
    export.write_json(tmp_path / "config.json", raw)
    tokens = golden_tokens % model.config.vocab_size
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    ours = np.asarray(load_model(tmp_path).logits(tokens))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(ours - np.asarray(model.logits(tokens))).max() > 0.1


def test_a_folders_config_is_kept_but_for_the_dtype():
    raw = {
        "model_type": "llama",
        "architectures": ["X"],
        "torch_dtype": "float16",
        "odd": [1, None],
    }
    assert export.hf_config(raw, "bfloat16", "Y") == {**raw, "torch_dtype": "bfloat16"}
    assert export.hf_config({"model_type": "llama"}, "float32", "Y") == {
        "architectures": ["Y"],
        "model_type": "llama",
    }
    assert raw["torch_dtype"] == "float16"


@pytest.mark.parametrize("name", [name for name in GOLDEN if "gpt_neox" not in name])  # no GGUF
def test_the_old_spelling_of_rotary_settings_means_the_same(name, golden):
    """A GGUF file's settings are written for transformers 4, and for our own reader."""
    raw = read_config(golden / name)
    if "rope_parameters" not in raw:
        raw = json.loads((golden / name / "other_spelling.json").read_text())
    config = parse_config(raw, "config.json")
    written = export.gguf_config(raw, "float16", "X", config, None)
    assert "rope_parameters" not in written and "rope_theta" in written
    written["architectures"] = raw["architectures"]
    written.pop("dtype", None)
    assert parse_config(written, "config.json") == config


def test_rotary_factors_become_the_scaling_that_they_came_from(golden):
    raw = {**read_config(golden / "llama31")}
    scaling = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    for key in ("rope_theta", "rope_scaling", "rope_parameters"):
        raw.pop(key, None)
    raw |= {"head_dim": 64, "rope_parameters": scaling}
    config = parse_config(raw, "config.json")
    from calib_jax.models.config import Rope
    from calib_jax.models.rope import frequencies

    factors = frequencies(Rope(5e5), 64) / frequencies(config.rope, 64)
    rope = {"rope_type": "factors", "rope_theta": 5e5, "factors": factors.tolist()}
    as_read = parse_config({**raw, "rope_parameters": rope}, "x.gguf", internal=True)
    written = export.gguf_config({**raw, "rope_parameters": rope}, "float32", "X", as_read, None)
    assert written["rope_theta"] == 5e5
    scaling.pop("rope_theta")
    assert written["rope_scaling"] == scaling

    rope["factors"] = (factors * np.linspace(1, 2, 32)).tolist()
    as_read = parse_config({**raw, "rope_parameters": rope}, "x.gguf", internal=True)
    with pytest.raises(UserError, match="rotary factors"):
        export.gguf_config({**raw, "rope_parameters": rope}, "float32", "X", as_read, None)


def test_only_a_tokenizers_files_are_copied(tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    out.mkdir()
    for name in ("tokenizer.json", "generation_config.json", "run_me.py", "README.md", "secret"):
        (base / name).write_text(name)
    assert set(export.copy_files(base, out)) == {"tokenizer.json", "generation_config.json"}
    assert {path.name for path in out.iterdir()} == {"tokenizer.json", "generation_config.json"}
    (base / "merges.txt").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="merges.txt"):
        export.copy_files(base, out)


def test_rows_of_the_table_are_all_written(golden):
    """A family's rows and tensors are one to one: none is written twice or left out."""
    for name in ("gpt_neox", "gemma2", "olmo"):
        config = parse_config(read_config(golden / name), "config.json")
        rows = parameter_table(config)
        count = sum(config.num_layers if row.stacked else 1 for row in rows)
        assert count == len(tensors_of(golden / name))


def test_one_tensor_at_a_time(small, tmp_path, monkeypatch):
    """A value is asked for after the one before it is on disk."""
    config, params = small("llama")
    events = []
    fetch = export.fetch

    def watched(*args, **options):
        events.append("fetched")
        return fetch(*args, **options)

    monkeypatch.setattr(export, "fetch", watched)
    export.write_checkpoint(
        tmp_path, params, config, lambda _: jnp.float32, on_tensor=lambda: events.append("written")
    )
    assert events == ["fetched", "written"] * (len(events) // 2) and len(events) > 30
