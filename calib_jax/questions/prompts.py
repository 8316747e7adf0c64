"""From questions to prompts: templates, shots, permutations, content-free versions.

Few-shot prompts and chat turns are assembled as lm-evaluation-harness 0.4.13 does (its
``ConfigurableTask.fewshot_context``): description, shots, question; a shot is its context, the
delimiter, its target, and two line breaks.
"""

import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions import control
from calib_jax.questions.chat import Chat
from calib_jax.questions.record import LETTERS, Question

DEFAULT_PROMPT = "Question: {question}\n\nOptions:\n{options}\n\nAnswer:"
DEFAULT_CONTINUATION = "Question: {question}\nAnswer:"
# What stands for a question without content (Zhao et al. 2021, arXiv 2102.09690, section 5).
CONTENT_FREE = ("N/A", "", "[MASK]")
SHOT_SEPARATOR = "\n\n"
GAP = "_"  # where the options stand in a question of the form "contexts"

FIELDS = ("question", "context", "subject", "options", "options_inline")
_FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")


@dataclasses.dataclass(frozen=True)
class Prompt:
    """How a question is put, and what is scored after it.

    Attributes:
      template: the context of one question, with fields; see ``render``.
      letters: whether the targets are the options' letters; else they are the options' texts.
      description: stands before the shots, or is the system's turn; {subject} may occur.
      form: "options": K targets after one context; "contexts": the options stand in a gap of the
        question, and what follows the gap is the target they share.
      delimiter: between a context and its target.
      chat: where the prompt is one turn of the user; nothing stands before the target then.
    """

    template: str
    letters: bool
    description: str = ""
    form: str = "options"
    delimiter: str = " "
    chat: Chat | None = None

    @property
    def before_target(self) -> str:
        """What stands between the whole prompt and its target."""
        return "" if self.chat else self.delimiter

    @property
    def fixed_end(self) -> bool:
        """Whether every prompt ends in the same text, so that no target merges with a question."""
        return self.chat is not None or not ends_in_field(self.template)

    def text(
        self, question: Question, context: str | None = None, shots: Sequence[Question] = ()
    ) -> str:
        """The whole prompt: description, examples and one context; in a chat with its marks.

        Args:
          question: what is asked.
          context: one of ``contexts``, or another; None: the first.
          shots: the answered examples.
        """
        context = self.contexts(question)[0] if context is None else context
        return self._whole(self.described(question), self.prefix(shots) + context)

    def literal(self) -> str:
        """The whole prompt as its reader sees it, with the template's fields left in."""
        return control.unmarked(self._whole(self.description, self.template))

    def _whole(self, description: str, text: str) -> str:
        return self.chat.apply(description, text) if self.chat else description + text

    def contexts(self, question: Question) -> list[str]:
        """One context for every target: K of them, all the same but in the form "contexts"."""
        if self.letters or self.form == "options":
            return [render(question, self.template)] * len(question.choices)
        before, _ = split_gap(question)
        filled = [before + choice for choice in question.choices]
        return [render(question, self.template, text) for text in filled]

    def targets(self, question: Question) -> list[str]:
        """The K targets, without delimiter."""
        if self.letters:
            return list(LETTERS[: len(question.choices)])
        if self.form == "contexts":
            return [split_gap(question)[1]] * len(question.choices)
        return list(question.choices)

    def prefix(self, shots: Sequence[Question]) -> str:
        """The answered examples that stand before a question."""
        return "".join(
            self.contexts(shot)[shot.answer]
            + self.delimiter
            + self.targets(shot)[shot.answer]
            + SHOT_SEPARATOR
            for shot in shots
        )

    def described(self, question: Question) -> str:
        """The description with its fields filled in."""
        return render(question, self.description)


def render(question: Question, template: str = DEFAULT_PROMPT, text: str | None = None) -> str:
    """A template with a question's texts put in verbatim, also where they contain braces.

    Fields: {question}; {context}, the passage it is about ("" where it has none); {subject}, with
    spaces for underscores; {options}, lines "A. text"; {options_inline}, "A. Text. B. Text." with
    capitals and full stops (Yang et al. 2024, arXiv 2308.13111). Other braces are text.

    Args:
      question: whose texts.
      template: with fields.
      text: in place of the question's own text.

    Raises:
      UserError: the template asks for a subject, and the question has none.
    """
    if "{subject}" in template and question.subject is None:
        raise UserError(
            f"question {question.id!r}: the prompt template {template!r} has the field "
            "{subject}, and the question has no subject. Remove the field, or give the question a "
            "subject."
        )
    text = question.question if text is None else text
    return _fill(template, text, question.choices, question.context or "", question.subject or "")


def content_free(question: Question, template: str, filler: str) -> str:
    """The template with ``filler`` for the question's text, its passage and every option.

    What remains, the template, the subject and the number of options, is the format alone.
    """
    context = question.context and filler
    choices = [filler] * len(question.choices)
    return _fill(template, filler, choices, context or "", question.subject or "")


def _fill(template: str, text: str, choices: Sequence[str], context: str, subject: str) -> str:
    options = list(zip(LETTERS, choices, strict=False))
    values = {
        "question": text,
        "context": context,
        "subject": subject.replace("_", " "),
        "options": "\n".join(f"{letter}. {choice}" for letter, choice in options),
        "options_inline": " ".join(f"{letter}. {_sentence(choice)}" for letter, choice in options),
    }
    return _FIELD.sub(lambda match: values[match.group(1)], template)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def letter_template(prompt: Mapping[str, Any]) -> str:
    """The template for letters that ``config.prompt`` sets; "" for none.

    It is ``prompt.template``, or ``prompt.choice``, an older name of the same.

    Raises:
      UserError: both are set.
    """
    if prompt["choice"] and prompt["template"]:
        raise UserError(
            "config.prompt.choice and config.prompt.template are both templates for letters; set "
            "one of them."
        )
    return prompt["template"] or prompt["choice"]


def check_template(template: str, letters: bool, name: str) -> None:
    """Raises UserError where a template lacks the question, or the options that letters need."""
    fields = set(_FIELD.findall(template))
    if "question" not in fields:
        raise UserError(f"{name}: the prompt template {template!r} lacks the field {{question}}.")
    if letters and not fields & {"options", "options_inline"}:
        raise UserError(
            f"{name}: the prompt template {template!r} lacks the field {{options}} (or "
            "{options_inline}), without which the letters mean nothing."
        )


def ends_in_field(template: str) -> bool:
    """Whether a question's own text ends the prompt, so that a target may merge with it."""
    start = template.rfind("{")
    return start >= 0 and _FIELD.fullmatch(template.rstrip()[start:]) is not None


def split_gap(question: Question) -> tuple[str, str]:
    """The texts before and after the first gap, the second without white space around it."""
    before, gap, after = question.question.partition(GAP)
    if not gap or not after.strip():
        raise UserError(
            f"question {question.id!r}: field 'question' needs a gap, {GAP!r}, and text after "
            f"it, for its options are put there: {question.question!r}"
        )
    return before, after.strip()


def rotate(question: Question, shift: int) -> Question:
    """The question with its options moved: place j shows option (j + shift) mod K.

    >>> rotate(Question("q", "Which?", ["x", "y", "z"], 0), 1).choices
    ('y', 'z', 'x')
    """
    K = len(question.choices)
    order = [(place + shift) % K for place in range(K)]
    return dataclasses.replace(
        question,
        choices=tuple(question.choices[k] for k in order),
        answer=order.index(question.answer),
    )


class Shots:
    """Draws the answered examples that stand before a question.

    One draw for all questions (of a subject), so that they share a prefix; a question is never its
    own example. The harness draws anew for every question where it draws at random.

    Args:
      pool: answered questions, in their order.
      count: examples before a question; 0 for none.
      pick: "first": the first of the pool; "random": drawn with the seed.
      by_subject: whether examples are of the question's own subject.
      name: how messages call the pool.
    """

    def __init__(
        self,
        pool: Sequence[Question],
        count: int,
        *,
        pick: str = "random",
        seed: int = 0,
        by_subject: bool = False,
        name: str = "questions",
    ):
        self.count, self.by_subject, self.name = count, by_subject, name
        self._pools: dict[str | None, list[Question]] = {}
        for question in pool if count else ():
            self._pools.setdefault(self._subject(question), []).append(question)
        if pick == "random":
            for subject, questions in self._pools.items():
                shuffled = random.Random(seed).sample(questions, len(questions))
                self._pools[subject] = shuffled

    def _subject(self, question: Question) -> str | None:
        return question.subject if self.by_subject else None

    def of(self, question: Question) -> list[Question]:
        """The examples for one question.

        Raises:
          UserError: there are fewer than ``count``.
        """
        subject = self._subject(question)
        found: list[Question] = []
        for shot in self._pools.get(subject, ()):
            if len(found) == self.count:
                break
            if _content(shot) != _content(question):
                found.append(shot)
        if len(found) < self.count:
            where = f" of subject {subject!r}" if self.by_subject else ""
            raise UserError(
                f"{self.name}: {self.count} examples must come before question {question.id!r}, "
                f"and there are {len(found)} to choose from{where}. Lower config.data.shots."
            )
        return found


def _content(question: Question) -> tuple:
    return question.context, question.question, question.choices
