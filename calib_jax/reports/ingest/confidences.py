"""Free answers of a table: a confidence in each, and whether it is right."""

from collections.abc import Mapping, Sequence

import numpy as np

from calib_jax.errors import UserError
from calib_jax.reports.ingest import layout
from calib_jax.reports.ingest.options import Options, as_number
from calib_jax.reports.ingest.places import Place, Reading

_TRUTHS = {
    "true": True, "yes": True, "1": True, "1.0": True,
    "false": False, "no": False, "0": False, "0.0": False,
}  # fmt: skip  # two lines: what is right, and what is wrong


def is_of(columns: Sequence[str]) -> bool:
    """Whether a table has a confidence and a truth for each row, and no options.

    A column "answer" beside them is the answer's text, unless there is one per option as well.
    """
    lists = (*layout.PROBS, *layout.LOG_SCORES)
    listed = any(str(c) in lists or str(c).startswith(("probs_", "log_scores_")) for c in columns)
    wide = any(pattern.fullmatch(str(c)) for c in columns for pattern, _ in layout.WIDE)
    answered = any(name in columns for name in layout.ANSWERS)
    return (
        any(name in columns for name in layout.CORRECT)
        and any(map(_is_confidence, columns))
        and not listed
        and not (wide and answered)
    )


def _is_confidence(column: str) -> bool:
    return column == layout.CONFIDENCE or str(column).startswith(f"{layout.CONFIDENCE}_")


def options_of(place: Place, rows: Sequence[Mapping], columns, reading: Reading) -> Options:
    """The confidences as the one option of each row.

    Raises:
      UserError: several columns and none is chosen, or a value that is no number from 0 to 1.
    """
    found = {
        str(name).removeprefix(layout.CONFIDENCE).removeprefix("_"): name
        for name in columns
        if _is_confidence(name)
    }
    if reading.method and reading.method not in found:
        known = ", ".join(sorted(filter(None, found))) or "none"
        raise UserError(
            f"{place.path}: no column confidence_{reading.method} (config.report.method); the "
            f"methods are: {known}"
        )
    if len(found) > 1 and not reading.method:
        raise UserError(
            f"{place.path}: confidences are in {', '.join(map(str, found.values()))}: choose one "
            "with --config.report.method=<method>, or keep one of them"
        )
    method = reading.method or next(iter(found))
    column = found[method]
    values = [as_number(row.get(column)) for row in rows]
    place.refuse(
        [i for i, value in enumerate(values) if value is None or not 0 <= value <= 1],
        lambda i: f"holds {rows[i].get(column)!r} in column {column!r}",
        "a confidence is a number from 0 to 1 (of percent, divide by 100)",
    )
    lists = [[float(value)] for value in values if value is not None]
    return Options("probs", f"column {column!r}", (column,), lists, None, method or "given")


def answers_of(place: Place, rows: Sequence[Mapping], columns) -> tuple[np.ndarray, str]:
    """[N] 0 where the answer given is right and -1 where not, and the column that says so.

    Raises:
      UserError: several columns, or a value that is neither true nor false.
    """
    column = layout.one_of(place.path, list(columns), layout.CORRECT, "truth of the answers")
    found = [_TRUTHS.get(str(row.get(column)).strip().lower()) for row in rows]
    place.refuse(
        [i for i, value in enumerate(found) if value is None],
        lambda i: f"holds {rows[i].get(column)!r} in column {column!r}",
        "write true or false, or 1 or 0, for whether the answer given is right",
    )
    return np.where(np.array(found, bool), 0, -1), column
