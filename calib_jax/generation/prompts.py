"""What is to be answered: prompts from a file or the hub, as tokens in the chat template."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions import control, hub
from calib_jax.questions.chat import Chat
from calib_jax.questions.local import READERS
from calib_jax.questions.pairs import PairEncoder

HUB = "hf:"
# Where a row's prompt may stand, in order of preference; and its id.
COLUMNS = ("instruction", "turns", "messages", "prompt", "question")
IDS = ("uid", "question_id", "id")
ROLES = ("system", "user", "assistant")
_SUFFIXES = (".jsonl", ".json", ".parquet")
Message = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Something to answer.

    Attributes:
      id: unique within its source.
      messages: the conversation so far; a user's turn is the last.
      row: as it stands in the source.
      column: where the prompt stood.
    """

    id: str
    messages: tuple[Message, ...]
    row: Mapping[str, Any]
    column: str

    @property
    def text(self) -> str:
        """The last turn's."""
        return self.messages[-1]["content"]


def load_prompts(spec: str, size: int = 0) -> list[Prompt]:
    """The prompts of a source, in its order.

    A row's prompt is its column ``instruction``, ``turns`` (Arena-Hard v0.1), ``messages``,
    ``prompt`` or ``question``, the first that the row has: a text, a list of messages with
    ``role`` and ``content``, or a list with one turn. Its id is ``uid``, ``question_id``, ``id``
    or "row-<number>".

    Args:
      spec: a .jsonl, .json (a list) or .parquet file, or hf:<owner>/<name>[:<config>]:<split>.
      size: the first so many; 0 for all.

    Raises:
      UserError: the source is missing or damaged, or a row has no prompt or repeats an id.
    """
    if not spec:
        raise UserError(
            "config.generate.prompts names no source. Give a .jsonl, .json or .parquet file, or "
            "hf:<owner>/<name>[:<config>]:<split>."
        )
    if size < 0:
        raise UserError(f"config.generate.size is {size}; expected 0 (all) or more.")
    prompts: list[Prompt] = []
    numbers: dict[str, int] = {}
    for number, row in _rows(spec):
        prompt = _prompt(row, f"{spec} row {number}", f"row-{number}")
        first = numbers.setdefault(prompt.id, number)
        if first != number:
            raise UserError(f"{spec} row {number}: id {prompt.id!r} appears in row {first}, too.")
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{spec}: there are no rows.")
    return prompts[:size] if size else prompts


def _rows(spec: str) -> Iterable[tuple[int, Mapping[str, Any]]]:
    if spec.startswith(HUB):
        otherwise = "without one, give a local .jsonl, .json or .parquet file"
        dataset = hub.open_split(*hub.parse(spec.removeprefix(HUB)), otherwise=otherwise)
        return enumerate(dataset, 1)
    path = Path(spec).expanduser()
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{spec}: a file of prompts must end in {', '.join(_SUFFIXES)}.")
    if not path.is_file():
        raise UserError(f"{spec}: there is no such file.")
    if path.suffix.lower() != ".json":
        return READERS[path.suffix.lower()](path)
    reads(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{spec}: not valid JSON ({error}).") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{spec}: expected a JSON list of objects.")
    return enumerate(rows, 1)


def _prompt(row: Mapping[str, Any], where: str, otherwise: str) -> Prompt:
    column = next((name for name in COLUMNS if row.get(name) not in (None, [], "")), None)
    if column is None:
        raise UserError(f"{where}: no prompt; expected a column {', '.join(COLUMNS)}.")
    if row.get("input"):
        raise UserError(
            f"{where}: field 'input' is not empty. Join it to {column!r}: answer files have one "
            "text for the prompt."
        )
    identity = next((row[name] for name in IDS if row.get(name) is not None), otherwise)
    if not isinstance(identity, str | int):
        raise UserError(f"{where}: the id is {identity!r}; expected a text or a whole number.")
    messages = _messages(row[column], f"{where}: field {column!r}", column == "turns")
    return Prompt(str(identity), messages, row, column)


def _messages(value: Any, where: str, turns: bool) -> tuple[Message, ...]:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} must be a text or a list of messages, not {_short(value)}.")
    if turns:
        if len(value) > 1:
            raise UserError(f"{where} has {len(value)} turns; prompts of one turn are answered.")
        turn = value[0]
        content = turn.get("content") if isinstance(turn, Mapping) else turn
        value = [{"role": "user", "content": content}]
    messages = []
    for i, message in enumerate(value, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if role not in ROLES or not isinstance(content, str):
            raise UserError(
                f"{where}: message {i} must have a role ({', '.join(ROLES)}) and a text as "
                f"content, not {_short(message)}."
            )
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] != "user":
        raise UserError(
            f"{where} ends in a turn of the {messages[-1]['role']}; the last one must be the "
            "user's, which is answered."
        )
    if not messages[-1]["content"].strip():
        raise UserError(f"{where}: the user's last turn is blank.")
    return tuple(messages)


def encode_prompts(
    tokenizer: transformers.PreTrainedTokenizerBase | None,
    prompts: Sequence[Prompt],
    chat: Chat | None,
    max_length: int,
) -> list[np.ndarray]:
    """Every prompt's tokens, int32.

    Args:
      tokenizer: the model's own.
      prompts: to encode.
      chat: the tokenizer's template, which writes all special tokens itself; None for plain text,
        with the tokenizer's own BOS where it has one.
      max_length: tokens that a prompt may have; never cut.

    Raises:
      UserError: no tokenizer, a conversation without a template, or a prompt that is too long.
    """
    encoder: Any = None if chat else PairEncoder(tokenizer, max_length)
    result = []
    for prompt in prompts:
        if chat:
            text = chat.converse(prompt.messages)
            (ids,) = control.encode(chat.tokenizer, [text], special=False)
        elif len(prompt.messages) > 1:
            raise UserError(
                f"prompt {prompt.id!r} is a conversation of {len(prompt.messages)} messages, which "
                "takes a chat template. Set --config.prompt.chat=True."
            )
        else:
            ids = encoder.tokens(prompt.text)
        if len(ids) > max_length:
            raise UserError(
                f"prompt {prompt.id!r} has {len(ids)} tokens, and at most {max_length} are "
                "allowed. Remove it, or raise config.prompt.max_length (0: the model's own "
                "length); prompts are never cut."
            )
        result.append(np.asarray(ids, np.int32))
    return result


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
