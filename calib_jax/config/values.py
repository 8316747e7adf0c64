"""Checks of single values that limits do not express; each imports what it needs when called.

Every check takes a field's value and what messages call the field ("config.stages.chain"), and
raises UserError, which names the field and the remedy.
"""

from collections.abc import Callable
from typing import Any

from calib_jax import grammar
from calib_jax.config.field import Registry
from calib_jax.errors import UserError

Check = Callable[[Any, str], Any]


def named(known: Registry, repeated: bool = False) -> Check:
    """A check of a comma-separated list of known names."""
    return lambda text, where: grammar.names(text, where, tuple(known), repeated)


def numbers(kind: type = int, least: float = 0) -> Check:
    """A check of a comma-separated list of numbers."""
    return lambda text, where: grammar.numbers(text, where, kind, least)


def template(letters: bool) -> Check:
    """A check of a prompt's template, for options' letters or for their texts."""

    def check(text: str, where: str) -> None:
        from calib_jax.questions.prompts import check_template

        check_template(text, letters, where)

    return check


def compared(text: str, where: str) -> None:
    """Methods that are trained, or fitted to scores and answers alone."""
    from calib_jax.reports.calibrated import NEEDS_MORE
    from calib_jax.runs.comparing import known_methods

    for name in grammar.split_list(text):
        if name in NEEDS_MORE:
            raise UserError(f"{where} names {name!r}, which needs {NEEDS_MORE[name]}.")
    grammar.names(text, where, known_methods())


def calibrators(text: str, where: str) -> None:
    """Methods that scores and answers alone feed."""
    from calib_jax.reports import calibrated

    calibrated.check(grammar.split_list(text))


def writers(text: str, where: str) -> None:
    """Known ones, whose packages are installed."""
    from calib_jax.reports import sinks

    sinks.check(text)


def scheme(name: str, where: str) -> None:
    """A scheme of quantisation, for which a package must be installed."""
    from calib_jax.models.quantize import check_scheme

    check_scheme(name)


def mesh(shape: Any, where: str) -> None:
    """A mesh's shape, as far as no device need be known."""
    from calib_jax.parallel.mesh import check_shape

    check_shape(shape)


def template_arguments(text: str, where: str) -> None:
    """A JSON object for chat templates."""
    from calib_jax.questions.chat import ChatSettings

    ChatSettings.read(text)


def date(text: str, where: str) -> None:
    """A date for chat templates."""
    from calib_jax.questions.chat import ChatSettings

    ChatSettings.read(date=text)


def hardware(name: str, where: str) -> None:
    """Hardware that a run can be planned for."""
    from calib_jax.parallel import topology

    topology.find(name)


def answer_name(name: str, where: str) -> None:
    """A name for answer files, which the judges take for the model's."""
    if "/" in name or name.startswith("."):
        raise UserError(
            f"{where} is {name!r}, and the judges take a file's name for the model's: it must not "
            "begin with a dot or hold a slash."
        )


def axis(name: str, where: str) -> None:
    """Any name, but none that is nearly one of the known axes."""
    from calib_jax.runs.lifecycle_series import check_axis

    check_axis(name)


def files_once(text: str, where: str) -> None:
    """Files, none of them twice."""
    files = grammar.split_list(text)
    if twice := [path for path in files if files.count(path) > 1]:
        raise UserError(f"{where} names {twice[0]} twice; leave one out.")
