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

from calib_jax.reports.words import interval, number


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
      subject: whether it is a model that advice is given for.
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
    subject: bool = False

    @property
    def label(self) -> str:
        """The path with the stage and the epoch."""
        epoch = "" if self.epoch is None else f"epoch {self.epoch}"
        return ", ".join(filter(None, (self.path, self.stage, epoch)))

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


def boundaries(points: Sequence[Point]) -> dict[str, Point | None]:
    """Questions -> their boundary, of questions for which chance is known of some point."""
    asked = dict.fromkeys(point.questions for point in points if point.within is not None)
    return {questions: boundary(points, questions) for questions in asked}


def advice(own: Point, points: Sequence[Point]) -> str:
    """Whether a model is calibratable as far as the points tell, and CFT or RCFT, in words.

    The boundary is that of the other paths on the same questions. There is no advice where chance
    explains no other path's error, or where the accuracy's 95 % interval holds the boundary.

    Source: Xiao et al. 2025: CFT for calibratable models, RCFT for the others.
    """
    where = f"{own.label} on {own.questions}"
    if own.within is None or own.accuracy_ci is None:
        return f"No advice for {where}: chance, or the accuracy's interval, is not known"
    if own.within:
        return (
            f"{where} needs no calibration that so many questions could show: chance explains its "
            f"conf-ECE, {number(own.conf_ece)}, up to {number(own.chance)}"
        )
    others = [p for p in points if p.stage != own.stage or p.path != own.path]
    edge = boundary(others, own.questions)
    if edge is None:
        return f"No advice for {where}: chance explains the error of no other model"
    low, high = own.accuracy_ci
    ends = interval(own.accuracy_ci) if low != high else ""
    said = " ".join(filter(None, (number(own.accuracy), ends)))
    about = f"the empirical boundary, {number(edge.accuracy)} ({edge.label})"
    if low <= edge.accuracy <= high:
        return f"No advice for {where}: the interval of its accuracy, {said}, includes {about}"
    if high < edge.accuracy:
        return (
            f"{where} is calibratable as far as these points tell: its accuracy, {said}, is below "
            f"{about}; try CFT"
        )
    return (
        f"{where} is not seen to be calibratable: its accuracy, {said}, is above {about}, so less "
        "error may cost accuracy; try RCFT"
    )
