"""Preference pairs and demonstrations: what DPO and SFT learn from."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.grammar import PAIR_SPELLINGS, PAIRS_OF_QUESTIONS
from calib_jax.questions import hub, local, pipeline, sources
from calib_jax.questions.dialogue import Prompt
from calib_jax.questions.preference_rows import (
    Demonstration,
    Preference,
    Skipped,
    demonstration_from_row,
    preference_from_row,
)
from calib_jax.questions.preference_tokens import (
    Item,
    encode_demonstrations,
    encode_preference,
    encode_preferences,
)
from calib_jax.questions.prompts import DEFAULT_PROMPT, render
from calib_jax.questions.record import LETTERS, Question

__all__ = [
    "Demonstration",
    "Loaded",
    "Preference",
    "draw",
    "encode_demonstrations",
    "encode_preference",
    "encode_preferences",
    "hold_out",
    "load_demonstrations",
    "load_preferences",
    "read_rows",
    "remove_overlap",
]

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_RATE = re.compile(r"(?P<source>.+)@(?P<rate>[^@/]*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a source holds.

    Attributes:
      items: in the source's order.
      report: for ``summary.json``: source, rows, n, and how many rows were left out for which
        reason ("ties", "empty_answers", "identical_answers", "without_preference", "duplicates",
        "duplicate_options", "not_drawn").
      data_sets: of the questions that pairs are made of; empty for other pairs.
    """

    items: list
    report: dict[str, Any]
    data_sets: frozenset[str] = frozenset()


def load_preferences(
    spec: str,
    size: int = 0,
    seed: int = 0,
    *,
    template: str | None = None,
    prefix: str = " ",
    chat: bool = False,
    role: str = "test",
    answer_base: str = "auto",
) -> Loaded:
    """The pairs of a source; the layouts are those of ``preference_rows.LAYOUTS``.

    Args:
      spec: a .jsonl, .json, .parquet or .csv file, ``hf:<owner>/<name>[:<config>]:<split>``, or
        ``questions:<source>[@rate]``: for every question the right letter is chosen over a wrong
        one with that probability (1 by default), otherwise the wrong one over it.
      size: at most so many, drawn with the seed; 0 for all.
      seed: of the draw, and of pairs made of questions.
      template, prefix: of pairs made of questions: the prompt (None: the default one), and what
        stands before the letter.
      chat: whether pairs made of questions are turns of a chat; nothing stands before the letter
        then.
      role, answer_base: of pairs made of questions: see ``sources.for_role`` and ``sources.load``.

    Returns:
      ``Loaded`` of ``Preference``. A pair that occurs again, one with equal or empty answers and a
      tie are left out and counted.

    Raises:
      UserError: the source is missing, not understood or without pairs, or a row is bad: it names
        source, row and field.
    """
    if spec.startswith(PAIRS_OF_QUESTIONS):
        asked: dict[str, Any] = {"template": template, "prefix": prefix, "chat": chat}
        return _of_questions(spec, size, seed, _letter_pair, role, answer_base, **asked)
    return _of_rows(spec, size, seed, preference_from_row)


def load_demonstrations(
    spec: str,
    size: int = 0,
    seed: int = 0,
    *,
    template: str | None = None,
    prefix: str = " ",
    chat: bool = False,
    role: str = "test",
    answer_base: str = "auto",
) -> Loaded:
    """The demonstrations of a source, as ``load_preferences``: of pairs the chosen answers."""

    def build(question: Question, rate: float, seed: int, prompt: Prompt, prefix: str) -> Item:
        pair = _letter_pair(question, rate, seed, prompt, prefix)
        return Demonstration(pair.id, pair.prompt, pair.chosen, ends=False, asked=pair.asked)

    if spec.startswith(PAIRS_OF_QUESTIONS):
        asked: dict[str, Any] = {"template": template, "prefix": prefix, "chat": chat}
        return _of_questions(spec, size, seed, build, role, answer_base, **asked)
    return _of_rows(spec, size, seed, demonstration_from_row)


def draw(items: Sequence[Item], size: int, seed: int) -> list[Item]:
    """A seeded subset of at most ``size`` items (0 for all) in their own order.

    Raises:
      UserError: ``size`` is negative.
    """
    if size < 0:
        raise UserError(f"a number of pairs to draw is {size}; expected 0 (all) or more")
    if size == 0 or size >= len(items):
        return list(items)
    order = sorted(range(len(items)), key=lambda i: (_hash(seed, items[i].id, "draw"), i))
    return [items[i] for i in sorted(order[:size])]


def remove_overlap(items: Sequence[Item], held_out: Collection[str]) -> tuple[list[Item], int]:
    """The items whose prompt is in no held-out set, and how many do.

    Args:
      held_out: normalised texts (``Preference.text``, ``normalised(question.asked)``).
    """
    kept = [item for item in items if item.text not in held_out]
    return kept, len(items) - len(kept)


def hold_out(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Splits one source in two that share no prompt: the rest, and ``count`` items or a few more.

    Prompts are drawn with the seed, and all items of a prompt go the same way.

    Raises:
      UserError: nothing would be left.
    """
    texts = [item.text for item in items]
    taken: set[str] = set()
    times, total = Counter(texts), 0
    for text in sorted(times, key=lambda text: _hash(seed, text, "hold out")):
        if total >= count:
            break
        taken.add(text)
        total += times[text]
    rest = [item for item, text in zip(items, texts, strict=True) if text not in taken]
    if not rest or not taken:
        raise UserError(f"cannot hold out {count} of {len(items)} pairs; some must be left")
    return rest, [item for item, text in zip(items, texts, strict=True) if text in taken]


def read_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """The rows of a .jsonl, .json (a list of objects), .parquet or .csv file, counted from 1.

    Raises:
      UserError: the file is missing or of an unknown kind, not UTF-8 or not what its name says.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{str(path)!r} names no source; write {PAIR_SPELLINGS}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix.lower() == ".json":
            yield from local.json_rows(path)
        else:
            yield from local.READERS[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _of_rows(spec: str, size: int, seed: int, build: Callable) -> Loaded:
    if spec.startswith(sources.HUB):
        parts = hub.parse(spec.removeprefix(sources.HUB))
        dataset = hub.open_split(*parts, otherwise="without one, give a local file")
        rows: Iterator[tuple[int, dict]] = enumerate(dataset, 1)
    else:
        rows = read_rows(Path(spec))
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    row_of_id: dict[str, int] = {}
    seen, count = set(), 0
    for number, row in rows:
        count += 1
        try:
            item = build(row, f"row-{number}")
            if not isinstance(item, Skipped):
                first = row_of_id.setdefault(item.id, number)
                if first != number:
                    # Mixtures repeat a prompt's id for each of its pairs.
                    item = dataclasses.replace(item, id=f"{item.id}#{number}")
        except UserError as error:
            raise UserError(f"{spec} row {number}: {error}") from None
        key = None if isinstance(item, Skipped) else _content(item)
        if isinstance(item, Skipped) or key in seen:
            skipped["duplicates" if key in seen else item.reason] += 1
            continue
        seen.add(key)
        items.append(item)
    return _loaded(spec, items, count, skipped, size, seed)


def _content(item: Item) -> str:
    fields = dataclasses.asdict(item)
    return json.dumps([fields[name] for name in sorted(fields) if name not in ("id", "subject")])


def _loaded(
    spec: str, items: list, rows: int, skipped: dict[str, int], size: int, seed: int
) -> Loaded:
    if not items:
        why = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in skipped.items())
        raise UserError(f"{spec}: nothing to learn from in {rows} rows" + (why and f" ({why})"))
    drawn = draw(items, size, seed)
    skipped = {**skipped, "not_drawn": len(items) - len(drawn)}
    counts = {reason: int(n) for reason, n in skipped.items() if n}
    return Loaded(drawn, {"source": spec, "rows": rows, "n": len(drawn), "left_out": counts})


def _of_questions(
    spec: str,
    size: int,
    seed: int,
    build: Callable,
    role: str,
    answer_base: str,
    *,
    template: str | None,
    prefix: str,
    chat: bool,
) -> Loaded:
    source, rate = spec.removeprefix(PAIRS_OF_QUESTIONS), 1.0
    if match := _RATE.fullmatch(source):
        source = match["source"]
        try:
            rate = float(match["rate"])
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1:
            raise UserError(
                f"{spec}: the rate {match['rate']!r} behind the @ must be a number, 0 to 1"
            )
    questions = sources.load(sources.for_role(source, role), seed, answer_base)
    kept, skipped = pipeline.drop_duplicate_options(questions)
    # As for training by letters: the same shuffle for the same seed.
    kept, _ = pipeline.shuffle_options(kept, seed)
    kept, _ = pipeline.balance_answers(kept, seed)
    template = DEFAULT_PROMPT if template is None else template
    items = []
    for question in kept:
        text = render(question, template)
        prompt = ({"role": "user", "content": text},) if chat else text
        items.append(build(question, rate, seed, prompt, "" if chat else prefix))
    loaded = _loaded(
        spec, items, len(questions), {"duplicate_options": skipped} if skipped else {}, size, seed
    )
    loaded.report["rate"] = rate
    data_sets = frozenset(sources.data_set(source, question) for question in questions)
    return dataclasses.replace(loaded, data_sets=data_sets)


def _letter_pair(
    question: Question, rate: float, seed: int, prompt: Prompt, prefix: str
) -> Preference:
    """The right letter over a wrong one with probability ``rate``, else the wrong one over it."""
    digest = _hash(seed, question.task, question.id, "pair")
    wrong = [k for k in range(len(question.choices)) if k != question.answer]
    other = wrong[int.from_bytes(digest[:8], "big") % len(wrong)]
    agrees = int.from_bytes(digest[8:16], "big") / 2**64 < rate
    letters = [prefix + LETTERS[k] for k in (question.answer, other)]
    chosen, rejected = letters if agrees else letters[::-1]
    return Preference(
        f"{question.task}/{question.id}",
        prompt,
        chosen,
        rejected,
        rate if agrees else 1 - rate,
        question.subject,
        ends=False,
        asked=question.asked,
    )


def _hash(seed: int, *parts: Any) -> bytes:
    return hashlib.sha256(json.dumps([int(seed), *parts]).encode()).digest()
