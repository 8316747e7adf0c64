"""Points and paths in the plane of accuracy and conf-ECE, and the empirical boundary between them.

Xiao et al. 2025 call a model calibratable where its accuracy is at most a critical one: there an
ECE of 0 costs no accuracy. The critical accuracy follows from the target generative model, which
nobody knows of real questions. What can be seen is the empirical boundary: the largest accuracy
that was reached with an ECE that chance explains. It is a lower bound on what can be reached.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Point:
    """What one model shows on one set of questions.

    Attributes:
      path: the name of the path that the point lies on.
      method: SFT, CFT, ...; what the colour stands for.
      questions: what was asked; points of different questions are never compared.
      n: how many questions.
      accuracy: of them.
      conf_ece: of them.
      chance: what a perfectly calibrated model of the same confidences exceeds in one sample of 20;
        None where it is not known.
      accuracy_ci: the 95 % interval; both ends alike where the accuracy is exact, None for unknown.
      seed, stage, epoch: None, "" and None where there is none.
    """

    path: str
    method: str
    questions: str
    n: int
    accuracy: float
    conf_ece: float
    chance: float | None = None
    accuracy_ci: tuple[float, float] | None = None
    seed: int | None = None
    stage: str = ""
    epoch: int | None = None

    @property
    def label(self) -> str:
        """The path with the epoch."""
        return self.path if self.epoch is None else f"{self.path}, epoch {self.epoch}"

    @property
    def mark(self) -> str:
        """What stands beside the path's end, where the colour tells the method."""
        return self.path.removeprefix(self.method).lstrip(", ") or self.path

    @property
    def within(self) -> bool | None:
        """Whether chance explains the error; None where that is not known."""
        if self.chance is None or not math.isfinite(self.chance + self.conf_ece):
            return None
        return self.conf_ece <= self.chance


def of_dict(found: Mapping[str, Any]) -> Point:
    """The point that ``dataclasses.asdict`` made a dictionary of."""
    ends = found["accuracy_ci"]
    return Point(**{**found, "accuracy_ci": None if ends is None else (ends[0], ends[1])})


def paths(points: Sequence[Point]) -> dict[tuple[str, str], list[Point]]:
    """(questions, path) -> its points by epoch: what a line joins. Questions are never mixed."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        found.setdefault((point.questions, point.path), []).append(point)
    return {
        where: sorted(those, key=lambda point: -1 if point.epoch is None else point.epoch)
        for where, those in found.items()
    }


def boundary(points: Sequence[Point], questions: str) -> Point | None:
    """The point of the largest accuracy whose error chance explains; None where there is none.

    Of equally accurate ones that with the least error.
    """
    within = [point for point in points if point.questions == questions and point.within]
    return max(within, key=lambda point: (point.accuracy, -point.conf_ece), default=None)
