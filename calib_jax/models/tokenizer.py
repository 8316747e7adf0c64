"""The tokenizer of a Hugging Face folder, read without running code from it or leaving it."""

import importlib.util
import os
from pathlib import Path

import transformers

from calib_jax.characters import check_folder
from calib_jax.errors import UserError
from calib_jax.models.formats.files import read_json, safe_path

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
# What transformers may open, beside those: merges, templates, lists of added tokens.
_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
# Of what transformers may open, that which makes the tokens (and config.json, which names a class).
READ = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.json",
    "chat_template.json",
    "merges.txt",
    "vocab.txt",
    ".jinja",
    ".model",
    ".tiktoken",
)
TEMPLATES = "additional_chat_templates"


def from_folder(folder: Path) -> transformers.PreTrainedTokenizerBase | None:
    """The folder's tokenizer; None when it has no tokenizer files.

    Raises:
      UserError: the files are damaged, need code from the folder or a package that is missing, or
        lie outside the folder, or the folder's path is no text in UTF-8.
    """
    if not any((folder / name).exists() for name in _FILES):
        return None
    _check_inside(folder)
    check_folder(folder, "the model's folder")
    if (
        (folder / "tokenizer.model").exists()
        and not (folder / "tokenizer.json").exists()
        and importlib.util.find_spec("sentencepiece") is None
    ):
        raise UserError(
            f"{folder / 'tokenizer.model'}: a SentencePiece model, which takes a package to read. "
            "Run: pip install sentencepiece protobuf"
        )
    try:
        # Said outright: without it, transformers asks on the terminal whether to run the code.
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # the library raises whatever its parsers raise
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{folder}: the tokenizer is code in this folder ('auto_map' in "
                "tokenizer_config.json), and such code is never run. Load it elsewhere, save it as "
                "tokenizer.json, and remove 'auto_map'."
            ) from None
        raise UserError(
            f"{folder}: the tokenizer files cannot be read ({type(error).__name__}: {error})."
        ) from None


def _check_inside(folder: Path) -> None:
    """Raises UserError where a link or a setting leads out of the folder."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_SUFFIXES) or path.name.startswith("tokenizer"):
            safe_path(folder, path.name)
    if (folder / TEMPLATES).is_dir():
        safe_path(folder, TEMPLATES)
        for path in sorted((folder / TEMPLATES).iterdir()):
            safe_path(folder, f"{TEMPLATES}/{path.name}")
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected a JSON object. Download the file again.")
    for key, value in settings.items():
        names = value if isinstance(value, list) else [value]
        for name in names if key.endswith(("_file", "_files")) else ():
            # Old files name the place where they were saved; what is not there is not opened.
            if isinstance(name, str) and os.path.exists(folder / name):
                safe_path(folder, name)
