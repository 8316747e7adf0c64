"""The models of a series: ``label=model[@revision][+adapter]``, and their places on the axis."""

import dataclasses
import difflib
import math
import re

import ml_collections

from calib_jax.errors import UserError
from calib_jax.grammar import labelled, split_list
from calib_jax.runs.subjects import SPELLING, Subject, of_config, parse

AXES = ("scale", "step", "epoch")
# What a summary holds beside the labels.
RESERVED = ("job", "method", "axis", "models", "data", "wall_time_s", "peak_memory_gib", "versions")
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([kmbt])(?![a-z0-9])", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(k|m)?(?![\w.])", re.IGNORECASE)
# A number beside the axis's own name is the place, whatever other numbers the label has.
_NAMED = {
    axis: re.compile(rf"(?<![a-z])(?:{words}) *(\d+(?:\.\d+)?)(k|m)?(?![\w.])", re.IGNORECASE)
    for axis, words in (("step", "steps?"), ("epoch", "epochs?|ep|e"))
}
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model of the series.

    Attributes:
      label: its name in tables and folders.
      subject: the model.
      place: on the axis: parameters, steps or epochs; None where the axis is of names.
      setting: what else the label says, "lora" of "lora-epoch2"; "" for nothing.
    """

    label: str
    subject: Subject
    place: float | None = None
    setting: str = ""


def series(config: ml_collections.ConfigDict) -> list[Entry]:
    """The entries of ``config.lifecycle.models``, or ``config.model`` alone.

    Raises:
      UserError: an entry or label that is not understood, a label that appears twice, or two models
        of one setting in one place.
    """
    axis, text = config.lifecycle.axis, config.lifecycle.models
    if not split_list(text):
        name = config.model.name.removeprefix("offline:").rstrip("/").rsplit("/", 1)[-1]
        label = re.sub(r"[^\w.+-]", "_", name).lstrip("_.+-") or "model"
        return [Entry(label, of_config(config))]
    entries: list[Entry] = []
    for label, model in labelled(text, "config.lifecycle.models", SPELLING).items():
        if label in RESERVED:
            raise UserError(f"config.lifecycle.models: no model can be called {label!r}.")
        place, setting = _place(axis, label)
        for other in entries:
            if place is not None and (other.place, other.setting) == (place, setting):
                raise UserError(
                    f"config.lifecycle.models: {other.label!r} and {label!r} are two models at one "
                    f"{axis}, and their labels tell no setting apart. Write for example "
                    f"full-{other.label} and lora-{label}."
                )
        entries.append(Entry(label, parse(model), place, setting))
    return entries


def check_axis(axis: str) -> None:
    """Raises UserError for an axis without a name, or with one that is nearly a known one."""
    if not axis.strip():
        raise UserError(
            f"config.lifecycle.axis is empty; expected {', '.join(AXES)}, or another name."
        )
    near = difflib.get_close_matches(axis.lower(), AXES, 1, cutoff=0.75)
    if axis not in AXES and near:
        raise UserError(
            f"config.lifecycle.axis is {axis!r}; did you mean {near[0]!r}? Choose from: "
            f"{', '.join(AXES)}; any name unlike these is an axis of names."
        )


def _place(axis: str, label: str) -> tuple[float | None, str]:
    """Where the label lies on the axis, and what else it says.

    >>> _place("scale", "pythia-1.4b"), _place("epoch", "lora-r8-epoch2"), _place("stage", "base")
    ((1400000000.0, 'pythia'), (2.0, 'lora-r8'), (None, ''))
    """
    if axis not in AXES:
        return None, ""
    text = re.sub(r"[_+-]", " ", label)
    if axis == "scale":
        found = list(_SIZE.finditer(text))
        example = "70m or pythia-1.4b"
    else:
        found = list(_NAMED[axis].finditer(text))
        if len(found) != 1:
            text = re.sub(r"(?i)(steps?|epochs?|ep)", " ", text)
            found = list(_NUMBER.finditer(text))
        example = f"{axis}1000 or 1000" if axis == "step" else "epoch2 or 2"
    values = [float(one[1]) * _UNITS[(one[2] or "").lower()] for one in found]
    if len(values) != 1 or not math.isfinite(values[0]) or (axis == "scale" and not values[0]):
        raise UserError(
            f"config.lifecycle.models: the label {label!r} states no {axis} (such as {example}). "
            "Change the label, or set config.lifecycle.axis to another name, such as 'model'."
        )
    rest = text[: found[0].start()] + " " + text[found[0].end() :]
    return values[0], "-".join(rest.split()).strip(".")
