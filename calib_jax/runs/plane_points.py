"""Finished runs as points in the plane of accuracy and conf-ECE, and their logs as paths."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports import predictions, read_metrics, result
from calib_jax.reports.regimes.plane import Point

JOBS = ("finetune", "compare", "sweep", "stages")
# Kinds of the log's lines: what was asked, and how many epochs more than it says were learnt.
_LOGGED = {"estep": ("training questions", 0), "eval": ("validation", 1)}


def read(text: str, field: str = "config.regimes.runs") -> tuple[list[Point], list[str]]:
    """The points of finished runs, and what of them has no point.

    Args:
      text: folders, separated by commas.
      field: what messages call it.

    Returns:
      points, those that several runs share (the model before) once; sentences on what is left out.

    Raises:
      UserError: a folder holds no finished run, one of another job, or one is named twice.
    """
    folders = [Path(part) for part in split_list(text)]
    points: dict[tuple, Point] = {}
    left_out: list[str] = []
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UserError(f"{field} names {folder} twice; leave one out.")
        seen.add(folder.resolve())
        name = f"{folder.name or folder}: " if len(folders) > 1 else ""
        for point in _of_folder(folder, field, name, left_out):
            known = (point.path, point.questions, point.epoch, point.accuracy, point.conf_ece)
            points.setdefault(known, point)
    return list(points.values()), left_out


def _of_folder(folder: Path, field: str, name: str, left_out: list[str]) -> Iterator[Point]:
    summary = result.read(folder / result.SUMMARY)
    job = summary.get("job")
    if job not in JOBS:
        raise UserError(
            f"{field}: {folder} is a run of the job {job!r}; choose runs of {', '.join(JOBS)}."
        )
    if job == "finetune":
        yield from _of_finetune(folder, summary, name)
    elif job == "stages":
        yield from _of_stages(folder, summary, name)
    else:
        labels: dict[str, str] = {}
        for compared in summary["comparisons"]:
            labels |= compared["labels"]
        methods = set()
        for run in summary["runs"]:
            within = folder / run
            method = run.rpartition("-seed")[0]
            methods.add(method)
            part = result.read(within / result.SUMMARY)
            yield from _of_finetune(within, part, name, labels.get(method, method), folder)
        for method in labels:
            if method not in methods and method not in ("before", "dpo"):
                left_out.append(
                    f"{name}{labels[method]} is post hoc and has no run of its own, so it has no "
                    "point"
                )


def _of_finetune(
    folder: Path,
    summary: Mapping[str, Any],
    name: str,
    label: str = "",
    whole: Path | None = None,
) -> Iterator[Point]:
    """Both states on every split, then the log; ``whole`` is the series that the run belongs to."""
    seed = summary["data"]["seed"]
    method = label or summary["method"]
    for state in ("before", "after"):
        for split, row in summary.get(state, {}).items():
            file = folder / "predictions" / f"{state}-{split}.parquet"
            said = "before" if state == "before" else method
            path = f"{name}{said}" + ("" if state == "before" else f", seed {seed}")
            yield _point(
                row, _questions(file, split, folder), path, said, seed, subject=state == "before"
            )
    log = folder / "metrics.jsonl"
    if log.exists():
        reads(log)
        trained: dict[tuple[str, int], Mapping[str, Any]] = {}
        for line in read_metrics(log):
            if line["kind"] in _LOGGED and line.get("split", "validation") == "validation":
                asked, more = _LOGGED[line["kind"]]
                # Of several E-steps in an epoch the first, which the whole epoch before has made.
                trained.setdefault((asked, line["epoch"] + more), line)
        for (asked, epoch), found in sorted(trained.items(), key=lambda one: one[0]):
            count = summary["data"]["n"].get("train" if asked != "validation" else "validation", 0)
            path = f"{name}{method}, seed {seed}"
            # Runs of one series and seed learn the same; others may have other questions.
            where = f"{asked} of {whole or folder}" + (f", seed {seed}" if whole else "")
            yield _point({"n": count, **found}, where, path, method, seed, epoch=epoch)


def _of_stages(folder: Path, summary: Mapping[str, Any], name: str) -> Iterator[Point]:
    *_, last = summary["letters"]
    for stage, by_split in summary["letters"].items():
        for split, row in by_split.items():
            where = f"{split} of {folder}"  # all stages are asked the same
            yield _point(
                row, where, f"{name}stages", stage, None, stage=stage, subject=stage == last
            )


def _point(
    row: Mapping[str, Any], where: str, path: str, method: str, seed: int | None, **more: Any
) -> Point:
    ends = row.get("accuracy_ci")
    return Point(
        path,
        method,
        where,
        row["n"],
        row["accuracy"],
        math.nan if row["conf_ece"] is None else row["conf_ece"],
        row.get("conf_ece_null_q95"),
        None if ends is None or None in ends else (ends[0], ends[1]),
        seed,
        **more,
    )


def _questions(file: Path, split: str, folder: Path) -> str:
    """A name that two runs share only where they asked the same questions, in whatever order."""
    if not file.exists():
        return f"{split} of {folder}"
    scores = predictions.read(file)
    texts = scores.questions or [""] * len(scores.ids)
    asked = sorted(zip(scores.ids, texts, strict=True))
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:6]
    return f"{split} ({len(asked):,} questions, {digest})"
