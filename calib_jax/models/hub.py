"""What is fetched from the Hugging Face hub: one format of the weights, and never any code."""

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.models.export import COPIED

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# An adapter beside a model is seen by its config (see ``model.check_no_adapter_beside``), and old
# quantised weights by theirs.
_BESIDE = ("config.json", *COPIED, _ADAPTER[0], "quantize_config.json", "quant_config.json")
# In the order of preference: the single file, and what else may hold weights of the format.
_FORMATS = (
    ("model.safetensors", r"(?!adapter_model|consolidated)[^.].*\.safetensors"),
    ("pytorch_model.bin", r"pytorch_model.*\.bin"),
    ("flax_model.msgpack", r"flax_model.*\.msgpack"),
)


def fetch(name: str, revision: str | None = None, *, adapter: bool = False) -> Path:
    """The folder with a repository's files, downloaded into the hub's cache where they are not yet.

    Without a network, or with ``HF_HUB_OFFLINE=1``, the cache's copy of the revision is taken.

    Args:
      name: ``owner/name``.
      revision: branch, tag or commit; None for the main branch.
      adapter: whether to fetch a PEFT adapter instead of a model.

    Raises:
      UserError: no such repository or revision, no access, no network and nothing in the cache, or
        no weights that can be read.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise UserError(f"{name!r}: no such folder, and not a hub id (owner/name) either.")
    label, files = revision or "main", []
    try:
        info = huggingface_hub.HfApi().model_info(name, revision=revision)
        files = choose((file.rfilename for file in info.siblings or ()), name, adapter=adapter)
        # By revision, not by info.sha: so the cache learns what the revision's name stands for.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=[glob.escape(file) for file in files]
        )
    except UserError:
        raise
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{name}: the repository has no revision {label!r}. Give one of its branches, tags or "
            "commits (config.model.revision)."
        ) from None
    except Exception as error:  # no network, no access, a server in trouble
        cached = _cached(name, revision, adapter)
        # Where the files are known, a download that broke off is no copy.
        if cached is None or not all((Path(cached) / file).exists() for file in files):
            raise UserError(_remedy(name, label, error)) from None
        folder = cached
        choose((path.name for path in Path(folder).iterdir()), name, adapter=adapter)
    return Path(folder)


def choose(files: Iterable[str], name: str, *, adapter: bool = False) -> list[str]:
    """Which of a repository's files are fetched: the weights once, and what goes with them.

    Args:
      files: the paths of all.
      name: of the repository, for messages.
      adapter: whether it is a PEFT adapter.

    Raises:
      UserError: no weights in a format that is read, or no config.
    """
    files = sorted(files)
    top = [file for file in files if "/" not in file]
    beside = _ADAPTER if adapter else _BESIDE
    if beside[0] not in top:
        hint = ""
        if not adapter and _ADAPTER[0] in top:
            hint = " It is an adapter: give its base as the model and it as config.model.adapter."
        elif any(file.lower().endswith(".gguf") for file in files):
            hint = " Download one of its .gguf files and give the path of that."
        raise UserError(f"{name}: the repository has no {beside[0]}.{hint}")
    chosen = [file for file in top if file in beside]
    return chosen if adapter else chosen + _weights(top, name)


def _weights(top: list[str], name: str) -> list[str]:
    for single, pattern in _FORMATS:
        if single in top:
            return [single]
        found = [file for file in top if re.fullmatch(pattern, file)]
        if found:
            # Beside an index, only shards count: others are the same weights in another precision.
            index = f"{single}.index.json"
            stem, suffix = single.split(".")
            shard = rf"{stem}-\d+-of-\d+\.{suffix}"
            shards = [file for file in found if re.fullmatch(shard, file)]
            return [index, *shards] if index in top and shards else found
    raise UserError(
        f"{name}: the repository has no weights that are read (*.safetensors, pytorch_model*.bin, "
        f"flax_model*.msgpack); it has {', '.join(top)[:300]}."
    )


def _cached(name: str, revision: str | None, adapter: bool) -> str | None:
    """The cache's folder of a revision, None where there is none."""
    import huggingface_hub

    try:
        # Only the first file is asked for: the cache may know of files that ``choose`` left out.
        return huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[(_ADAPTER if adapter else _BESIDE)[0]],
            local_files_only=True,
        )
    except Exception:
        return None


def _remedy(name: str, label: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name}: a gated repository. Accept its terms on its page and log in with "
            "`hf auth login`, or give a local folder."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name}: no such folder, and no such repository on the Hugging Face hub, or a private "
            "one. Check the name, log in with `hf auth login`, or give a local folder."
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        what = "the hub is switched off (HF_HUB_OFFLINE)"
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        what = f"{type(error).__name__}: {first[:300]}"
    return (
        f"{name}: cannot be fetched from the Hugging Face hub ({what}), and the cache holds no "
        f"copy of its revision {label!r}. Check the name and the network, log in with "
        "`hf auth login` for a gated model, or give a local folder."
    )
