"""Attributes of a ``config.json``, each checked to be what it must be.

Every function takes the value, the attribute's name and the file's name, and raises a UserError
that holds both where the value is another.
"""

from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError


def mapping(value: Any, key: str, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected an object.")
    return dict(value)


def positive_int(value: Any, key: str, where: str, most: int = 2**31 - 1, least: int = 1) -> int:
    """An integer from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            f"{where}: attribute {key!r} is {value!r}; expected an integer from {least} to {most}."
        )
    return value


def positive_float(value: Any, key: str, where: str) -> float:
    """A number above 0, as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected a positive number.")
    return float(value)


def boolean(value: Any, key: str, where: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected true or false.")
    return value
