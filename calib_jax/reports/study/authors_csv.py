"""CSV files in the layout that the paper's authors published: one a method, a block a task.

A block is a line "task,method", a line of headers, and a line per model: change, ratio and rank of
ECE, of SCE and of accuracy. The changes of ECE and SCE have three decimals, all else is in percent
with two; what was not measured is empty. Lines end in CR LF, the last one in nothing. The layout,
with its spelling, is that of github.com/abzb1/alingment_calibration. The figures under "sce" there
fit the one-vs-rest form; files of the class-wise form are ours, and say so in their headers.
"""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports.study.changes import (
    METRICS,
    Cell,
    Cells,
    Change,
    each,
    methods_of,
    metrics_in,
    tasks_of,
)

# "(IT-PT/)PT" is how the authors' files spell (IT-PT)/PT; theirs and ours are to be alike.
_RATIO = "change ratio((IT-PT/)PT),ratio rank"
# Which SCE a file holds, as the header of its column says it.
_SCE_HEADERS = {"sce_ovr": "sce change(IT-PT)", "cw_ece": "class-wise sce change(IT-PT)"}
# How config.study.published spells the two.
_KINDS = {"sce": "cw_ece", "sce_ovr": "sce_ovr"}
_WIDTH = 10
# As the authors spell them.
_SPELT = {
    "continuation_sum": "contunuation_sum",
    "continuation_min": "contunuation_min",
}
_METHODS = {spelt: method for method, spelt in _SPELT.items()}
_NUMBER = re.compile(r"-?\d+(\.(?P<decimals>\d+))?(?P<percent>%)?")
# Of a metric's values, and of sums of floats.
_ROUND_OFF = 1e-9


@dataclasses.dataclass(frozen=True)
class Printed:
    """A figure as a file prints it.

    Attributes:
      value: percent as a fraction; NaN where the field is empty.
      half: half a unit of its last digit: the figure itself lies within value +- half.
    """

    value: float
    half: float


def recover(change: Printed, ratio: Printed) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of PT and of IT that a printed change and a printed ratio leave.

    >>> pt, it = recover(Printed(0.176, 5e-4), Printed(0.4156, 5e-5))
    >>> [round(end, 3) for end in (*pt, *it)]
    [0.422, 0.425, 0.598, 0.601]

    Args:
      change: IT - PT.
      ratio: (IT - PT) / PT; NaN where there is none.

    Raises:
      ValueError: no PT and IT between 0 and 1 have this change and ratio; the message says why.
    """
    if change.value * ratio.value < 0:
        raise ValueError("change and ratio have opposite signs")
    low, high = 0.0, math.inf
    if not math.isnan(ratio.value):
        size, share = abs(change.value), abs(ratio.value)
        low = max(0.0, size - change.half) / (share + ratio.half)
        high = (size + change.half) / (share - ratio.half) if share > ratio.half else math.inf
    if low > 1 + _ROUND_OFF:
        raise ValueError(f"the base's value, change / ratio, would be at least {low:.3f}, above 1")
    # Of both by the change, and of PT so that IT can follow.
    pt = max(low, -change.value - change.half), min(high, 1.0, 1 - change.value + change.half)
    if pt[0] > pt[1] + _ROUND_OFF:
        side = "above 1" if change.value > 0 else "below 0"
        value = (low if change.value > 0 else high) + change.value
        raise ValueError(f"the aligned value would be {value:.3f}, {side}")
    it = (
        max(0.0, pt[0] + change.value - change.half),
        min(1.0, pt[1] + change.value + change.half),
    )
    return pt, it


def text_of(cells: Cells, method: str, sce: str = "sce_ovr") -> str:
    """One method's changes in the authors' layout.

    Args:
      cells: with ranks.
      method: which.
      sce: the form under "sce": "sce_ovr", the form that the authors' figures fit, or
        "cw_ece"; the header tells them apart.
    """
    names = ("ece change(IT-PT)", _SCE_HEADERS[sce], "acc change(IT-PT)")
    header = ",".join(["", *(f"{name},{_RATIO}" for name in names)])
    blocks = []
    for task in tasks_of(cells):
        lines = [f"{task},{_SPELT.get(method, method)}" + "," * (_WIDTH - 2), header]
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


def files(folder: str, cells: Cells) -> dict[str, str]:
    """<folder>/sce_ovr/<method>.csv and <folder>/sce/<method>.csv with their texts; see `text_of`.

    Raises:
      ValueError: a pair, task or method has a name that would need quotes, which the layout lacks.
    """
    methods = methods_of(cells)
    names = [*cells, *tasks_of(cells), *methods]
    if bad := [name for name in names if re.search(r'[,"\r\n]', name)]:
        raise ValueError(f"{bad[0]!r} cannot be written to a CSV file of the authors' layout")
    return {
        f"{folder}/{label}/{method}.csv": text_of(cells, method, sce)
        for label, sce in (("sce_ovr", "sce_ovr"), ("sce", "cw_ece"))
        for method in methods
    }


def read_all(text: str) -> tuple[Cells, dict[str, str]]:
    """The files of ``config.study.published``: FILE, sce=FILE or sce_ovr=FILE, by commas.

    Returns:
      Their cells in one (`merged`), and path -> which SCE it holds ("cw_ece" or "sce_ovr").

    Raises:
      UserError: see `read` and `merged`; or a file that is named twice.
    """
    files: dict[str, Cells] = {}
    for entry in split_list(text):
        kind, equals, path = entry.partition("=")
        if not equals or kind not in _KINDS or pathlib.Path(entry).exists():
            kind, path = "", entry
        if path in files:
            raise UserError(f"config.study.published: {path} appears twice.")
        files[path] = read(path, _KINDS.get(kind))
    kinds = {p: "cw_ece" if "cw_ece" in metrics_in(c) else "sce_ovr" for p, c in files.items()}
    return merged(files), kinds


def read(path: str | os.PathLike, sce: str | None = None) -> Cells:
    """Reads a file of the authors' layout: model -> task -> method -> cell, ranks as printed.

    PT and IT are the ranges that change and ratio leave (`recover`).

    Args:
      path: the file.
      sce: the form under "sce": "sce_ovr" or "cw_ece"; None: as its headers say.

    Raises:
      UserError: no such file, a line that does not follow the layout, or invalid figures.
    """
    path = pathlib.Path(path)
    reads(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from None
    result: dict[str, dict[str, dict[str, Cell]]] = {}
    task = method = None
    kind = sce or "sce_ovr"
    for i, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {i}"
        fields = [field.strip() for field in line.split(",")]
        if not any(fields):
            continue
        if _is_header(fields):
            ours = fields[4:5] == [_SCE_HEADERS["cw_ece"]]
            if ours and sce == "sce_ovr":
                raise UserError(f"{where}: {fields[4]!r}, but it is named as sce_ovr={path}")
            kind = sce or ("cw_ece" if ours else "sce_ovr")
            continue
        if len(fields) >= 2 and not any(fields[2:]) and fields[1]:
            task, method = fields[0], _METHODS.get(fields[1], fields[1])
            continue
        if task is None or method is None:
            raise UserError(f'{where}: expected a line "task,method"; this is {line!r}')
        if len(fields) != _WIDTH:
            raise UserError(
                f"{where}: {len(fields)} fields; expected {_WIDTH}: a model, then change, ratio "
                "and rank of ECE, SCE and accuracy"
            )
        by_method = result.setdefault(fields[0], {}).setdefault(task, {})
        if method in by_method:
            raise UserError(f"{where}: {fields[0]} appears twice under {task}, {method}")
        if any(fields[1:]):
            by_method[method] = _cell(fields[1:], kind, where)
    if not result:
        raise UserError(f"{path}: no block of a task; is this a file of the authors' layout?")
    # A model without a value on a task keeps its place among the models.
    return {
        model: {task: by_method for task, by_method in by_task.items() if by_method}
        for model, by_task in result.items()
    }


def _is_header(fields: list[str]) -> bool:
    return not fields[0] and "rank" in fields[-1]


def _cell(fields: list[str], sce: str, where: str) -> Cell:
    changes: dict[str, Change] = {}
    for i, metric in enumerate(("conf_ece", sce, "accuracy")):
        texts = fields[3 * i : 3 * i + 3]
        change, ratio = (_parse(text, where) for text in texts[:2])
        rank = texts[2]
        if rank and not rank.isdigit():
            raise UserError(f"{where}: the rank {rank!r} is not a whole number")
        pt = it = None
        if not math.isnan(change.value):
            try:
                pt, it = recover(change, ratio)
            except ValueError as error:
                name = METRICS[metric].label
                raise UserError(
                    f"{where}, {name}: change {texts[0]} with ratio {texts[1] or 'empty'}: {error}"
                ) from None
        changes[metric] = Change(
            math.nan, math.nan, change.value, ratio.value, int(rank) if rank else None, None, pt, it
        )
    return Cell(changes)


def _parse(text: str, where: str) -> Printed:
    """A figure, of percent as a fraction; NaN where it is empty."""
    if not text:
        return Printed(math.nan, math.nan)
    if not (found := _NUMBER.fullmatch(text)):
        raise UserError(f"{where}: {text!r} is not a number")
    scale = 100 if found["percent"] else 1
    half = 0.5 * 10.0 ** -len(found["decimals"] or "")
    return Printed(float(text.removesuffix("%")) / scale, half / scale)


def merged(files: Mapping[str, Cells]) -> Cells:
    """Several files' cells in one; `files` is path -> what `read` gave.

    Files of the two forms of SCE may hold the same cells: they become one with both.

    Raises:
      UserError: two files hold the same model, task and method, in one form or with other figures.
    """
    result: dict[str, dict[str, dict[str, Cell]]] = {}
    for path, cells in files.items():
        for model in cells:
            result.setdefault(model, {})
        for model, task, method, cell in each(cells):
            here = result[model].setdefault(task, {})
            known = here.get(method, Cell({})).changes
            # NaN differs from itself, so what they have in common is compared as text.
            common = known.keys() & cell.changes.keys()
            same = all(repr(known[m]) == repr(cell.changes[m]) for m in common)
            if known and (known.keys() == cell.changes.keys() or not same):
                raise UserError(f"{path}: {model}, {task}, {method} appears in another file too")
            both = {**known, **cell.changes}
            here[method] = Cell({m: both[m] for m in METRICS if m in both})
    return result
