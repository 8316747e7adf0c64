"""Dialogues: messages in the usual spellings, and as the text that a model is fed.

A prompt is plain text, which the answer follows directly, or messages: {"role": "system", "user" or
"assistant", "content": text}, the last of them not the assistant's.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import transformers

from calib_jax.errors import UserError
from calib_jax.questions.chat import Chat, ChatSettings

Message = dict[str, str]
Prompt = str | tuple[Message, ...]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
# Anthropic's hh-rlhf writes dialogues as text.
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}


def message(value: Any, field: str) -> Message:
    """One message, {"role", "content"} or ShareGPT's {"from", "value"}.

    Raises:
      UserError: it is none; the message names the field.
    """
    if not isinstance(value, dict):
        raise UserError(f"field {field!r} must hold messages, not {_short(value)}")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if role not in ROLES:
        raise UserError(f"field {field!r}: role {role!r}; expected one of {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": text(content, field)}


def messages(value: Any, field: str) -> tuple[Message, ...]:
    """A list of messages, or one message alone."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"field {field!r} must be a list of messages, not {_short(value)}")
    return tuple(message(item, field) for item in value)


def text(value: Any, field: str) -> str:
    """Text that a tokenizer takes; may be empty."""
    if not isinstance(value, str):
        raise UserError(f"field {field!r} must hold text, not {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise UserError(f"field {field!r} is not valid Unicode text: {_short(value)}") from None
    return value


def transcript(value: str) -> tuple[Message, ...] | None:
    """The messages of a dialogue in hh-rlhf's form; None for any other text.

    >>> [m["role"] for m in transcript("\\n\\nHuman: Hello\\n\\nAssistant: Hi.")]
    ['user', 'assistant']
    """
    if not value.startswith(_HUMAN) or _ASSISTANT not in value:
        return None
    found = []
    for part in value.split(_HUMAN)[1:]:
        asked, *answers = part.split(_ASSISTANT)
        found.append({"role": "user", "content": asked.strip()})
        found += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return tuple(found)


def last_user(prompt: Prompt) -> str:
    """The text that is answered."""
    if isinstance(prompt, str):
        return prompt
    return next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "")


class Rendering:
    """Prompts and answers as text, for one tokenizer.

    Args:
      tokenizer: the model's own.
      chat: what its chat template is told, through which messages go where there is one; without
        either they are lines "User: ..." and "Assistant: ...", a blank line between them.
    """

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, chat: ChatSettings | None):
        self.tokenizer, self.settings = tokenizer, chat
        self.template = chat is not None and bool(getattr(tokenizer, "chat_template", None))

    def prompt(self, prompt: Prompt) -> str:
        """The text up to where the answer starts."""
        if isinstance(prompt, str):
            return prompt
        if self.template:
            with _blamed(prompt):
                return self._chat.converse(prompt)
        turns = [f"{_NAMES[m['role']]}: {m['content']}" for m in prompt]
        return "\n\n".join([*turns, "Assistant:"])

    def answer(self, prompt: Prompt, answer: str, ends: bool) -> tuple[str, bool]:
        """The answer's text after ``self.prompt(prompt)``, and whether EOS is to follow it."""
        if isinstance(prompt, str):
            return answer, ends
        if not self.template:
            return " " + answer, ends
        with _blamed(prompt):
            return self._chat.answer(prompt, answer, ends)

    @functools.cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer, self.settings)


@contextlib.contextmanager
def _blamed(prompt: Sequence[Message]) -> Iterator[None]:
    """Within it an error names the turns, and what to do."""
    try:
        yield
    except UserError as error:
        roles = ", ".join(m["role"] for m in prompt)
        raise UserError(
            f"the chat template does not take the turns {roles}: {error} Set "
            "--config.align.chat=False, or remove them"
        ) from None


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
