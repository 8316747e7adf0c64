"""LoRA adapters in PEFT's format: ``adapter_config.json`` beside ``adapter_model.safetensors``.

PEFT names a tensor after the module that it adapts: ``base_model.model.<module>.lora_A.weight``
[r, in] and ``...lora_B.weight`` [out, r]. Ours are their transposes, stacked over layers.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calib_jax.errors import UserError
from calib_jax.models import export
from calib_jax.models.config import ModelConfig
from calib_jax.models.formats.files import ByteFile, read_json, safe_path
from calib_jax.models.formats.safetensors import read_header
from calib_jax.models.formats.stored import StoredTensors
from calib_jax.models.lora import LoraConfig
from calib_jax.models.table import Row, Tree, projections
from calib_jax.provenance import reads

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
# Modules outside the layers.
_HEADS = ("embed_tokens", "embed_in", "lm_head", "embed_out")
# Ours -> PEFT's name of a matrix.
_MATRICES = {"a": "lora_A", "b": "lora_B"}

# Attributes that are read below, and those that change nothing once the adapter is trained.
_HANDLED = {
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "init_lora_weights",
    "base_model_name_or_path",
    "revision",
}
_HARMLESS = {
    "auto_mapping",
    "eva_config",  # of an initialisation that leaves the base as it is
    "inference_mode",
    "layers_pattern",  # of layers_to_transform, which is refused
    "megatron_core",  # of megatron_config, which is refused
    "peft_version",
    "qalora_group_size",  # of use_qalora, which is refused
    "runtime_config",
}
# Initialisations that leave the base's weights as they are, so that A and B are the whole change.
_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter as read.

    Attributes:
      lora: its settings.
      tree: {projection: {"a": [layers, in, r], "b": [layers, r, out]}}, float32 on the host.
      fingerprint: a hash of its files.
      base: the base model's name as the adapter states it, or None.
    """

    lora: LoraConfig
    tree: Tree
    fingerprint: str
    base: str | None


def read_adapter(name: str, config: ModelConfig) -> Adapter:
    """Reads a LoRA adapter for a model of these dimensions.

    Args:
      name: a folder, or a hub id (``owner/name``).
      config: of the base.

    Raises:
      UserError: no adapter there, a setting that changes the computation in a way that is not
        computed here, or a tensor that is missing, misshapen or unknown.
    """
    folder = local = Path(name).expanduser()
    if not folder.is_dir():
        from calib_jax.models import hub

        folder = hub.fetch(name, None, adapter=True)
    path = _existing(folder, CONFIG)
    for file_name in (CONFIG, WEIGHTS):
        reads(folder / file_name, None if folder == local else f"{name}/{file_name}")
    raw, where = read_json(path), str(path)
    lora = _parse(raw, where)
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise UserError(
            f"{folder / 'adapter_model.bin'}: adapters are read from safetensors only. Load it "
            "with PEFT and save it again (PeftModel.from_pretrained(...).save_pretrained(...))."
        )
    file = ByteFile(_existing(folder, WEIGHTS))
    source = StoredTensors(folder, [file], read_header(file))
    rows = [row for row in projections(config) if _tensor_name(row, 0, "a") in source.names()]
    _check_tensors(source, config, rows, lora.rank, file.path)
    _check_targets(raw, config, rows, where)
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode())

    def stack(row: Row, matrix: str) -> np.ndarray:
        names = [_tensor_name(row, i, matrix) for i in range(config.num_layers)]
        layers = [source.read(name, (slice(None), slice(None))) for name in names]
        for layer in layers:
            digest.update(np.ascontiguousarray(layer).view(np.uint8).data)
        return np.stack([layer.astype(np.float32).T for layer in layers])

    tree = {row.path[-1]: {matrix: stack(row, matrix) for matrix in _MATRICES} for row in rows}
    lora = dataclasses.replace(lora, targets=tuple(tree))
    return Adapter(lora, tree, digest.hexdigest()[:16], raw.get("base_model_name_or_path"))


def other_base(adapter: Adapter, name: str) -> str | None:
    """A sentence when the adapter says that it was trained on another base than ``name``."""
    if not adapter.base or Path(adapter.base).name.lower() == Path(name).name.lower():
        return None
    return (
        f"the adapter was trained on {adapter.base}, and the base here is {name}; the figures are "
        "only meant if the two are the same model"
    )


def joint_fingerprint(base: str, adapter: Adapter) -> str:
    """What tells this adapter on this base (by the base's fingerprint) from any other model."""
    return f"{base}+{adapter.fingerprint}"


def write_adapter(
    folder: Path,
    adapters: Tree,
    lora: LoraConfig,
    config: ModelConfig,
    *,
    base: str,
    revision: str = "",
    dtype: Any = np.float32,
) -> None:
    """Writes an adapter that PEFT loads into an existing folder; process 0 writes.

    Args:
      folder: where to.
      adapters: {projection: {"a": [layers, in, r], "b": [layers, r, out]}}.
      lora: their settings.
      config: dimensions of the base.
      base: the base model's name or folder.
      revision: of the base; "" for none.
      dtype: of the file.
    """
    rows = [row for row in projections(config) if row.path[-1] in adapters]
    dtype = np.dtype(dtype)
    entries = []
    for i in range(config.num_layers):
        for row in rows:
            for ours in _MATRICES:
                x = adapters[row.path[-1]][ours]
                value = functools.partial(export.fetch, x, i, dtype, transposed=True)
                shape = (x.shape[2], x.shape[1])
                name, cast = _tensor_name(row, i, ours), dtype != x.dtype
                entries.append(export.Entry(name, shape, dtype, value, cast))
    export.write_safetensors(folder / WEIGHTS, entries)
    if jax.process_index() != 0:
        return
    alpha = lora.alpha
    content: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision or None,
        "r": lora.rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilised,
        "target_modules": sorted(_module(row).rpartition(".")[2] for row in rows),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_dora": False,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "inference_mode": True,
    }
    export.write_json(folder / CONFIG, content)


def _parse(raw: Any, where: str) -> LoraConfig:
    """The settings, but for the targets: which projections are adapted, the tensors tell."""
    if not isinstance(raw, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(raw).__name__}.")
    if raw.get("peft_type") != "LORA":
        raise UserError(
            f"{where}: 'peft_type' is {raw.get('peft_type')!r}, and only 'LORA' is read. Merge the "
            "adapter into its base with PEFT (merge_and_unload) and load the result."
        )
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        raise UserError(
            f"{where}: 'task_type' is {raw['task_type']!r}; expected 'CAUSAL_LM', a language model."
        )
    initialisation = raw.get("init_lora_weights", True)
    if not any(initialisation is x or initialisation == x for x in _INITIALISATIONS):
        raise UserError(
            f"{where}: 'init_lora_weights' is {initialisation!r}, which changes the base's weights "
            "too. Save the adapter again with PEFT's path_initial_model_for_weight_conversion, "
            "which makes it an ordinary LoRA, or merge it."
        )
    for key, value in raw.items():
        if key in _HANDLED | _HARMLESS or (key == "bias" and value == "none"):
            continue
        # PEFT writes out every option that it has; one that is off changes nothing.
        if value not in (None, False) and value != {} and value != []:
            raise UserError(
                f"{where}: {key!r} is {value!r}, which is not computed here. Merge the adapter "
                "into its base with PEFT (merge_and_unload) and load the result."
            )
    rank, dropout = raw.get("r"), raw.get("lora_dropout", 0.0)
    alpha: Any = raw.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise UserError(f"{where}: 'r' is {rank!r}; expected a positive integer.")
    if type(alpha) not in (int, float) or not 0 < alpha < float("inf"):
        raise UserError(f"{where}: 'lora_alpha' is {alpha!r}; expected a number > 0.")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise UserError(f"{where}: 'lora_dropout' is {dropout!r}; expected 0 <= rate < 1.")
    rslora = raw.get("use_rslora", False)
    if rslora not in (None, False, True):
        raise UserError(f"{where}: 'use_rslora' is {rslora!r}; expected true or false.")
    base = raw.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise UserError(f"{where}: 'base_model_name_or_path' is {base!r}; expected a name.")
    return LoraConfig(rank, float(alpha), float(dropout), rank_stabilised=bool(rslora))


def _check_tensors(
    source: StoredTensors, config: ModelConfig, rows: list[Row], rank: int, path: Path
) -> None:
    """Every layer's pair of each adapted projection, in the right shape, and nothing else."""
    present, wanted = source.names(), set()
    for row in rows:
        shapes = {"a": (rank, row.shape[0]), "b": (row.shape[1], rank)}
        for i in range(config.num_layers):
            for ours, shape in shapes.items():
                name = _tensor_name(row, i, ours)
                if name not in present:
                    raise UserError(
                        f"{path}: tensor {name!r} is missing; an adapted projection is adapted in "
                        f"all {config.num_layers} layers."
                    )
                if source.shape(name) != shape:
                    raise UserError(
                        f"{path}: tensor {name!r} has shape {source.shape(name)}, and r = {rank} "
                        f"with the model's dimensions ask for {shape}. Was the adapter trained "
                        "on another base, or adapter_config.json changed?"
                    )
                wanted.add(name)
    if unknown := sorted(present - wanted):
        if any(part in unknown[0] for part in _HEADS):
            raise UserError(
                f"{path}: tensor {unknown[0]!r} adapts the embedding or the LM head, which is not "
                "computed here. Merge the adapter into its base with PEFT (merge_and_unload) and "
                "load the result."
            )
        modules = ", ".join(_module(row) for row in projections(config))
        raise UserError(
            f"{path}: tensor {unknown[0]!r} adapts nothing of this model; what can be adapted are "
            f"{modules}, in every layer from 0. Was the adapter trained on another base?"
        )
    if not rows:
        raise UserError(f"{path}: holds no tensors.")


def _check_targets(raw: dict, config: ModelConfig, rows: list[Row], where: str) -> None:
    """Whether the tensors are those that ``target_modules`` promises.

    A pattern out of an untrusted file is not run, so there, and where modules are excluded, the
    tensors alone decide.
    """
    targets = raw.get("target_modules")
    if raw.get("exclude_modules") or (isinstance(targets, str) and targets != "all-linear"):
        return
    if targets == "all-linear":
        expected = list(projections(config))
    elif isinstance(targets, list) and all(isinstance(name, str) for name in targets):
        expected = [
            row
            for row in projections(config)
            if any(f".{_module(row)}".format(i=0).endswith(f".{name}") for name in targets)
        ]
    else:
        raise UserError(f"{where}: 'target_modules' is {targets!r}; expected names.")
    if expected != rows:
        differing = sorted(_module(row) for row in set(expected) ^ set(rows))
        raise UserError(
            f"{where}: 'target_modules' is {targets!r}, but the tensors say otherwise of "
            f"{differing[0]}. The file is incomplete, or belongs to another configuration."
        )


def _existing(folder: Path, name: str) -> Path:
    path = safe_path(folder, name)
    if not path.exists():
        raise UserError(
            f"{path}: no such file. A PEFT adapter's folder holds {CONFIG} and {WEIGHTS}."
        )
    return path


def _module(row: Row) -> str:
    return row.hf_name.removesuffix(".weight")


def _tensor_name(row: Row, layer: int, matrix: str) -> str:
    return f"{_PREFIX}{_module(row).format(i=layer)}.{_MATRICES[matrix]}.weight"
