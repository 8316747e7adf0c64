"""Which columns of a table hold what: by their names, or as `config.report.columns` says."""

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.errors import UserError
from calib_jax.reports.ingest.places import Place

PROBS = ("probs", "probabilities")
LOG_SCORES = ("log_scores", "logits", "log_probs", "logprobs")
ANSWERS = ("answer", "label", "gold", "target", "y_true")
CLUSTERS = ("cluster", "passage_id", "passage", "context")
IDS = ("id", "question_id", "doc_id")
# Of free answers: confidence, or confidence_<method>, and whether the answer is right.
CONFIDENCE, CORRECT = "confidence", ("correct", "is_correct")
# prob_0 .. prob_3, p_A .. p_D, prob_Billing, prob_Technical: a column per option.
WIDE = (
    (re.compile(r"(p|prob|probs|proba|probability)_(.+)"), "probs"),
    (re.compile(r"(logit|logits|log_prob|logprob|log_score|log_scores)_(.+)"), "scores"),
)
# What a model said and whether that was right, under the names that such columns have.
OUTCOMES = (
    "prediction", "predicted", "pred", "y_pred", "confidence", "conf", "correct", "is_correct",
    "right", "answerkey", "acc",
)  # fmt: skip  # names, several on a line
OPTIONAL = ("subject", "task", "split", "question", "choices")

ROLES = (
    "probs", "log_scores", "answer", "id", "subject", "task", "split", "question", "choices",
    "cluster", "confidence", "correct",
)  # fmt: skip  # names, several on a line
_SEVERAL = ("probs", "log_scores", "id")
FIELD = "config.report.columns"
EXAMPLE = f"--{FIELD}=Billing,Technical,Sales,answer=truth,id=ticket"
LAYOUTS = (
    "a row needs 'probs' or 'probs_<method>' (a list or {name: value}), or a column per option "
    "(prob_0, prob_1, ... or p_A, p_B, ... or prob_<name>, or the names of the options alone), or "
    "'log_scores' or 'logits' (lists); and 'answer' (an index, a letter or an option's name). Of "
    "free answers it needs 'confidence' (0 to 1) and 'correct' (true or false). "
    f"For any other layout say which columns hold what: {EXAMPLE}"
)


def parse(text: str) -> dict[str, list[str]]:
    """Role -> its columns, of ``[ROLE=]COLUMN[,...]``; a column alone is one of the options'.

    Several columns of probabilities or log-scores are the options, and give them their names; one
    column holds a list of them, an object {option: value}, or the number of a yes/no question's
    yes. Several columns of ids are joined. A dot looks into an object: output.probabilities.

    Raises:
      UserError: an unknown role, or a role that can have one column given twice.
    """
    found: dict[str, list[str]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        role, is_named, column = (part.strip() for part in entry.partition("="))
        if not is_named:
            role, column = "probs", entry
        if role not in ROLES or not column:
            raise UserError(
                f"{FIELD}: {entry!r} is not understood; write COLUMN for an option's probabilities "
                f"or ROLE=COLUMN with one of the roles {', '.join(ROLES)}, for example {EXAMPLE}"
            )
        if column in found.get(role, ()):
            raise UserError(f"{FIELD}: the column {column!r} appears twice as {role}")
        found.setdefault(role, []).append(column)
        if len(found[role]) > 1 and role not in _SEVERAL:
            raise UserError(f"{FIELD}: {role} can be one column, not {', '.join(found[role])}")
    return found


def applied(
    path: str, rows: Sequence[Mapping], columns: Sequence[str], roles: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """The rows with their columns under the names of their roles, and the others as they are.

    Args:
      path: how messages call the file.
      rows: N rows.
      columns: of all rows together.
      roles: role -> columns, from ``parse``.

    Raises:
      UserError: no row has one of the columns.
    """
    for role, names in roles.items():
        for name in names:
            if all(value_of(row, name) is None for row in rows):
                raise UserError(
                    f"{path}: no column {name!r} for {role} ({FIELD}) among "
                    f"{', '.join(map(str, columns))}"
                )
    taken = {name for names in roles.values() for name in names}
    # What else would by its name be read for a role that is given here is not.
    taken |= {name for name in columns if by_name(name) & roles.keys()}
    result = []
    for row in rows:
        new = {name: value for name, value in row.items() if name not in taken}
        for role, names in roles.items():
            values = [value_of(row, name) for name in names]
            if role == "id":
                new[role] = values[0] if len(values) == 1 else "-".join(map(str, values))
            elif len(values) > 1:
                new[role] = dict(zip(names, values, strict=True))
            else:
                new[role] = _of_two(role, values[0])
        result.append(new)
    return result


def by_name(column: str) -> set[str]:
    """The roles for which a column is read by its name; probabilities and log-scores are one."""
    options = (*PROBS, *LOG_SCORES)
    if column in options or any(pattern.fullmatch(str(column)) for pattern, _ in WIDE):
        return {"probs", "log_scores"}
    for role, names in (("answer", ANSWERS), ("id", IDS), ("correct", CORRECT)):
        if column in names:
            return {role}
    return {column} & set(ROLES)


def value_of(row: Mapping, name: str) -> Any:
    """A column, or what a name with dots finds in nested objects; None where there is none."""
    if name in row:
        return row[name]
    first, dot, rest = name.partition(".")
    inner = row.get(first)
    return value_of(inner, rest) if dot and isinstance(inner, Mapping) else None


def _of_two(role: str, value: Any) -> Any:
    """Both options of a yes/no question of which one number is known."""
    if role not in ("probs", "log_scores") or isinstance(value, bool):
        return value
    try:
        yes = float(value)
    except (TypeError, ValueError):
        return value
    if not math.isfinite(yes):
        return value
    return {"0": 1 - yes, "1": yes} if role == "probs" else {"0": 0.0, "1": yes}


def one_of(path: str, columns: list[str], names: Sequence[str], role: str) -> str:
    """The one column of ``names``; refused where there is none or more than one."""
    present = [name for name in names if name in columns]
    if len(present) > 1:
        raise UserError(
            f"{path}: the {role} appears in {' and '.join(present)}: keep one of these columns"
        )
    if not present:
        if len(columns) == 1 and (found := re.search(r"[;\t|]", str(columns[0]))):
            raise UserError(
                f"{path}: the header {str(columns[0])[:60]!r} is a single column; separate the "
                f"columns by commas, not by {found[0]!r}"
            )
        near = [
            f"should {str(column)!r} be called {match[0]!r}?"
            for column in columns
            if (match := difflib.get_close_matches(str(column).lower(), names, 1, 0.7))
        ]
        raise UserError(
            f"{path}: no column with the {role} among {', '.join(map(str, columns))}; "
            + (" ".join(near) or LAYOUTS)
        )
    return present[0]


def json_of(place: Place, i: int, column: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(
            f"{place.row(i)}: column {column!r} is not a JSON list: {text[:60]!r}"
        ) from None
