"""results.csv of the jobs ``compare`` and ``sweep``."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from calib_jax.reports.compare.comparison import Comparison


def text(comparisons: Sequence[Comparison]) -> str:
    """Every figure as plain numbers: a line per model, method, part, metric and seed.

    The seed "mean" has the interval, the deviation over seeds and the difference to the reference.
    """
    lines = io.StringIO()
    out = csv.writer(lines, lineterminator="\n")
    out.writerow(
        ["model", "method", "part", "splits", "questions", "metric", "seed", "value", "sd", "low",
         "high", "best", "reference", "difference", "difference_low", "difference_high", "p_value"]
    )  # fmt: skip
    for c in comparisons:
        for method, by_part in c.rows.items():
            for key, found in by_part.items():
                part = c.parts[key]
                where = [c.model, method, key, "+".join(part.splits), part.questions]
                for metric, e in found.items():
                    v = e.versus
                    figures = [e.value, e.deviation, *(e.interval or ("", ""))]
                    against = ["", "", "", "", ""]
                    if v is not None:
                        ends = v.interval or ("", "")
                        against = [c.reference, v.difference, *ends, v.p_value]
                    out.writerow(
                        [*where, metric, "mean", *map(_plain, figures), int(e.best)]
                        + [_plain(x) for x in against]
                    )
                    for seed, value in zip(c.seeds, e.per_seed, strict=True):
                        out.writerow([*where, metric, seed, _plain(value), *[""] * 9])
    return lines.getvalue()


def _plain(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
