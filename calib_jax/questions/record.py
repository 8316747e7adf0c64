"""The Question record: one multiple-choice question, validated when it is made."""

import numbers
import unicodedata
from dataclasses import dataclass

from calib_jax.errors import UserError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MIN_CHOICES = 2
MAX_CHOICES = len(LETTERS)


@dataclass(frozen=True)
class Question:
    """A question with 2 to 26 options and one right answer.

    Args:
      id: unique within its split, a non-empty string.
      question: the text asked, not blank.
      choices: the options in order, each a string that is not blank; a list is stored as a tuple.
      answer: index of the right option, 0-based; NumPy integers are stored as ``int``.
      subject: a finer topic within the task, such as ``"anatomy"``.
      task: the set it comes from, such as ``"openbookqa"``.
      context: a passage that the question is about.
      group: questions of one group stay together where a source is divided (``division``).

    Raises:
      UserError: a field has the wrong type or value; the message names the id and the field.

    >>> Question("q1", "Which is a fruit?", ["stone", "pear"], 1).choices
    ('stone', 'pear')
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str | None = None
    task: str | None = None
    context: str | None = None
    group: str | None = None

    def __post_init__(self):
        if not isinstance(self.id, str) or not self.id.strip():
            raise UserError(f"question {self.id!r}: field 'id' must be a non-empty string")
        if isinstance(self.choices, list):
            object.__setattr__(self, "choices", tuple(self.choices))
        problem = self._problem()
        if problem:
            raise UserError(f"question {self.id!r}: {problem}")
        object.__setattr__(self, "answer", int(self.answer))

    def _problem(self) -> str | None:
        """What is wrong with the fields other than ``id``, or None."""
        if problem := _text_problem(self.question):
            return f"field 'question' {problem}"
        if not isinstance(self.choices, tuple):
            kind = type(self.choices).__name__
            return f"field 'choices' must be a list of strings, not {kind}"
        K = len(self.choices)
        if not MIN_CHOICES <= K <= MAX_CHOICES:
            return f"field 'choices' has {K} options; {MIN_CHOICES} to {MAX_CHOICES} are possible"
        for letter, choice in zip(LETTERS, self.choices, strict=False):
            if problem := _text_problem(choice):
                return f"field 'choices', option {letter}, {problem}"
        if isinstance(self.answer, bool) or not isinstance(self.answer, numbers.Integral):
            return f"field 'answer' must be an integer, not {self.answer!r}"
        if not 0 <= self.answer < K:
            return (
                f"field 'answer' is {self.answer} but there are {K} choices (0-based: 0 to {K - 1})"
            )
        for name in ("subject", "task", "context"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                return f"field {name!r} must be a non-empty string or None, not {value!r}"
        if self.context is not None and (problem := _text_problem(self.context)):
            return f"field 'context' {problem}"
        return None

    @property
    def asked(self) -> str:
        """The whole of what is asked: the context, if there is one, and the question."""
        return f"{self.context}\n{self.question}" if self.context else self.question

    @property
    def has_duplicate_choices(self) -> bool:
        """Whether two options are the same text, white space aside."""
        return len({" ".join(choice.split()) for choice in self.choices}) < len(self.choices)


def _text_problem(text) -> str | None:
    if not isinstance(text, str):
        return f"must be a string, not {text!r}"
    if not text.strip():
        return "is empty"
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which no tokenizer accepts
        return f"is not valid Unicode text: {text!r}"
    return None


def normalised(text: str) -> str:
    """The form in which question texts are compared: NFKC, casefolded, words and symbols only.

    Runs of punctuation (Unicode category P), white space and control characters become one space.
    Text that consists of nothing else keeps its punctuation, so that it does not match all others.

    >>> normalised("  What is\\u00a0an ATOM -- exactly?")
    'what is an atom exactly'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in folded)
    return " ".join(kept.split()) or " ".join(folded.split())
