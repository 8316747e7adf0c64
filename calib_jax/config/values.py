"""Checks of single values that limits do not express; each imports what it needs when called.

Every check takes a field's value and what messages call the field ("config.stages.chain"), and
raises UserError, which names the field and the remedy.
"""

from collections.abc import Callable
from typing import Any

from calib_jax import grammar
from calib_jax.config.field import Registry, find
from calib_jax.errors import UserError

Check = Callable[[Any, str], Any]


def by(place: str, split: bool = False) -> Check:
    """The check that a module of the package has itself, "module:function".

    It takes the value alone, or the entries of a comma-separated one (``split``).
    """
    return lambda value, where: find(place)(grammar.split_list(value) if split else value)


def named(known: Registry, repeated: bool = False) -> Check:
    """A check of a comma-separated list of known names."""
    return lambda text, where: grammar.names(text, where, tuple(known), repeated)


def numbers(kind: type = int, least: float = 0) -> Check:
    """A check of a comma-separated list of numbers."""
    return lambda text, where: grammar.numbers(text, where, kind, least)


def template(letters: bool) -> Check:
    """A check of a prompt's template, for options' letters or for their texts."""
    check = "calib_jax.questions.prompts:check_template"
    return lambda text, where: find(check)(text, letters, where)


def compared(text: str, where: str) -> None:
    """Methods that are trained, or fitted to scores and answers alone."""
    current_name = find("calib_jax.reports.compare.comparison:current_name")
    names = list(map(current_name, grammar.split_list(text)))
    find("calib_jax.runs.compared_methods:check_names")(names, where)


def answer_name(name: str, where: str) -> None:
    """A name for answer files, which the judges take for the model's."""
    if "/" in name or name.startswith("."):
        raise UserError(
            f"{where} is {name!r}, and the judges take a file's name for the model's: it must not "
            "begin with a dot or hold a slash."
        )


def files_once(text: str, where: str) -> None:
    """Files, none of them twice."""
    files = grammar.split_list(text)
    if twice := [path for path in files if files.count(path) > 1]:
        raise UserError(f"{where} names {twice[0]} twice; leave one out.")
