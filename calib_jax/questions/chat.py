"""A tokenizer's chat template, applied in one way wherever a conversation is rendered.

Templates are given ``enable_thinking=False`` unless they are told otherwise: a model whose answer
begins with its thoughts would be read where it is to write them. What a template asks of the
calendar is answered with a stated date, or a prompt would be another one tomorrow.
"""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import transformers

from calib_jax.errors import UserError
from calib_jax.questions import control
from calib_jax.questions.record import Question

# What Llama 3.1's template says where nothing tells it the date.
DATE = "2024-07-26"
ARGUMENTS = {"enable_thinking": False}
# What ``apply_chat_template`` sets itself.
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "messages",
        "return_assistant_tokens_mask",
        "return_dict",
        "sanitize_control_tokens",
        "strftime_now",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
    }
)
_STRFTIME = re.compile(r"""strftime_now\(\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\)""")
_PROBE = "Yes"

Message = Mapping[str, str]


def read_date(text: str) -> datetime.date:
    """The date of ``config.prompt.date``; raises UserError for a text that is none."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"config.prompt.date is {text!r}; expected a date such as {DATE}."
        ) from None


@dataclasses.dataclass(frozen=True)
class ChatSettings:
    """What a template is told beside the messages.

    Attributes:
      arguments: its variables.
      date: what ``strftime_now`` is answered with.
    """

    arguments: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(ARGUMENTS))
    date: datetime.date = datetime.date.fromisoformat(DATE)

    @classmethod
    def read(cls, arguments: str = "", date: str = DATE) -> "ChatSettings":
        """From ``config.prompt.template_arguments``, a JSON object, and ``config.prompt.date``.

        Raises:
          UserError: one of them is none.

        >>> ChatSettings.read('{"style": "terse"}').arguments
        {'enable_thinking': False, 'style': 'terse'}
        """
        field = f"config.prompt.template_arguments is {arguments!r}"
        try:
            given = json.loads(arguments) if arguments.strip() else {}
        except ValueError as error:
            given = error
        if not isinstance(given, dict):
            raise UserError(
                f"{field}; expected a JSON object, such as '{{\"enable_thinking\": true}}'."
            )
        if taken := sorted(_RESERVED & set(given)):
            raise UserError(
                f"{field}; {taken[0]!r} is not the template's to be told. Leave it out."
            )
        return cls({**ARGUMENTS, **given}, read_date(date))

    def as_json(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return {"template_arguments": dict(self.arguments), "date": self.date.isoformat()}


class Chat:
    """Puts messages into a tokenizer's chat template.

    What looks like a control token in a message is text (see ``control``), but for tokens that are
    not special in an answer: there they are the model's own, as where it wrote its thoughts.

    Args:
      tokenizer: the model's own.
      settings: what the template is told.

    Attributes:
      template: its source, with the date filled in.
      has_system: whether the template takes a system's turn; where not, descriptions are left
        out, as the harness does.

    Raises:
      UserError: the tokenizer has no chat template, or it cannot be used.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase,
        settings: ChatSettings | None = None,
    ):
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "config.prompt.chat is set, and the model's tokenizer has no chat template. "
                "Unset it, or add one (tokenizer_config.json, chat_template.jinja)."
            )
        self.tokenizer = tokenizer
        self.settings = settings or ChatSettings()
        try:
            source = tokenizer.get_chat_template()
        except ValueError as error:  # several, and none of them the default
            raise _unusable(error) from None
        self.template = _dated(source, self.settings.date)
        self._control = control.pattern(control.control_tokens(tokenizer, source))
        self._special = control.pattern(control.special_tokens(tokenizer))
        try:
            self.apply("probe", "probe")
            self.has_system = True
        except UserError:
            self.apply("", "probe")
            self.has_system = False

    def apply(self, description: str, text: str) -> str:
        """The whole prompt, up to where the assistant's answer starts: one turn of the user.

        Args:
          description: the system's turn; "" for none.
          text: the user's.

        Returns:
          Text for ``control.encode``, which heeds the marks in it.
        """
        messages = [{"role": "user", "content": text}]
        if description and getattr(self, "has_system", True):
            messages.insert(0, {"role": "system", "content": description})
        return self.converse(messages)

    def converse(self, messages: Sequence[Message], *, answered: bool = False) -> str:
        """Whole turns in the template, up to where the assistant's next answer starts.

        Args:
          messages: {"role": ..., "content": ...} each.
          answered: whether the last one is the answer, so that the text ends with its turn.
        """
        marked = [{**message, "content": self._marked(message)} for message in messages]
        return self.render(marked, add_generation_prompt=not answered)

    def render(self, messages: Sequence[Message], **settings: Any) -> str:
        """The template's text of the messages as they are, control tokens included.

        Args:
          messages: {"role": ..., "content": ...} each.
          settings: of ``apply_chat_template``.

        Raises:
          UserError: the template does not take them.
        """
        try:
            found = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.template,
                tokenize=False,
                **settings,
                **self.settings.arguments,
            )
            return str(found)
        except Exception as error:  # whatever a template raises
            raise _unusable(error) from None

    def text(self, text: str) -> str:
        """A text with what looks like a control token in it marked, as in a user's turn."""
        return control.mark(text, self._control)

    def answer(self, messages: Sequence[Message], answer: str, ends: bool) -> tuple[str, bool]:
        """An answer's text after ``converse(messages)``, and whether EOS is to follow it.

        It ends in one end of turn: the first special token that the template puts after an answer.
        What stands behind it (line breaks, an EOS beside it) is for the next turn, and no model
        writes it; one that the answer ends in already is not said twice.

        Args:
          messages: what is answered.
          answer: the text.
          ends: whether nothing follows the answer; False: it is left open.
        """
        if not ends:
            return self._special_marked(answer), False
        answer = self._unended(answer)
        whole = self.converse([*messages, {"role": "assistant", "content": answer}], answered=True)
        tail = self._tail
        if not whole.endswith(tail):
            tail = self._after(messages)
        body, before = whole.removesuffix(tail), self.converse(messages)
        stripped = self._special_marked(answer).strip()
        if body.startswith(before):
            body = body[len(before) :]
        elif body.endswith(stripped):  # the template renders what came before in another way
            body = stripped
        end = self._control.search(tail)
        return (body + tail[: end.end()], False) if end else (body + tail, True)

    def end_of_turn(self) -> str | None:
        """The control token that the template puts right after an answer; None: there is none."""
        found = self._control.match(self._tail.lstrip())
        return found[0] if found else None

    @functools.cached_property
    def _tail(self) -> str:
        return self._after([{"role": "user", "content": _PROBE}])

    def _after(self, messages: Sequence[Message]) -> str:
        """What the template puts after an answer to the messages."""
        turns = [*messages, {"role": "assistant", "content": _PROBE}]
        return self.converse(turns, answered=True).rpartition(_PROBE)[2]

    def opens_thoughts(self) -> bool:
        """Whether the prompt ends within a block of thoughts, in which the model then writes."""
        end = self.apply("", _PROBE).rpartition(_PROBE)[2]
        return end.rfind("<think>") > end.rfind("</think>")

    def _unended(self, answer: str) -> str:
        """An answer without the ends of turn, and EOS, that it ends in."""
        ends = tuple(filter(None, (self.end_of_turn(), self.tokenizer.eos_token)))
        while ends and (stripped := answer.rstrip()).endswith(ends):
            answer = stripped.removesuffix(next(end for end in ends if stripped.endswith(end)))
        return answer

    def _marked(self, message: Message) -> str:
        if message["role"] == "assistant":
            return self._special_marked(message["content"])
        return self.text(message["content"])

    def _special_marked(self, text: str) -> str:
        return control.mark(text, self._special)


def control_counts(
    questions: Iterable[Question],
    tokenizer: Any,
    chat: Chat | None,
) -> dict[str, int]:
    """How many questions have a text that looks like a control token; {} where none has.

    Args:
      questions: as they are asked.
      tokenizer: the model's own.
      chat: where they are asked in one.

    Returns:
      "control_tokens_as_text": in a chat, where it is encoded as text; or "control_tokens":
      without one, where it is the token, as in lm-evaluation-harness.
    """
    template = chat.template if chat else ""
    found = control.pattern(control.control_tokens(tokenizer, template))
    texts = ((q.question, q.context or "", *q.choices) for q in questions)
    count = sum(any(found.search(text) for text in some) for some in texts)
    return {"control_tokens_as_text" if chat else "control_tokens": count} if count else {}


def control_line(name: str, counts: Mapping[str, Any]) -> str:
    """``control_counts`` in words; "" where there is nothing to say.

    Args:
      name: of the questions.
      counts: that may hold them.
    """
    if count := counts.get("control_tokens_as_text"):
        return f"{name}: {count} question(s) hold what looks like a control token; it is text here"
    if count := counts.get("control_tokens"):
        return (
            f"{name}: {count} question(s) hold control tokens (such as an end of turn) in their "
            "text, which the model reads as such, as in lm-evaluation-harness; with "
            "--config.prompt.chat=True they are text"
        )
    return ""


def _dated(template: str, date: datetime.date) -> str:
    """The template with its calls of ``strftime_now`` answered.

    Raises:
      UserError: one whose format is not written out.
    """

    def answer(call: re.Match) -> str:
        return json.dumps(date.strftime(call[1] if call[1] is not None else call[2]))

    filled = _STRFTIME.sub(answer, template)
    if re.search(r"strftime_now\s*\(", filled):
        raise UserError(
            "the tokenizer's chat template asks for today's date in a way that cannot be pinned "
            "(strftime_now with a format that is not written out). Replace the call in the "
            "template by the date itself."
        )
    return filled


def _unusable(error: Exception) -> UserError:
    if isinstance(error, ImportError):
        return UserError(f"chat templates take a package. Run: pip install jinja2 ({error})")
    return UserError(
        f"the tokenizer's chat template cannot be used ({type(error).__name__}: {error})."
    )
