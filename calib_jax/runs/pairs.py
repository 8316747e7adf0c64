"""Models to be measured, in pairs: as the user writes them, and the folders of their runs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models import peft
from calib_jax.models.model import open_checkpoint

RUN, OFFLINE = "run:", "offline:"


@dataclasses.dataclass(frozen=True)
class Side:
    """One model of a pair: to be measured, or measured already.

    Attributes:
      text: as the config states it.
      name: what model.name takes; "" for a finished run.
      revision, adapter: as in the config of a model.
      run, epoch: the folder of a finished run, or None; of its epochs one from 1, or 0, its end.
    """

    text: str
    name: str = ""
    revision: str = ""
    adapter: str = ""
    run: Path | None = None
    epoch: int = 0

    @property
    def key(self) -> tuple:
        """The same for two spellings of one model in one place."""
        parts = (self.name, self.adapter, str(self.run) if self.run else "")
        real = (str(Path(p).resolve()) if p and Path(p).exists() else p for p in parts)
        return (*real, self.revision, self.epoch)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A base model and the aligned one that was made from it."""

    name: str
    base: Side
    aligned: Side


def parse_pairs(text: str) -> list[Pair]:
    """The pairs of ``config.study.pairs``: "name=base->aligned, ...".

    A model is ``model``, ``model@revision`` (hub ids), ``model+adapter`` or ``run:<folder>``; a
    path that exists is taken whole.

    Raises:
      UserError: an entry is not of this form, a name or a pair appears twice, or a pair has one
        model on both sides.
    """
    pairs: list[Pair] = []
    for entry in split_list(text):
        name, equals, models = (part.strip() for part in entry.partition("="))
        base, arrow, aligned = (part.strip() for part in models.partition("->"))
        if not (equals and arrow and name and base and aligned) or "->" in aligned:
            raise UserError(
                f"config.study.pairs: {entry!r} is not a pair; write name=base->aligned, several "
                "separated by commas (and quotes around it all: > means something to the shell)."
            )
        if re.search(r'["|]', name):
            raise UserError(f"config.study.pairs: the name {name!r} holds a quote or a bar.")
        pair = Pair(name, parse_side(base), parse_side(aligned))
        if pair.base.key == pair.aligned.key:
            raise UserError(f"config.study.pairs: {name!r} has {base} on both sides.")
        for other in pairs:
            if other.name == name:
                raise UserError(f"config.study.pairs: the name {name!r} appears twice.")
            if (other.base.key, other.aligned.key) == (pair.base.key, pair.aligned.key):
                raise UserError(
                    f"config.study.pairs: {other.name!r} and {name!r} are the same pair."
                )
        pairs.append(pair)
    return pairs


def parse_side(text: str) -> Side:
    """One model of a pair; see `parse_pairs`.

    >>> side = parse_side("owner/model@v1+runs/cft/export/adapter")
    >>> side.name, side.revision, side.adapter
    ('owner/model', 'v1', 'runs/cft/export/adapter')
    """
    if text.startswith(RUN):
        return Side(text, run=Path(text.removeprefix(RUN)))
    if Path(text).exists():
        return Side(text, text)
    name, _, adapter = text.partition("+")
    revision = ""
    if not Path(name).exists():
        name, _, revision = name.partition("@")
    return Side(text, name, revision, adapter)


def sides_of(pairs: Sequence[Pair]) -> list[Side]:
    """Every model of any pair, once."""
    return list({side.key: side for pair in pairs for side in (pair.base, pair.aligned)}.values())


def check_models(sides: Sequence[Side]) -> None:
    """Raises UserError for a model or an adapter on this machine that cannot be read.

    What must come from the hub is found missing when its turn comes.
    """
    for side in sides:
        if side.name.startswith(OFFLINE) or Path(side.name).exists() and side.name:
            checkpoint = open_checkpoint(side.name)
            if side.adapter and Path(side.adapter).exists():
                peft.read_adapter(side.adapter, checkpoint.config)
        elif side.name and "/" not in side.name.strip("./"):
            raise UserError(f"{side.text}: no such file or folder, and not a hub id (owner/name).")


def model_folders(sides: Sequence[Side], parent: Path) -> dict[tuple, Path]:
    """Side's key -> the folder of its run: a finished one's own, or a new one named after it."""
    folders: dict[tuple, Path] = {}
    for side in sides:
        name = re.sub(r"[^\w.-]+", "_", side.text).strip("._") or "model"
        folder, i = side.run or parent / name, 1
        while side.run is None and folder in folders.values():
            i += 1
            folder = parent / f"{name}-{i}"
        folders[side.key] = folder
    return folders
