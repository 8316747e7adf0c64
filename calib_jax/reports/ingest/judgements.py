"""Judgements of answers: AlpacaEval's annotations, Arena-Hard's games, or plain rows."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions.local import READERS

# Arena-Hard's verdicts as (games won by A, weight); a clear one counts three times.
CLEAR = 3
VERDICTS = {
    "A>>B": (CLEAR, CLEAR),
    "A>B": (1, 1),
    "A=B": (0.5, 1),
    "A<B": (0, 1),
    "A<<B": (0, CLEAR),
}
VERDICTS |= {
    "B>>A": VERDICTS["A<<B"],
    "B>A": VERDICTS["A<B"],
    "B=A": VERDICTS["A=B"],
    "B<A": VERDICTS["A>B"],
    "B<<A": VERDICTS["A>>B"],
}
LAYOUTS = ("alpaca_eval", "arena_hard", "plain")
UNKNOWN = "baseline"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a judge said about two answers to one question.

    Attributes:
      id: of the question.
      wins, games: of the model; a tie is half a win.
      lengths: of the model's and the baseline's answer, or None where they are not known.
    """

    id: str
    wins: float
    games: float
    lengths: tuple[int, int] | None = None


@dataclasses.dataclass
class Contest:
    """All judgements of one model against one baseline.

    Attributes:
      model, baseline, category: what the file calls them; category "" where it has none.
      layout: of the file.
      judgements: in the file's order.
      unjudged: questions without a verdict (in one of the games), which are left out.
    """

    model: str
    baseline: str
    category: str
    layout: str
    judgements: list[Judgement]
    unjudged: int = 0


def read_judgements(path: str | Path, answers: Mapping[str, Mapping[str, int]]) -> list[Contest]:
    """Every contest of a file, in the order of their first rows.

    alpaca_eval: a JSON list of rows with ``preference`` (1: output_1, 2: output_2, in between:
    how likely the second, 1.5 or 0: a tie, null: none), ``generator_1``, ``generator_2`` (the
    model) and ``output_1``, ``output_2``. arena_hard: lines with ``games``, two of them: the
    baseline is A in the first, the model in the second; ``score`` is a verdict such as "A>>B", or
    null. plain: lines with ``win`` in [0, 1], or null, and maybe ``model``, ``baseline``,
    ``length`` and ``baseline_length``.

    Args:
      path: .json (a list) or .jsonl.
      answers: model -> question's id -> length of its answer, for files that hold no answers.

    Raises:
      UserError: the file is missing, of none of these layouts, or a row is bad or appears twice.
    """
    rows = _rows(Path(path).expanduser(), str(path))
    layout = _layout(rows[0][1], f"{path} row {rows[0][0]}")
    contests: dict[tuple[str, str, str], Contest] = {}
    seen: dict[tuple[str, ...], int] = {}
    for number, row in rows:
        where = f"{path} row {number}"
        if _layout(row, where) != layout:
            raise UserError(f"{where}: another layout than the rows before it ({layout}).")
        key, judgement = _READ[layout](row, where, f"row-{number}", answers)
        contest = contests.setdefault(key, Contest(*key, layout, []))
        identity = judgement.id if judgement else _identity(row, layout, f"row-{number}")
        first = seen.setdefault((*key, identity), number)
        if first != number:
            raise UserError(
                f"{where}: {key[0]} against {key[1]} on {_shorten(identity)} is in row {first} "
                "already. Remove one of the two."
            )
        if judgement is None:
            contest.unjudged += 1
        else:
            contest.judgements.append(judgement)
    for contest in contests.values():
        if not contest.judgements:
            raise UserError(
                f"{path}: none of the {contest.unjudged} judgements of {contest.model} holds a "
                "verdict."
            )
    return list(contests.values())


def read_answer_lengths(path: str | Path) -> dict[str, dict[str, int]]:
    """Model -> question's id -> characters of its answer, of an Arena-Hard answer file.

    Raises:
      UserError: the file is missing, or a row is of neither of its two layouts.
    """
    found: dict[str, dict[str, int]] = {}
    for number, row in _rows(Path(path).expanduser(), str(path)):
        try:
            if "messages" in row:
                content = row["messages"][-1]["content"]
                text = content["answer"] if isinstance(content, Mapping) else content
                model, identity = row["model"], row["uid"]
            else:
                text = row["choices"][0]["turns"][0]["content"]
                model, identity = row["model_id"], row["question_id"]
            found.setdefault(str(model), {})[str(identity)] = len(text)
        except (KeyError, IndexError, TypeError):
            raise UserError(
                f"{path} row {number}: no answer in Arena-Hard's layout (uid, model, messages; or "
                "question_id, model_id, choices)."
            ) from None
    return found


def _rows(path: Path, name: str) -> list[tuple[int, Mapping[str, Any]]]:
    if not path.is_file():
        raise UserError(f"{name}: there is no such file.")
    if path.suffix.lower() not in (".json", ".jsonl"):
        raise UserError(f"{name}: expected a .json or a .jsonl file.")
    if path.suffix.lower() == ".jsonl":
        rows: list[tuple[int, Mapping[str, Any]]] = list(READERS[".jsonl"](path))
    else:
        reads(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: not valid JSON ({error}).") from None
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise UserError(f"{name}: expected a JSON list of objects.")
        rows = list(enumerate(content, 1))
    if not rows:
        raise UserError(f"{name}: there are no rows.")
    return rows


def _layout(row: Mapping[str, Any], where: str) -> str:
    for field, layout in zip(("preference", "games", "win"), LAYOUTS, strict=True):
        if field in row:
            return layout
    raise UserError(
        f"{where}: no judgement; expected 'preference' (AlpacaEval's annotations), 'games' "
        "(Arena-Hard's judgements) or 'win' (plain rows)."
    )


Key = tuple[str, str, str]
Lengths = Mapping[str, Mapping[str, int]]


def _alpaca(
    row: Mapping[str, Any], where: str, number: str, answers: Lengths
) -> tuple[Key, Judgement | None]:
    key = (_name(row, "generator_2", where), _name(row, "generator_1", where, UNKNOWN), "")
    preference = row["preference"]
    if preference is None or (isinstance(preference, float) and math.isnan(preference)):
        return key, None
    wins = 0.5 if preference == 0 else _number(preference, f"{where}: 'preference'", 1, 2) - 1
    mine, other = row.get("output_2"), row.get("output_1")
    lengths = None
    if isinstance(mine, str) and isinstance(other, str):
        lengths = len(mine), len(other)
    return key, Judgement(_identity(row, "alpaca_eval", number), wins, 1.0, lengths)


def _arena(
    row: Mapping[str, Any], where: str, number: str, answers: Lengths
) -> tuple[Key, Judgement | None]:
    model = _name(row, "model", where)
    others = [name for name in answers if name != model]
    # v0.1 does not say whom it was judged against.
    baseline = row.get("baseline") or (others[0] if len(others) == 1 else UNKNOWN)
    key = (model, str(baseline), str(row.get("category") or ""))
    games = row["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise UserError(f"{where}: 'games' must be a list of two, one for each order of answers.")
    scores: list[Any] = [g.get("score") if isinstance(g, Mapping) else None for g in games]
    if None in scores:
        return key, None
    for score in scores:
        if score not in VERDICTS:
            raise UserError(f"{where}: the score is {score!r}; choose from: {', '.join(VERDICTS)}.")
    (lost, first), (won, second) = (VERDICTS[score] for score in scores)
    identity = _identity(row, "arena_hard", number)
    mine, other = (answers.get(name, {}).get(identity) for name in key[:2])
    lengths = None if mine is None or other is None else (mine, other)
    return key, Judgement(identity, first - lost + won, first + second, lengths)


def _plain(
    row: Mapping[str, Any], where: str, number: str, answers: Lengths
) -> tuple[Key, Judgement | None]:
    key = (
        _name(row, "model", where, "model"),
        _name(row, "baseline", where, UNKNOWN),
        str(row.get("category") or ""),
    )
    if row["win"] is None:
        return key, None
    wins = _number(row["win"], f"{where}: 'win'", 0, 1)
    sizes = [row.get("length"), row.get("baseline_length")]
    lengths = None
    if None not in sizes:
        mine, other = (int(_number(n, f"{where}: a length", 0, math.inf)) for n in sizes)
        lengths = mine, other
    return key, Judgement(_identity(row, "plain", number), wins, 1.0, lengths)


_READ = dict(zip(LAYOUTS, (_alpaca, _arena, _plain), strict=True))


def _identity(row: Mapping[str, Any], layout: str, number: str) -> str:
    """What a question is told from others by."""
    fields = {
        "alpaca_eval": ("instruction",),
        "arena_hard": ("uid", "question_id"),
        "plain": ("id",),
    }[layout]
    return str(next((row[f] for f in fields if row.get(f) is not None), number))


def _name(row: Mapping[str, Any], field: str, where: str, otherwise: str | None = None) -> str:
    value = row.get(field, otherwise)
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {field!r} must name a model, not {value!r}.")
    return value


def _number(value: Any, what: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{what} is {value!r}; expected a number from {low:g} to {high:g}.")
    return float(value)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
