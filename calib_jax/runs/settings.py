"""Settings of a part of a job alone, part:field=value: of a stage, or of a method compared."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError


def check_known(name: str, field: str, known: Collection[str]) -> None:
    """Raises UserError, which names the nearest, where ``field`` names what there is not."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{field} names {name!r}; there is {', '.join(known)}.{guess}")


def parse(
    text: str, field: str, names: Collection[str], known: Collection[str], part: str, where: str
) -> dict[str, dict[str, str]]:
    """name -> field -> text of a field such as ``config.stages.settings``.

    Args:
      text: entries NAME:FIELD=VALUE, separated by commas.
      field: what messages call the place.
      names: of the job's parts: those that may be named.
      known: every name there could be.
      part: what one is called: "stage", "method".
      where: what lists ``names``, in words.

    Raises:
      UserError: an entry that is not understood, of no part of this job, or twice.

    >>> parse("dpo:align.beta=0.05", "f", ["dpo"], ["dpo", "cft"], "stage", "the chain")
    {'dpo': {'align.beta': '0.05'}}
    """
    found: dict[str, dict[str, str]] = {}
    for entry in split_list(text):
        head, equals, value = entry.partition("=")
        name, colon, key = (word.strip() for word in head.partition(":"))
        if not (equals and colon and name and key):
            raise UserError(
                f"{field}: {entry!r} is not understood; write {part}:field=value, such as "
                f"{next(iter(names), 'cft')}:train.learning_rate=1e-4, several separated by commas."
            )
        check_known(name, field, known)
        if name not in names:
            raise UserError(f"{field}: {entry!r} is of a {part} that {where} has not.")
        if key in found.get(name, {}):
            raise UserError(f"{field}: {name}:{key} appears twice.")
        found.setdefault(name, {})[key] = value.strip()
    return found


def apply(
    config: ml_collections.ConfigDict,
    own: Mapping[str, str],
    where: str,
    refused: Mapping[str, str],
) -> None:
    """Sets fields, such as "train.epochs", from text.

    Args:
      own: field -> text.
      where: what messages begin with.
      refused: section -> why its fields cannot be set here.

    Raises:
      UserError: there is no such field, it is refused, or the text is no value of it.
    """
    flat = _flat(config)
    for field, text in own.items():
        if field not in flat:
            near = difflib.get_close_matches(field, flat, 1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{where}: there is no field {field!r}.{guess}")
        if why := refused.get(field.split(".")[0]):
            raise UserError(f"{where}: {field} {why}.")
        *sections, key = field.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[key] = _value(text, flat[field], f"{where}: {field}={text}")


def _value(text: str, example: Any, where: str) -> Any:
    kind = type(example)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
    except (KeyError, ValueError):
        pass
    raise UserError(f"{where} is no value of this field; expected one such as {example!r}.")


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
