"""One source divided at random into parts that share no question."""

import hashlib
import json
import re
from collections.abc import Sequence

from calib_jax.errors import UserError
from calib_jax.questions.record import Question, normalised

# The parts by their number; the last is what is measured.
PARTS = {2: ("train", "test"), 3: ("train", "validation", "test")}
SPELLING = (
    "<source>%70:30 for training and test, or <source>%70:15:15 with a validation part between"
)
_SHARES = re.compile(r"(?P<source>.+)%(?P<shares>\d+(?::\d+)+)(?:/(?P<part>[a-z]+))?", re.DOTALL)


def parse(source: str) -> tuple[str, tuple[int, ...], str | None]:
    """A source, the percentages behind it (() where it is whole), and the part that is named.

    >>> parse("exam.jsonl%70:30"), parse("exam.jsonl%70:15:15/validation")
    (('exam.jsonl', (70, 30), None), ('exam.jsonl', (70, 15, 15), 'validation'))

    Raises:
      UserError: the percentages do not make 100, or there is no such part.
    """
    match = _SHARES.fullmatch(source)
    if not match:
        return source, (), None
    shares = tuple(map(int, match["shares"].split(":")))
    if len(shares) not in PARTS or sum(shares) != 100 or not all(shares):
        raise UserError(
            f"{source!r}: the parts must be two or three percentages that make 100; write "
            f"{SPELLING}"
        )
    parts = PARTS[len(shares)]
    if match["part"] not in (None, *parts):
        raise UserError(
            f"{source!r} has no part {match['part']!r}, only {', '.join(parts)}; write {SPELLING}"
        )
    return match["source"], shares, match["part"]


def divide(
    questions: Sequence[Question], shares: Sequence[int], seed: int, where: str
) -> list[list[Question]]:
    """Disjoint parts of the questions, each in their order.

    Questions of one ``group``, and questions with the same text, are in one part. The order of the
    draw is a hash of the seed and of the group or text alone, so a file gives the same parts under
    whatever name and wherever it is named. A part takes whole groups until it has its share.

    Args:
      questions: of one source.
      shares: percentages that make 100.
      seed: of the draw.
      where: how messages call the source.

    Raises:
      UserError: a part would be empty.
    """
    units: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        key = ["group", question.group] if question.group else ["text", normalised(question.asked)]
        units.setdefault(json.dumps([int(seed), "divide", *key]), []).append(i)
    order = sorted(units, key=lambda key: hashlib.sha256(key.encode()).digest())
    part_of, taken, part = [0] * len(questions), 0, 0
    ends = [round(len(questions) * sum(shares[: k + 1]) / 100) for k in range(len(shares))]
    for unit in order:
        while taken >= ends[part] and part < len(shares) - 1:
            part += 1
        for i in units[unit]:
            part_of[i] = part
        taken += len(units[unit])
    parts = [
        [q for q, at in zip(questions, part_of, strict=True) if at == k] for k in range(len(shares))
    ]
    if not all(parts):
        raise UserError(
            f"{where}: {len(questions)} questions in {len(units)} groups are too few for the parts "
            f"{':'.join(map(str, shares))}: one would be empty"
        )
    return parts
