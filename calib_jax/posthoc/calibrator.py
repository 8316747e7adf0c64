"""What every calibrator is: a frozen dataclass that is fitted, called, and kept as JSON."""

import abc
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import jax
from jax.typing import ArrayLike

from calib_jax.errors import UserError

_FORMAT = "calib_jax.posthoc"
_VERSION = 1


class CalibrationWarning(UserWarning):
    """A fit that ended, but not at an ordinary optimum; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """Base of the frozen dataclasses that ``save`` writes and ``load`` reads.

    Every field is declared with ``parameter(check)``; the check runs on each construction and
    brings the value to plain Python numbers, so that the JSON holds every bit of them.
    """

    name: ClassVar[str]
    label: ClassVar[str]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            try:
                value = field.metadata["check"](getattr(self, field.name))
            except (TypeError, ValueError) as error:
                raise UserError(f'{self.name}: "{field.name}" {error}') from None
            object.__setattr__(self, field.name, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raise UserError when fields that are right one by one do not fit together."""

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted parameters as JSON, whole or not at all; ``load`` reads them."""
        path = pathlib.Path(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder: name the file, such as {path / self.name}.json")
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "method": self.name,
            "parameters": dataclasses.asdict(self),
        }
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def parameter(check: Callable[[Any], Any], **options) -> Any:
    """A dataclass field whose value ``check`` accepts and normalises."""
    return dataclasses.field(metadata={"check": check}, **options)


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    """Check: a finite number in [low, high]."""

    def check(value):
        try:
            finite = not isinstance(value, (bool, str)) and math.isfinite(float(value))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise ValueError(f"must be a finite number, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"must lie in [{low:g}, {high:g}], got {value!r}")
        return float(value)

    return check


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Check: None, or what ``check`` accepts."""
    return lambda value: None if value is None else check(value)


def count(value: Any) -> int:
    """Check: an integer >= 0."""
    if isinstance(value, (bool, str)) or int(value) != value or value < 0:
        raise ValueError(f"must be an integer >= 0, got {value!r}")
    return int(value)


def flag(value: Any) -> bool:
    """Check: True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


def choice(*names: str) -> Callable[[Any], str]:
    """Check: one of the names."""

    def check(value):
        if value not in names:
            raise ValueError(f"must be one of {', '.join(names)}, got {value!r}")
        return value

    return check


def row(check: Callable[[Any], Any], least: int = 1) -> Callable[[Any], tuple]:
    """Check: a list of at least ``least`` values that ``check`` accepts."""

    def check_all(values):
        if isinstance(values, (str, dict)) or not hasattr(values, "__len__"):
            raise ValueError(f"must be a list, got {values!r}")
        if len(values) < least:
            raise ValueError(f"must hold at least {least} values, got {len(values)}")
        return tuple(check(value) for value in values)

    return check_all


@dataclasses.dataclass(frozen=True)
class Calibrator(Stored, abc.ABC):
    """Maps option scores to calibrated option probabilities.

    Attributes:
        floor: ln of the probability that an option of probability exactly 0 is read as, where the
            rows of the fit held such options (see ``posthoc.floor``); else None.
        name: the method's key in ``METHODS``.
        label: what tables call it.
        preserves_argmax: True when the order of a row's options stays (float32 rounding may at
            most make two equal), and with it every prediction and the accuracy. What else a method
            preserves, its docstring says.
        needs_answers: False for label-free methods, which ignore ``answers``.
        reads: what fit and call take first, an attribute of ``calib_jax.Scores``: "log_scores"
            [N, K], or "states" [N, D], the hidden states.
        scalars: the parameters that are one number each and make the whole map, such as
            "temperature"; () where there are none, or more than a line of a table holds.
    """

    _: dataclasses.KW_ONLY
    floor: float | None = parameter(optional(number(high=0)), default=None, repr=False)

    preserves_argmax: ClassVar[bool]
    needs_answers: ClassVar[bool] = True
    reads: ClassVar[str] = "log_scores"
    scalars: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abc.abstractmethod
    def fit(
        cls,
        log_scores: ArrayLike,
        answers: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        weights: ArrayLike | None = None,
    ) -> Self:
        """The calibrator fitted to ``log_scores`` [N, K], ``answers`` [N]; see the package."""

    @abc.abstractmethod
    def __call__(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        """Calibrated probabilities, float32 [N, K]; rows sum to 1, 0 where masked."""

    @abc.abstractmethod
    def log_probs(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        """ln of the calibrated probabilities, float32 [N, K]; -inf where masked.

        Finite also where the probability is too small for float32: what the ``log_scores`` of a
        metric are (see ``metrics.nll``).
        """


METHODS: dict[str, type[Calibrator]] = {}
# Everything that load can read: the calibrators, and what gives sets instead of probabilities.
_STORED: dict[str, type[Stored]] = {}


def register(name: str, label: str) -> Callable[[type], type]:
    """Class decorator: gives the class its name and label and enters it where ``load`` looks."""

    def enter(cls):
        cls.name, cls.label = name, label
        _STORED[name] = cls
        if issubclass(cls, Calibrator):
            METHODS[name] = cls
        return cls

    return enter


def load(path: str | os.PathLike) -> Any:
    """The calibrator (or conformal predictor) that ``save`` wrote: it computes the same bits.

    Raises:
        UserError: no such file, not JSON, not a calibrator of ours, a newer version, an unknown
            method, or a parameter that is missing, unknown or out of range. The message names
            the file and the key.
    """
    path = pathlib.Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}): give a calibrator's file") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}): fit and save the calibrator again") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UserError(
            f'{path}: key "format" is not "{_FORMAT}": this file does not hold a calibrator; '
            "write one with .save(path)"
        )
    version = document.get("version")
    if type(version) is not int or version != _VERSION:
        raise UserError(
            f'{path}: key "version" is {version!r}, this release reads {_VERSION}: '
            "upgrade calib_jax, or fit and save the calibrator again"
        )
    method = document.get("method")
    if not isinstance(method, str) or method not in _STORED:
        raise UserError(
            f'{path}: key "method" is {method!r}, not one of {", ".join(sorted(_STORED))}'
        )
    values = document.get("parameters")
    if not isinstance(values, dict):
        raise UserError(f'{path}: key "parameters" must be an object, got {values!r}')
    cls = _STORED[method]
    fields = dataclasses.fields(cls)
    known = [field.name for field in fields]
    # A file of an earlier version lacks what has come since, which has a default.
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    for problem, keys in (
        ("is missing", [key for key in needed if key not in values]),
        (f"is unknown to {method}", [key for key in values if key not in known]),
    ):
        if keys:
            raise UserError(f'{path}: key "{keys[0]}" in "parameters" {problem}')
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def reads_states(methods: Iterable[str]) -> bool:
    """Whether any of the methods, by their names, reads hidden states.

    >>> reads_states(["temperature"])
    False
    """
    return any(METHODS[name].reads == "states" for name in methods)


def method_class(method: str | type[Calibrator]) -> type[Calibrator]:
    """The class of a method's name; classes pass through."""
    if isinstance(method, type) and issubclass(method, Calibrator):
        return method
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: one of {', '.join(sorted(METHODS))}")
    return METHODS[method]
