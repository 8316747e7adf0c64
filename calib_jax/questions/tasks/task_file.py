"""A task from its ``.toml`` file, read strictly: one mistake is one message."""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Collection
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions import local
from calib_jax.questions.answers import BASES
from calib_jax.questions.offline import PACKAGES
from calib_jax.questions.prompts import FIELDS, check_template
from calib_jax.questions.tasks.fields import CLEAN, FILTERS, SLOT, Fields
from calib_jax.questions.tasks.task import (
    FORMS,
    NATIVE,
    PICKS,
    Hub,
    Offline,
    Part,
    Task,
)

TEXTS = (
    *("title", "licence", "harness", "eval_split", "shots_split", "shots_pick", "native"),
    *("choice", "continuation", "description", "continuation_description", "form"),
)
TABLES = ("hub", "offline", "files", "parts", "counts", "fields", "request_fields", "groups")
CHOSEN = {"form": FORMS, "native": NATIVE, "shots_pick": PICKS}
TEMPLATES = ("choice", "continuation", "description", "continuation_description")


def read_task(path: Path) -> Task:
    """The task that a file describes; paths of question files are relative to it.

    Raises:
      UserError: the file cannot be read or says something that is not understood; names the key.
    """
    reads(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    try:
        return _task(data, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _task(data: dict, path: Path) -> Task:
    _known(data, ("name", *TEXTS, "answer_base", *TABLES), "")
    values: dict = {key: _string(data, key) for key in TEXTS if key in data}
    values["name"] = _string(data, "name") if "name" in data else path.stem
    values.setdefault("title", values["name"])
    if "answer_base" in data:
        values["answer_base"] = str(data["answer_base"])
        if values["answer_base"] not in BASES:
            raise UserError(f"key 'answer_base' must be 0 or 1, not {data['answer_base']!r}")
    tables = {key: _table(data, key) for key in TABLES}

    if hub := tables["hub"]:
        _known(hub, ("path", "config"), "hub")
        values["hub"] = Hub(**_strings(hub, "hub", needed=("path",)))
    values["offline"] = {
        split: _offline(table, f"offline.{split}") for split, table in tables["offline"].items()
    }
    values["files"] = {
        split: path.parent / Path(name).expanduser()
        for split, name in _strings(tables["files"], "files").items()
    }
    for split, file in values["files"].items():
        if file.suffix.lower() not in local.READERS:
            raise UserError(f"key 'files.{split}' must end in {', '.join(local.READERS)}")
    for split, count in tables["counts"].items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"key 'counts.{split}' must be a number of questions, not {count!r}")
    values["counts"] = tables["counts"]
    values["parts"] = {
        name: _part(table, f"parts.{name}") for name, table in tables["parts"].items()
    }
    for key in ("fields", "request_fields"):
        if tables[key]:
            values[key] = _fields(tables[key], key)
    values["groups"] = _groups(tables["groups"])
    if len(values["files"]) == 1 and not values["offline"] and "hub" not in values:
        values.setdefault("eval_split", *values["files"])
    task = Task(**values)
    _check(task, data)
    return task


def _check(task: Task, data: dict) -> None:
    """What holds between keys."""
    if not (task.hub or task.offline or task.files):
        raise UserError("no questions: give [files], or [hub] with [fields]")
    if (task.hub or task.offline) and not task.fields:
        raise UserError("key 'fields' is missing: it says which column holds what")
    for key, allowed in CHOSEN.items():
        if getattr(task, key) not in allowed:
            raise UserError(
                f"key {key!r} is {getattr(task, key)!r}; expected {' or '.join(allowed)}"
            )
    for key in TEMPLATES:
        for field in re.findall(r"\{(\w+)\}", getattr(task, key)):
            if field not in FIELDS:
                raise UserError(f"key {key!r} has the field {{{field}}}{_suggest(field, FIELDS)}")
    check_template(task.choice, letters=True, name="key 'choice'")
    check_template(task.continuation, letters=False, name="key 'continuation'")
    for name, part in task.parts.items():
        _check_part(task, name, part)
    for key in ("eval_split", "shots_split"):
        split = getattr(task, key)
        if split is not None and not task.hub and split not in task.splits:
            raise UserError(
                f"key {key!r} {'is' if key in data else 'would be'} {split!r}, a split that is "
                f"not there; there are: {', '.join(task.splits)}"
            )


def _offline(table, where: str) -> Offline:
    if not isinstance(table, dict):
        raise UserError(f"key {where!r} must be a table with package and folder")
    _known(table, ("package", "folder"), where)
    place = Offline(**_strings(table, where, needed=("package", "folder")))
    if place.package not in PACKAGES:
        raise UserError(f"key '{where}.package' must be one of {', '.join(PACKAGES)}")
    return place


def _part(table, where: str) -> Part:
    if not isinstance(table, dict):
        raise UserError(f"key {where!r} must be a table with of, and rows or without")
    _known(table, ("of", "rows", "without"), where)
    if ("rows" in table) == ("without" in table):
        raise UserError(f"key {where!r} must have one of the keys rows and without")
    rows = table.pop("rows", [])
    if not isinstance(rows, list) or any(type(row) is not int or row < 0 for row in rows):
        raise UserError(f"key '{where}.rows' must be a list of row numbers, from 0")
    if len(set(rows)) < len(rows):
        twice = next(row for row in rows if rows.count(row) > 1)
        raise UserError(f"key '{where}.rows': row {twice} appears twice")
    if not rows and "without" not in table:
        raise UserError(f"key '{where}.rows' is empty")
    return Part(rows=tuple(rows), **_strings(table, where, needed=("of",)))


def _check_part(task: Task, name: str, part: Part) -> None:
    whole = {*task.counts, *task.offline, *task.files}
    if name in whole:
        raise UserError(f"key 'parts.{name}' has the name of a whole split")
    if part.of not in whole and not task.hub:
        raise UserError(f"key 'parts.{name}.of' is {part.of!r}{_suggest(part.of, whole)}")
    if part.without:
        other = task.parts.get(part.without)
        if other is None or other.without or other.of != part.of:
            raise UserError(
                f"key 'parts.{name}.without' is {part.without!r}; expected a part of "
                f"{part.of!r} that has rows"
            )


def _fields(table: dict, where: str) -> Fields:
    _known(table, tuple(field.name for field in dataclasses.fields(Fields)), where)
    values = {}
    for key, value in table.items():
        if key in ("choices", "labels") and isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                raise UserError(f"key '{where}.{key}' must be text or a list of texts")
            value = tuple(value)
            _slots("".join(value), f"{where}.{key}")
        elif key == "parse":
            value = _strings(_table(table, key), f"{where}.parse")
            for column, text in value.items():
                for slot in _slots(text, f"{where}.parse.{column}"):
                    if not slot.isidentifier():
                        raise UserError(f"key '{where}.parse.{column}' has the slot {{{slot}}}")
        elif not isinstance(value, str) and (key != "answer" or type(value) is not int):
            raise UserError(f"key '{where}.{key}' has the wrong type: {value!r}")
        elif key in ("question", "context") and not _slots(str(value), f"{where}.{key}") and value:
            raise UserError(f"key '{where}.{key}' names no column: write {{{value}}} for one")
        values[key] = value
    for key in ("question", "choices", "answer"):
        if key not in values:
            raise UserError(f"key '{where}.{key}' is missing")
    if values.get("clean", "") not in CLEAN:
        raise UserError(f"key '{where}.clean' must be one of {', '.join(filter(None, CLEAN))}")
    return Fields(**values)


def _slots(text: str, where: str) -> list[str]:
    """The columns that a text takes, after a look at its filters."""
    slots = list(SLOT.finditer(text))
    for slot in slots:
        if slot[2] is not None and slot[2] not in FILTERS:
            raise UserError(f"key {where!r} has the filter {slot[2]!r}{_suggest(slot[2], FILTERS)}")
    return [slot[1] for slot in slots]


def _groups(table: dict) -> dict[str, str]:
    """Subject to group, from group to subjects."""
    groups: dict[str, str] = {}
    for group, subjects in table.items():
        if not isinstance(subjects, list) or not all(isinstance(s, str) for s in subjects):
            raise UserError(f"key 'groups.{group}' must be a list of subjects")
        for subject in subjects:
            if subject in groups:
                raise UserError(f"subject {subject!r} is in the groups {groups[subject]}, {group}")
            groups[subject] = group
    return groups


def _known(table: dict, allowed: Collection[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            name = f"{where}.{key}" if where else key
            raise UserError(f"no such key: {name!r}{_suggest(key, allowed)}")


def _suggest(name: str, allowed: Collection[str]) -> str:
    if close := difflib.get_close_matches(name, allowed, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(allowed)}"


def _string(table: dict, key: str, where: str = "") -> str:
    if not isinstance(table[key], str):
        name = f"{where}.{key}" if where else key
        raise UserError(f"key {name!r} must be text, not {table[key]!r}")
    return table[key]


def _strings(table: dict, where: str, needed: Collection[str] = ()) -> dict[str, str]:
    for key in needed:
        if key not in table:
            raise UserError(f"key '{where}.{key}' is missing")
    return {key: _string(table, key, where) for key in table}


def _table(data: dict, key: str) -> dict:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise UserError(f"key {key!r} must be a table, not {table!r}")
    return table
