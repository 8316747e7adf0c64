"""An entry of the config's table: a field's default, limits, meaning, and the jobs that obey it."""

import dataclasses
import importlib
import math
import operator
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections.config_flags import tuple_parser

from calib_jax.errors import UserError
from calib_jax.grammar import suggestion

# --- Jobs -----------------------------------------------------------------------------------------
_PRESENT = {
    module.name for module in pkgutil.iter_modules([str(Path(__file__).parents[1] / "jobs")])
}
SERIES = ("compare", "sweep", "stages")  # runs of "finetune" and "align" that belong together
FINETUNES = ("finetune", *SERIES, "plan")  # "plan" takes the config of the run that it plans
TRAINS = (*FINETUNES, "align")
_READS = ("evaluate", "study", "lifecycle")
_OTHERS = ("alignment", "answers", "export", "generate", "regimes", "report", "winrate")
# A job of which nothing is said here asks one model or several, and obeys what all such jobs obey.
READS = (*_READS, *sorted(_PRESENT - {*TRAINS, *_READS, *_OTHERS}))
ASKS = (*READS, "stages")  # tasks, by any reading
LETTERS = (*TRAINS, *READS)
PROMPTS = (*LETTERS, "alignment")  # score what config.prompt says
SCORES = (*PROMPTS, "answers")
CHATS = (*PROMPTS, "generate")
RUNS_A_MODEL = (*SCORES, "generate")
JOBS = tuple(sorted((*RUNS_A_MODEL, "regimes", "report", "winrate", "export")))


def all_but(*jobs: str) -> tuple[str, ...]:
    """Every job but these."""
    return tuple(job for job in JOBS if job not in jobs)


class Need(NamedTuple):
    """What must hold for a field to have an effect.

    Attributes:
      jobs: in which it must hold.
      holds: config -> whether it does.
      text: how to make it hold, after "it has an effect only ".
    """

    jobs: tuple[str, ...]
    holds: Callable[[ml_collections.ConfigDict], Any]
    text: str


def find(place: str) -> Any:
    """What "module:NAME" of the package names; the module is imported."""
    module, _, name = place.partition(":")
    return operator.attrgetter(name)(importlib.import_module(module))


@dataclasses.dataclass(frozen=True)
class Registry:
    """Names that a module of the package lists; it is imported when they are first asked for.

    Attributes:
      place: "module:NAME", of a collection, or of a function that returns one.
      also: names before them.
    """

    place: str
    also: tuple[str, ...] = ()

    def __iter__(self):
        found = find(self.place)
        return iter((*self.also, *(found() if callable(found) else found)))


_KINDS = {
    bool: ("True or False", flags.BooleanParser()),
    int: ("a whole number", flags.IntegerParser()),
    float: ("a number", flags.FloatParser()),
    str: ("text", flags.ArgumentParser()),
    tuple: ("whole numbers in parentheses", tuple_parser.TupleParser()),
    dict: ("attributes and their values", flags.ArgumentParser()),
}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the config. Its type is that of its default.

    Attributes:
      default: suits a small model on a CPU.
      choices: the values that a text may have; () for any.
      least, most: limits of a number, which it may equal.
      above, below: limits of a number, which it may not equal.
      check: raises UserError for a value that the limits do not catch; see ``values``. It is not
        called for the default.
      jobs: that obey the field; () for those of its section.
      needs: what its effect depends on.
      instead: job -> what to do where that job does not obey the field and a user may want it to.
      meaning: one or two sentences.
      path: "train.lora.rank".
    """

    default: Any
    choices: tuple[str, ...] | Registry = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    check: Callable[[Any, str], Any] | None = None
    jobs: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    meaning: str = ""
    path: str = ""

    def means(self, meaning: str) -> "Field":
        """The field with its meaning, which reads best behind its limits."""
        return dataclasses.replace(self, meaning=meaning)

    @property
    def kind(self) -> str:
        """The type, in words."""
        return _KINDS[type(self.default)][0]

    @property
    def limits(self) -> str:
        """What a value must be, in words, to follow "expected " or "choose from: "."""
        if self.choices:
            return ", ".join(choice or "''" for choice in self.choices)
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:.10g}"
        low = "" if self.above is None else f"more than {self.above:g}"
        low = low if self.least is None else f"{self.least:g} or more"
        high = "" if self.most is None else f"at most {self.most:g}"
        high = high if self.below is None else f"less than {self.below:g}"
        return " and ".join(filter(None, (low, high)))

    def problem(self, value: Any) -> str:
        """What is wrong with a value, and the remedy, in one message; "" where nothing is."""
        where = f"config.{self.path} is {value!r}"
        kind = type(self.default)
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            return f"{where}; expected {self.kind}."
        if self.choices:
            if value in tuple(self.choices):
                return ""
            return f"{where}; choose from: {self.limits}.{suggestion(value, self.choices)}"
        if kind in (int, float) and not self._within(value):
            return f"{where}; expected {self.limits or 'a finite number'}."
        if self.check and value != self.default:
            try:
                self.check(value, f"config.{self.path}")
            except UserError as error:
                return str(error)
        return ""

    def parse(self, text: str) -> Any:
        """The value that a text states.

        Raises:
          ValueError: it states none of this field's type.
        """
        return _KINDS[type(self.default)][1].parse(text)

    def _within(self, value: float) -> bool:
        """Whether a number lies within the limits; NaN and infinity never do."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def section(
    name: str, jobs: tuple[str, ...], needs: tuple[Need, ...] = (), /, **fields: Field
) -> dict[str, Field]:
    """Path -> field of a section.

    Args:
      name: of the section; "" for the top.
      jobs: obey the fields that name no others.
      needs: of every field, after its own.
    """
    prefix = f"{name}." if name else ""
    return {
        prefix + key: dataclasses.replace(
            field,
            path=prefix + key,
            jobs=field.jobs or jobs,
            needs=(*field.needs, *needs),
        )
        for key, field in fields.items()
    }
