"""One grammar for the small languages that fields are written in: lists, labels, numbers, names.

A list is separated by commas, and ``\\,`` is a comma inside an entry. An entry may have a label
before an equals sign. What an entry names is either known, or refused with the nearest known name.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from calib_jax.errors import UserError

# Labels name folders, table rows and columns.
LABEL = re.compile(r"[A-Za-z0-9][\w.+-]*")
LABEL_RULE = "A label consists of letters, digits, '_', '.', '+' and '-', and begins with one of \
the first two."
# How a source of preference pairs is written, for the checks of a config and for what reads it.
PAIRS_OF_QUESTIONS = "questions:"
PAIR_SPELLINGS = (
    "a .jsonl, .json, .parquet or .csv file, hf:<owner>/<name>[:<config>]:<split>, or "
    f"{PAIRS_OF_QUESTIONS}<source>[@rate]"
)
_COMMA = re.compile(r"(?<!\\),")


def split_list(text: str) -> tuple[str, ...]:
    r"""The entries of a comma-separated field, blanks dropped; ``\,`` is a comma inside an entry.

    >>> split_list(r"a.csv, results\, 2024.csv,")
    ('a.csv', 'results, 2024.csv')
    """
    parts = (part.replace(r"\,", ",").strip() for part in _COMMA.split(text))
    return tuple(part for part in parts if part)


def cut(text: str, mark: str, last: bool = False) -> tuple[str, str, str]:
    """What stands before the first (or last) ``mark``, the mark, and what follows; stripped.

    Where the mark is missing, the whole text stands before it, or after it for the last one, as in
    ``str.partition`` and ``str.rpartition``.

    >>> cut("name = base->aligned", "="), cut("owner/model", "@")
    (('name', '=', 'base->aligned'), ('owner/model', '', ''))
    """
    head, found, tail = text.rpartition(mark) if last else text.partition(mark)
    return head.strip(), found, tail.strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a misspelt one; "" where none is."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known name, with a space before it; "" for none.

    >>> suggestion("temprature", ["temperature", "vector"])
    " Did you mean 'temperature'?"
    """
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""


def check_known(name: str, field: str, known: Collection[str]) -> None:
    """Raises UserError, which offers the nearest, where ``field`` names what does not exist."""
    if name not in known:
        raise UserError(
            f"{field} names {name!r}; choose from: {', '.join(known)}.{suggestion(name, known)}"
        )


def names(text: str, field: str, known: Sequence[str], repeated: bool = False) -> tuple[str, ...]:
    """The names of a comma-separated field, each of which must be known.

    Args:
      text: its value.
      field: what messages call it.
      known: every name that it may hold.
      repeated: whether a name may appear more than once.

    Raises:
      UserError: no name, an unknown one (the nearest is offered), or one that appears twice.
    """
    found = split_list(text)
    if not found:
        raise UserError(f"{field} names nothing; choose from: {', '.join(known)}.")
    for i, name in enumerate(found):
        check_known(name, field, known)
        if not repeated and name in found[:i]:
            raise UserError(f"{field} names {name!r} twice; leave one out.")
    return found


def numbers(text: str, field: str, kind: type = int, least: float = 0) -> list[Any]:
    """The numbers of a comma-separated field.

    Args:
      text: its value.
      field: what messages call it.
      kind: int or float.
      least: that a number must be.

    Raises:
      UserError: no number, an entry that is no number or too small, or one that appears twice.

    >>> numbers("0, 0.3,1", "config.sweep.ece_weight", float)
    [0.0, 0.3, 1.0]
    """
    what = f"{'whole numbers' if kind is int else 'numbers'} of at least {least:g}"
    found: list[Any] = []
    for part in split_list(text):
        try:
            value = kind(part)
        except ValueError:
            value = None
        if value is None or not least <= value < 2**32:
            raise UserError(f"{field} holds {part!r}; expected {what}, separated by commas.")
        if value in found:
            raise UserError(f"{field} holds {part} twice; leave one out.")
        found.append(value)
    if not found:
        raise UserError(f"{field} is empty; expected {what}, separated by commas.")
    return found


def labelled(
    text: str,
    field: str,
    spelling: str,
    taken: Collection[str] = (),
    label: re.Pattern[str] = LABEL,
    rule: str = LABEL_RULE,
) -> dict[str, str]:
    """Label -> what follows it, in order, of entries ``label=...`` separated by commas.

    Labels that differ in capitals alone are the same: they name folders, and on some systems those
    would be one.

    Args:
      text: the field's value.
      field: what messages call it.
      spelling: of the entries, for messages.
      taken: labels that are in use already.
      label: what a label must match.
      rule: the same in words.

    Raises:
      UserError: an entry without a label or without what follows it, or a label that is not valid,
        appears twice or is taken.
    """
    found: dict[str, str] = {}
    for entry in split_list(text):
        name, equals, rest = cut(entry, "=")
        if not equals or not rest or not label.fullmatch(name):
            raise UserError(f"{field}: {entry!r} is not understood; write {spelling}. {rule}")
        if name.lower() in (other.lower() for other in found):
            raise UserError(f"{field}: the label {name!r} appears twice; choose another.")
        if name.lower() in (other.lower() for other in taken):
            raise UserError(f"{field}: the label {name!r} is taken; choose another.")
        found[name] = rest
    return found


def settings(
    text: str, field: str, part: str, names: Sequence[str], known: Collection[str], where: str
) -> dict[str, dict[str, str]]:
    """Part -> field of the config -> text, of entries ``part:field=value`` separated by commas.

    Args:
      text: the value of a field such as ``config.stages.settings``.
      field: what messages call it.
      part: what a part is called: "stage", "method".
      names: the parts that this job has.
      known: every name that a part can have.
      where: the field that lists ``names``, in words.

    Raises:
      UserError: an entry that is not understood, that belongs to no part of this job, or that
        appears twice.

    >>> settings("dpo:align.beta=0.05", "f", "stage", ["dpo"], ["dpo", "cft"], "the chain")
    {'dpo': {'align.beta': '0.05'}}
    """
    found: dict[str, dict[str, str]] = {}
    for entry in split_list(text):
        head, equals, value = cut(entry, "=")
        name, colon, key = cut(head, ":")
        if not (equals and colon and name and key):
            example = f"{next(iter(names), 'cft')}:train.learning_rate=1e-4"
            raise UserError(
                f"{field}: {entry!r} is not understood; write {part}:field=value, such as "
                f"{example}, several separated by commas."
            )
        check_known(name, field, known)
        if name not in names:
            raise UserError(f"{field}: {entry!r} belongs to a {part} that {where} does not name.")
        if key in found.setdefault(name, {}):
            raise UserError(f"{field}: {name}:{key} appears twice; leave one out.")
        found[name][key] = value
    return found
