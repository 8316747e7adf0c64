"""The tokenizer of a Hugging Face folder."""

from pathlib import Path

import transformers

from calib_jax.errors import UserError

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def from_folder(folder: Path) -> transformers.PreTrainedTokenizerBase | None:
    """The folder's tokenizer; None when it has no tokenizer files."""
    if not any((folder / name).exists() for name in _FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the library raises whatever its parsers raise
        raise UserError(
            f"{folder}: the tokenizer files cannot be read ({type(error).__name__}: {error})."
        ) from None
