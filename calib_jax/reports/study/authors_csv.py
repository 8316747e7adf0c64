"""CSV files in the layout that the paper's authors published: one a method, a block a task.

A block is a line "task,method", a line of headers, and a line per model: change, ratio and rank of
ECE, of SCE and of accuracy. The changes of ECE and SCE have three decimals, all else is in percent
with two; what was not measured is empty. Lines end in CR LF, the last one in nothing. The layout,
with its spelling, is that of github.com/abzb1/alingment_calibration.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping

from calib_jax.errors import UserError
from calib_jax.reports.atomic import write_text
from calib_jax.reports.study.changes import Cell, Cells, Change, column, tasks_of

_RATIO = "change ratio((IT-PT/)PT),ratio rank"
_HEADER = ",".join(["", *(f"{name} change(IT-PT),{_RATIO}" for name in ("ece", "sce", "acc"))])
_WIDTH = 10
# As the authors spell them.
_SPELT = {
    "continuation_sum": "contunuation_sum",
    "continuation_min": "contunuation_min",
}
_METHODS = {spelt: method for method, spelt in _SPELT.items()}
_NUMBER = re.compile(r"-?\d+(\.\d+)?%?")
# Half of a unit of the last printed digit.
_HALF_CHANGE, _HALF_PERCENT = 5e-4, 5e-5


@dataclasses.dataclass(frozen=True)
class Recovered:
    """What a printed change and ratio say of the base's value, PT = change / ratio.

    Attributes:
      pt: the quotient; NaN where change or ratio is printed as 0.
      low, high: what PT can be, given how the two were rounded; high may be infinite.
    """

    pt: float
    low: float
    high: float


def recover(change: float, ratio: float, half_change: float = _HALF_CHANGE) -> Recovered:
    """The base's value from a printed change and a printed ratio.

    >>> found = recover(0.176, 0.4156)
    >>> round(found.pt, 3), round(found.low, 3), round(found.high, 3)
    (0.423, 0.422, 0.425)

    Args:
      change: IT - PT.
      ratio: (IT - PT) / PT, as a fraction.
      half_change: half a unit of the change's last digit; that of the ratio is 0.005 %.
    """
    size, share = abs(change), abs(ratio)
    low = max(0.0, size - half_change) / (share + _HALF_PERCENT)
    high = math.inf if share <= _HALF_PERCENT else (size + half_change) / (share - _HALF_PERCENT)
    return Recovered(change / ratio if change and ratio else math.nan, low, high)


def text_of(cells: Cells, method: str, sce: str = "sce_ovr") -> str:
    """One method's changes in the authors' layout.

    Args:
      cells: with ranks.
      method: which.
      sce: what stands under "sce": "sce_ovr", the form that the authors' figures fit, or
        "cw_ece".
    """
    blocks = []
    for task in tasks_of(cells):
        lines = [f"{task},{_SPELT.get(method, method)}" + "," * (_WIDTH - 2), _HEADER]
        for pair, by_task in cells.items():
            cell = by_task.get(task, {}).get(method)
            lines.append(",".join([pair, *_figures(cell, sce)]))
        blocks.append("\r\n".join(lines))
    return ("\r\n" + "," * (_WIDTH - 1) + "\r\n").join(blocks)


def _figures(cell: Cell | None, sce: str) -> list[str]:
    """The nine cells of a line."""
    if cell is None:
        return [""] * (_WIDTH - 1)
    result = []
    for metric in ("conf_ece", sce, "accuracy"):
        change = cell.changes[metric]
        first = _percent(change.change) if metric == "accuracy" else _fixed(change.change, 3)
        result += [first, _percent(change.ratio), "" if change.rank is None else str(change.rank)]
    return result


def _fixed(value: float, decimals: int) -> str:
    # Adding 0.0 makes -0.0 positive.
    return "" if math.isnan(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _percent(value: float) -> str:
    return "" if math.isnan(value) else _fixed(100 * value, 2) + "%"


def write(folder: str | os.PathLike, cells: Cells, methods: list[str]) -> list[pathlib.Path]:
    """Writes sce_ovr/<method>.csv and sce/<method>.csv into `folder`; see `text_of`.

    Raises:
      ValueError: a name of a pair, task or method that would need quotes, which the layout has not.
    """
    names = [*cells, *tasks_of(cells), *methods]
    if bad := [name for name in names if re.search(r'[,"\r\n]', name)]:
        raise ValueError(f"{bad[0]!r} cannot stand in a CSV file of the authors' layout")
    paths = []
    for label, sce in (("sce_ovr", "sce_ovr"), ("sce", "cw_ece")):
        for method in methods:
            paths.append(pathlib.Path(folder) / label / f"{method}.csv")
            write_text(paths[-1], text_of(cells, method, sce))
    return paths


def read(path: str | os.PathLike) -> dict[str, dict[str, dict[str, Cell]]]:
    """Reads a file of the authors' layout: model -> task -> method -> cell, ranks as printed.

    PT and IT are recovered from change and ratio (`recover`), NaN where the two say nothing. What
    stands under "sce" is read as "sce_ovr".

    Raises:
      UserError: no such file, or a line that does not follow the layout.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from None
    result: dict[str, dict[str, dict[str, Cell]]] = {}
    task = method = None
    for i, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {i}"
        fields = [field.strip() for field in line.split(",")]
        if not any(fields) or _is_header(fields):
            continue
        if len(fields) >= 2 and not any(fields[2:]) and fields[1]:
            task, method = fields[0], _METHODS.get(fields[1], fields[1])
            continue
        if task is None:
            raise UserError(f'{where}: expected a line "task,method"; this is {line!r}')
        if len(fields) != _WIDTH:
            raise UserError(
                f"{where}: {len(fields)} fields; expected {_WIDTH}: a model, then change, ratio "
                "and rank of ECE, SCE and accuracy"
            )
        by_method = result.setdefault(fields[0], {}).setdefault(task, {})
        if method in by_method:
            raise UserError(f"{where}: {fields[0]} stands twice under {task}, {method}")
        if any(fields[1:]):
            by_method[method] = _cell(fields[1:], where)
    if not result:
        raise UserError(f"{path}: no block of a task; is this a file of the authors' layout?")
    # A model without a value on a task keeps its place among the models.
    return {
        model: {task: by_method for task, by_method in by_task.items() if by_method}
        for model, by_task in result.items()
    }


def _is_header(fields: list[str]) -> bool:
    return not fields[0] and "rank" in fields[-1]


def _cell(fields: list[str], where: str) -> Cell:
    changes: dict[str, Change] = {}
    for i, metric in enumerate(("conf_ece", "sce_ovr", "accuracy")):
        change, ratio = (_parse(fields[3 * i + j], where) for j in (0, 1))
        rank = fields[3 * i + 2]
        if rank and not rank.isdigit():
            raise UserError(f"{where}: the rank {rank!r} is not a whole number")
        half = _HALF_PERCENT if metric == "accuracy" else _HALF_CHANGE
        pt = recover(change, ratio, half).pt
        changes[metric] = Change(pt, pt + change, change, ratio, int(rank) if rank else None)
    return Cell(changes)


def _parse(text: str, where: str) -> float:
    """A figure, of percent as a fraction; NaN where it is empty."""
    if not text:
        return math.nan
    if not _NUMBER.fullmatch(text):
        raise UserError(f"{where}: {text!r} is not a number")
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def merged(files: Mapping[str, Cells]) -> dict[str, dict[str, dict[str, Cell]]]:
    """Several files' cells in one; `files` is path -> what `read` gave.

    Raises:
      UserError: two files hold the same model, task and method.
    """
    result: dict[str, dict[str, dict[str, Cell]]] = {}
    for path, cells in files.items():
        for model, by_task in cells.items():
            for task, by_method in by_task.items():
                here = result.setdefault(model, {}).setdefault(task, {})
                if again := here.keys() & by_method.keys():
                    raise UserError(
                        f"{path}: {model}, {task}, {', '.join(again)} stands in another file too"
                    )
                here.update(by_method)
    return result


def disagreements(cells: Cells, method: str, metric: str) -> list[tuple[str, str]]:
    """(model, task) whose printed rank is not what the printed ratios give."""
    from calib_jax.reports.study.changes import ranked

    printed, computed = (column(c, method, metric) for c in (cells, ranked(cells)))
    return [key for key in printed if printed[key].rank != computed[key].rank]
