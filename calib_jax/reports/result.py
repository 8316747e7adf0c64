"""The result of a run, ``summary.json``: what was measured, what changed, and what that cost.

Schema 2. ``rows`` holds a line per figure (subject, probe, reading, seed, metric: value, low, high,
n) and ``contrasts`` a line per difference (a, b, probe, reading, seed, metric: difference, low,
high, p), the same for every job. Beside them stand the job's own keys, which schema 1 had alone:
"before" and "after" -> split -> figures, "pairs", "comparisons", ... They stay as they were.
``summary.schema.json`` beside this module is the JSON schema; docs/results.md explains it.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.atomic import write_text
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports.writers import plain

SCHEMA = 2
SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one subject said to one probe.

    Attributes:
      subject: the model, or its state: "before", "after", a method's or a model's name.
      probe: what it was asked: a split, a task, "pairs", "text".
      figures: metric -> value, with intervals as ``<metric>_ci``, and n.
      reading: how the confidence was read: "choice", "continuation_sum", ...; "" for no reading.
      seed: of the run, where there are several; None for all of them together.
    """

    subject: str
    probe: str
    figures: Mapping[str, Any]
    reading: str = ""
    seed: int | None = None

    def rows(self) -> Iterable[dict[str, Any]]:
        """A line per figure that is a number."""
        where = {
            "subject": self.subject,
            "probe": self.probe,
            "reading": self.reading,
            "seed": self.seed,
        }
        for metric, value in self.figures.items():
            if metric == "n" or not _is_figure(value):
                continue
            low, high = self.figures.get(f"{metric}_ci") or (None, None)
            figures = {"metric": metric, "value": value, "low": low, "high": high}
            yield {**where, **figures, "n": self.figures.get("n")}


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What b shows less what a shows, of the same questions.

    Attributes:
      a, b: subjects.
      probe, reading, seed: as in ``Measured``.
      figures: metric -> difference, with intervals as ``<metric>_ci`` and p-values as
        ``<metric>_p``.
    """

    a: str
    b: str
    probe: str
    figures: Mapping[str, Any]
    reading: str = ""
    seed: int | None = None

    def rows(self) -> Iterable[dict[str, Any]]:
        """A line per difference."""
        where = {
            "a": self.a,
            "b": self.b,
            "probe": self.probe,
            "reading": self.reading,
            "seed": self.seed,
        }
        for metric, value in self.figures.items():
            if metric == "n" or metric.endswith("_p") or not _is_figure(value):
                continue
            low, high = self.figures.get(f"{metric}_ci") or (None, None)
            figures = {"metric": metric, "difference": value, "low": low, "high": high}
            yield {**where, **figures, "p": self.figures.get(f"{metric}_p")}


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


@dataclasses.dataclass(frozen=True)
class Result:
    """What a job has found.

    Attributes:
      own: the job's own keys of the summary.
      measured: every measurement.
      contrasts: every comparison.
    """

    own: Mapping[str, Any]
    measured: tuple[Measured, ...] = ()
    contrasts: tuple[Contrast, ...] = ()

    def as_summary(self, job: str, costs: Mapping[str, Any]) -> dict[str, Any]:
        """What ``summary.json`` holds.

        Args:
          job: of the config.
          costs: time, memory and versions.
        """
        return {
            "schema": SCHEMA,
            "job": job,
            **self.own,
            **costs,
            "rows": [row for one in self.measured for row in one.rows()],
            "contrasts": [row for one in self.contrasts for row in one.rows()],
        }


def of_states(
    states: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> tuple[Measured, ...]:
    """The measurements of subject -> probe -> figures; the reading is the figures' "method"."""
    return tuple(
        Measured(subject, probe, figures, str(figures.get("method", "")))
        for subject, by_probe in states.items()
        for probe, figures in by_probe.items()
    )


def dumps(summary: Mapping[str, Any]) -> str:
    """A summary as JSON, a line of ``rows`` and ``contrasts`` on a line; NaN and ∞ become null.

    Raises:
      TypeError: a value that JSON cannot hold.
    """
    found = plain(summary)
    lines = {key: found.pop(key) for key in ("rows", "contrasts") if key in found}
    text = json.dumps(found, indent=2, allow_nan=False)
    # Lists of numbers on one line. A line break inside brackets is never part of a JSON string.
    text = re.sub(
        r"\[\n\s*((?:(?:null|[-+.\deE]+),?\s*)+)\]",
        lambda match: f"[{' '.join(match[1].split())}]",
        text,
    )
    for key, rows in lines.items():
        body = ",".join(f"\n    {json.dumps(row, allow_nan=False)}" for row in rows)
        text = f"{text[:-2]},\n  {json.dumps(key)}: [{body}" + ("\n  ]\n}" if rows else "]\n}")
    return text + "\n"


def write(path: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes a summary atomically; nothing where JSON cannot hold it (TypeError)."""
    write_text(path, dumps(summary))


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a summary.json, of this schema or of schema 1 (whose runs have no rows).

    Raises:
      UserError: there is no such file, it is not a JSON object, or a later version wrote it.
    """
    path = pathlib.Path(path)
    reads(path)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; has the run finished?") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: not a JSON object but a {type(summary).__name__}")
    schema = summary.get("schema", 1)
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise UserError(
            f"{path}: written in schema {schema!r}, and this version reads 1 to {SCHEMA}. Install "
            "the version of calib_jax that wrote it, or run its command again."
        )
    return summary
