"""Settings of public functions (seeds, counts, levels), looked at before anything is computed."""

import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer from ``least`` to ``most``, of Python, numpy or JAX.

    Raises:
        ValueError: anything else, also 2.0 and True.

    Example:
        >>> whole("seed", 3, 0)
        3
        >>> whole("folds", 2.5, 2)
        Traceback (most recent call last):
        ValueError: folds must be an integer, got 2.5
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {value!r}")
    return number


def between(name: str, value: Any, low: float, high: float) -> float:
    """A number strictly between ``low`` and ``high``.

    Raises:
        ValueError: anything else, also NaN.
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low < number < high:
        raise ValueError(f"{name} must lie strictly between {low:g} and {high:g}, got {value!r}")
    return number


_KNOWN: dict[str, Callable[[Any], Any]] = {
    # Words of 32 bits seed the draws on the device.
    "seed": lambda value: whole("seed", value, 0, 2**32 - 1),
    "num_resamples": lambda value: whole("num_resamples", value, 1),
    "num_draws": lambda value: whole("num_draws", value, 1),
    "folds": lambda value: whole("folds", value, 2),
    "level": lambda value: between("level", value, 0, 1),
}


def checked_settings(function: _Function, error: type[ValueError] = ValueError) -> _Function:
    """The function, whose ``seed``, ``num_resamples``, ``num_draws``, ``folds`` and ``level`` are
    checked first, so that a bad one is one message and not an error from deep inside.

    Args:
        function: of these settings, as any of its parameters are called.
        error: what is raised.

    Example:
        >>> quantile = checked_settings(lambda level=0.95, seed=0: level)
        >>> quantile(seed=-1)
        Traceback (most recent call last):
        ValueError: seed must be at least 0, got -1
    """
    signature = inspect.signature(function)
    known = _KNOWN.keys() & signature.parameters.keys()

    @functools.wraps(function)
    def with_check(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name in known & given.keys():
            try:
                _KNOWN[name](given[name])
            except ValueError as bad:
                raise error(*bad.args) from None
        return function(*args, **kwargs)

    return cast(_Function, with_check)
