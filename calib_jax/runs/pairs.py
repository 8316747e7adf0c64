"""Models to be measured, in pairs: as the user writes them, and the folders of their runs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.grammar import cut, labelled
from calib_jax.runs.subjects import Subject, parse

_SPELLING = (
    "name=base->aligned, several separated by commas (and quotes around it all: > means something "
    "to the shell)"
)
_NAME, _NAME_RULE = re.compile(r'[^"|]+'), "A name holds neither a quote nor a bar."


@dataclasses.dataclass(frozen=True)
class Pair:
    """A base model and the aligned one that was made from it."""

    name: str
    base: Subject
    aligned: Subject


def parse_pairs(text: str) -> list[Pair]:
    """The pairs of ``config.study.pairs``: "name=base->aligned, ...".

    A model is ``model``, ``model@revision`` (hub ids), ``model+adapter`` or ``run:<folder>``; a
    path that exists is taken whole.

    Raises:
      UserError: an entry is not of this form, a name or a pair appears twice, or a pair has one
        model on both sides.
    """
    pairs: list[Pair] = []
    entries = labelled(text, "config.study.pairs", _SPELLING, label=_NAME, rule=_NAME_RULE)
    for name, models in entries.items():
        base, arrow, aligned = cut(models, "->")
        if not (arrow and base and aligned) or "->" in aligned:
            raise UserError(
                f"config.study.pairs: {models!r} is not a pair; write {_SPELLING}. {_NAME_RULE}"
            )
        pair = Pair(name, parse(base), parse(aligned))
        if pair.base.key == pair.aligned.key:
            raise UserError(f"config.study.pairs: {name!r} has {base} on both sides.")
        for other in pairs:
            if (other.base.key, other.aligned.key) == (pair.base.key, pair.aligned.key):
                raise UserError(
                    f"config.study.pairs: {other.name!r} and {name!r} are the same pair."
                )
        pairs.append(pair)
    return pairs


def subjects_of(pairs: Sequence[Pair]) -> list[Subject]:
    """Every model of any pair, once."""
    return list({side.key: side for pair in pairs for side in (pair.base, pair.aligned)}.values())


def model_folders(subjects: Sequence[Subject], parent: Path) -> dict[tuple, Path]:
    """subject's key -> the folder of its run: a finished one's own, or a new one named after it."""
    folders: dict[tuple, Path] = {}
    for side in subjects:
        name = re.sub(r"[^\w.-]+", "_", side.text).strip("._") or "model"
        folder, i = side.run or parent / name, 1
        while side.run is None and folder in folders.values():
            i += 1
            folder = parent / f"{name}-{i}"
        folders[side.key] = folder
    return folders
