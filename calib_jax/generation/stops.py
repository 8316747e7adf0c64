"""Which tokens end an answer: what the checkpoint says, and what ends a turn in its template."""

from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.models.formats.files import read_json, safe_path
from calib_jax.models.formats.gguf import GgufSource
from calib_jax.models.model import Checkpoint
from calib_jax.provenance import reads, reads_folder
from calib_jax.questions.chat import Chat

GENERATION = "generation_config.json"
_GGUF = ("eos_token_id", "eot_token_id", "eom_token_id", "eot_token_ids", "eog_token_ids")


def stop_tokens(checkpoint: Checkpoint, chat: Chat | None = None) -> dict[int, str]:
    """Token id -> the token's text, of all tokens that end an answer.

    They are the ``eos_token_id`` of ``generation_config.json`` and of ``config.json`` (one or a
    list), a GGUF file's EOS and end-of-turn ids, the tokenizer's EOS, and, where there is a chat,
    the control token that its template puts after an answer.

    Args:
      checkpoint: opened, without weights.
      chat: the conversation's template; None for plain text.

    Raises:
      UserError: an id that is none, or no stopping token at all.
    """
    found: set[int] = set()
    where = str(checkpoint.path)
    if checkpoint.path.is_dir():
        there = f"whether {checkpoint.path.absolute() / GENERATION} exists"
        reads_folder(checkpoint.path, (GENERATION,), there)
    if checkpoint.path.is_dir() and (checkpoint.path / GENERATION).exists():
        path = safe_path(checkpoint.path, GENERATION)
        reads(path)
        raw = read_json(path)
        if not isinstance(raw, Mapping):
            raise UserError(f"{path}: expected a JSON object. Download the file again.")
        found |= _ids(raw.get("eos_token_id"), f"{path}: eos_token_id")
    found |= _ids(checkpoint.raw_config.get("eos_token_id"), f"{where}: eos_token_id")
    if isinstance(checkpoint.source, GgufSource):
        for name in _GGUF:
            value = checkpoint.source.field(f"tokenizer.ggml.{name}")
            found |= _ids(value, f"{where}: tokenizer.ggml.{name}")
    tokenizer: Any = checkpoint.tokenizer
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    if chat is not None and (end := chat.end_of_turn()) is not None:
        found.add(tokenizer.convert_tokens_to_ids(end))
    # Files made for a family name tokens that a smaller vocabulary lacks.
    found = {i for i in found if i < checkpoint.config.vocab_size}
    if not found:
        raise UserError(
            f"{where}: nothing says which token ends an answer. Add eos_token_id to "
            f"{GENERATION}, or eos_token to tokenizer_config.json."
        )
    texts = tokenizer.convert_ids_to_tokens(sorted(found)) if tokenizer else []
    ids = sorted(found)
    return {i: str(text) for i, text in zip(ids, texts or map(str, ids), strict=True)}


def line_ends(checkpoint: Checkpoint) -> list[int]:
    """All tokens of the vocabulary that hold a line break: they end an answer of one line.

    Args:
      checkpoint: opened, with a tokenizer.
    """
    tokenizer: Any = checkpoint.tokenizer
    count = min(len(tokenizer), checkpoint.config.vocab_size)
    texts = tokenizer.batch_decode([[i] for i in range(count)], clean_up_tokenization_spaces=False)
    return [i for i, text in enumerate(texts) if "\n" in text]


def _ids(value: Any, where: str) -> set[int]:
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    for one in values:
        if type(one) is not int or one < 0:
            raise UserError(f"{where} is {value!r}; expected a token's number, or a list of them.")
    return set(values)
