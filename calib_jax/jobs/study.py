"""The job ``study``: base and aligned models in pairs, on every task, by every method.

Source: Oh and Hwang 2024, Does Alignment Tuning Really Break LLMs' Internal Confidence?
"""

import dataclasses
import json
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models import peft
from calib_jax.models.model import open_checkpoint
from calib_jax.provenance import reads
from calib_jax.questions import sources
from calib_jax.reports import predictions, summary
from calib_jax.reports.study import authors_csv, changes, figures, page
from calib_jax.reports.study import table as study_table
from calib_jax.runs import evaluating, results
from calib_jax.runs.evaluating import TaskScores
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run, claim, settle
from calib_jax.training.interrupt import StopRequest

RUN, OFFLINE = "run:", "offline:"
CHAT_FIELDS = ("template_arguments", "date")
PROMPT_FIELDS = ("template", "choice", "continuation", "chat", "letter_prefix", *CHAT_FIELDS)
# What must be the same for two models' figures to be compared.
_SHARED = (
    ("seed",),
    ("data", "eval"),
    ("data", "eval_size"),
    *(("data", key) for key in ("shuffle_options", "shuffle_tasks", "shots")),
    *(("prompt", key) for key in PROMPT_FIELDS),
    ("confidence", "methods"),
)
_LISTS = ("eval", "methods", "shuffle_tasks")


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
    """A base model and the aligned one that was made of it."""

    name: str
    base: Side
    aligned: Side


def main(run: Run) -> None:
    """Measures every model once, then writes changes, ratios, ranks, tables, figures and a page.

    Raises:
      UserError: bad input; nothing is written then. Or runs that were measured on other questions.
      Stopped: SIGTERM; the same command continues.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    started = time.monotonic()

    # --- What is cheap to find wrong comes first --------------------------------------------------
    results.check_options(config)
    pairs = parse_pairs(config.study.pairs)
    published, files = authors_csv.read_all(config.study.published)
    if not pairs and not published:
        raise UserError(
            "config.study.pairs names no pair. Write --config.study.pairs=name=base->aligned, or "
            "name CSV files of published figures in config.study.published. configs/study.py says "
            "how a pair is made offline."
        )
    for key in ("revision", "adapter"):
        if config.model[key]:
            raise UserError(
                f"config.model.{key} is {config.model[key]!r}, which a study of several models "
                "does not use. Write it into config.study.pairs: model@revision, model+adapter."
            )
    sides = list({side.key: side for pair in pairs for side in (pair.base, pair.aligned)}.values())
    not_used = _check_settings(config, sides)
    if any(side.run is None for side in sides):
        evaluating.methods_of(config)
        check_models(sides)
        evaluating.load_tasks(config)
    claim(workdir, config)

    # --- Every model once -------------------------------------------------------------------------
    folders = model_folders(sides, workdir / "models")
    for side in sides:
        if side.run is None:
            say(f"\n{side.text}: {folders[side.key]}")
            folder, derived = folders[side.key], side_config(config, side)
            with Run(derived, folder, stop) as inner:
                if not inner.finished:
                    evaluating.run_evaluation(inner, quietly=True)
        stop.check()
    if jax.process_index() != 0:
        return

    # --- Changes ----------------------------------------------------------------------------------
    measured = {key: read_scores(folder) for key, folder in folders.items()}
    settle()
    cells = measure_pairs(config, pairs, measured, stop)
    result = {
        "method": config.method,
        "compared": _compared(pairs, measured),
        "not_used": not_used,
        "low_mass": evaluating.low_mass({side.text: measured[side.key] for side in sides}),
        "questions": {side.text: _sizes(measured[side.key]) for side in sides},
        "models": {side.text: str(folders[side.key]) for side in sides},
        "pairs": changes.as_dict(cells),
        "published": changes.as_dict(published),
        "published_files": files,
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    write_results(workdir, config, result, cells, published)
    study_table.show_summary(result)
    say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")


def parse_pairs(text: str) -> list[Pair]:
    """The pairs of ``config.study.pairs``: "name=base->aligned, ...".

    A model is ``model``, ``model@revision`` (hub ids), ``model+adapter`` or ``run:<folder>``; a
    path that exists is taken whole.

    Raises:
      UserError: a pair that is not of this form, a name twice, a pair of one model, or a pair
        twice.
    """
    pairs: list[Pair] = []
    for entry in split_list(text):
        name, equals, models = entry.partition("=")
        base, arrow, aligned = models.partition("->")
        name, base, aligned = name.strip(), base.strip(), aligned.strip()
        if not (equals and arrow and name and base and aligned) or "->" in aligned:
            raise UserError(
                f"config.study.pairs: {entry!r} is no pair; write name=base->aligned, several "
                "separated by commas (and quotes around it all: > means something to the shell)."
            )
        if re.search(r'["|]', name):
            raise UserError(f"config.study.pairs: the name {name!r} holds a quote or a bar.")
        pair = Pair(name, parse_side(base), parse_side(aligned))
        if pair.base.key == pair.aligned.key:
            raise UserError(f"config.study.pairs: {name!r} has {base} on both sides.")
        for other in pairs:
            if other.name == name:
                raise UserError(f"config.study.pairs: the name {name!r} stands twice.")
            if (other.base.key, other.aligned.key) == (pair.base.key, pair.aligned.key):
                raise UserError(f"config.study.pairs: {other.name!r} and {name!r} are one pair.")
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


def model_folders(sides: Sequence[Side], parent: Path) -> dict[tuple, Path]:
    """Side's key -> the folder of its run: that of a finished one, or a new one named after it."""
    folders: dict[tuple, Path] = {}
    for side in sides:
        name = re.sub(r"[^\w.-]+", "_", side.text).strip("._") or "model"
        folder, i = side.run or parent / name, 1
        while side.run is None and folder in folders.values():
            i += 1
            folder = parent / f"{name}-{i}"
        folders[side.key] = folder
    return folders


def check_models(sides: Sequence[Side]) -> None:
    """Raises UserError for a model or an adapter on this machine that cannot be read.

    What must come from the hub is found missing in its turn.
    """
    for side in sides:
        if side.name.startswith(OFFLINE) or Path(side.name).exists() and side.name:
            checkpoint = open_checkpoint(side.name)
            if side.adapter and Path(side.adapter).exists():
                peft.read_adapter(side.adapter, checkpoint.config)
        elif side.name and "/" not in side.name.strip("./"):
            raise UserError(f"{side.text}: no such file or folder, and no hub id (owner/name).")


def side_config(config: ml_collections.ConfigDict, side: Side) -> ml_collections.ConfigDict:
    """The config with which the job ``evaluate`` measures one model of this study."""
    derived = config.copy_and_resolve_references()
    derived.job = derived.method = "evaluate"
    derived.model.name, derived.model.revision = side.name, side.revision
    derived.model.adapter = side.adapter
    # A study with further pairs measures the same.
    derived.study.pairs = derived.study.published = ""
    return derived


# --- Finished runs ------------------------------------------------------------------------------


def _check_settings(config: ml_collections.ConfigDict, sides: Sequence[Side]) -> list[str]:
    """What this study's config says and its finished runs were not measured with, a line each.

    Raises:
      UserError: a finished run is none, or was measured otherwise than the rest.
    """
    known: list[tuple[str, Mapping[str, Any]]] = []
    if any(side.run is None for side in sides):
        known.append(("this study", config.to_dict()))
    for side in sides:
        if side.run is not None:
            known.append((side.text, read_run(side.run)))
    for what, settings in known[1:]:
        for path in _SHARED:
            values = [_setting(s, path) for s in (known[0][1], settings)]
            if values[0] != values[1]:
                raise UserError(
                    f"{what} was measured with config.{'.'.join(path)}={values[1]!r}, and "
                    f"{known[0][0]} with {values[0]!r}: their figures cannot be compared. Measure "
                    "one of them again with the other's."
                )
    if not known:
        return []
    runs, own = known[-1][1], config.to_dict()
    return [
        f"Not used: config.{'.'.join(path)}={_setting(own, path)!r}. The finished runs were "
        f"measured with {_setting(runs, path)!r}."
        for path in _SHARED
        if _setting(own, path) != _setting(runs, path)
    ]


def _setting(settings: Mapping[str, Any], path: Sequence[str]) -> Any:
    moot = path[-1] in CHAT_FIELDS and not _setting(settings, ("prompt", "chat"))
    value: Any = None if moot else settings
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    # Blanks around commas say nothing, and neither does a list that an older run does not have.
    return split_list(value or "") if path[-1] in _LISTS else value


def read_run(folder: Path) -> Mapping[str, Any]:
    """The config of a finished run of the job ``evaluate``.

    Raises:
      UserError: there is none, it is of another job, or it is not finished.
    """
    path = folder / "config.json"
    reads(path)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{RUN}{folder}: no such run; {path} is not there.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable config ({error})") from None
    job = settings.get("job") if isinstance(settings, Mapping) else None
    if job != "evaluate":
        raise UserError(f"{RUN}{folder} is a run of the job {job!r}; expected 'evaluate'.")
    if not (folder / "summary.json").exists():
        raise UserError(
            f"{RUN}{folder} is not finished: it has no summary.json. Run its command again first."
        )
    return settings


def read_scores(folder: Path) -> TaskScores:
    """Task -> method -> scores of a finished run, groups of subjects after their task.

    Raises:
      UserError: it is not a finished run, or a predictions file is missing or lacks a method.
    """
    settings = read_run(folder)
    specs = {sources.split_name(s): s for s in split_list(settings["data"]["eval"])}
    groups = {n: task.groups for n, spec in specs.items() if (task := sources.task_of(spec))}
    result: TaskScores = {}
    for method in split_list(settings["confidence"]["methods"]):
        read = {
            name: predictions.read(folder / "predictions" / f"measured-{name}.parquet", method)
            for name in specs
        }
        for name, scores in results.grouped(read, groups).items():
            result.setdefault(name, {})[method] = scores
    return result


# --- Results ------------------------------------------------------------------------------------


def measure_pairs(
    config: ml_collections.ConfigDict,
    pairs: Sequence[Pair],
    measured: Mapping[tuple, TaskScores],
    stop: StopRequest,
) -> dict[str, dict[str, dict[str, changes.Cell]]]:
    """pair -> task -> method -> cell, with ranks.

    Raises:
      UserError: the two sides of a pair were not asked the same questions.
    """
    cells: dict[str, dict[str, dict[str, changes.Cell]]] = {}
    for pair in pairs:
        base, aligned = measured[pair.base.key], measured[pair.aligned.key]
        for task, by_method in base.items():
            for method, scores in by_method.items():
                other = aligned.get(task, {}).get(method)
                what = "not measured" if other is None else changes.difference(scores, other)
                if what:
                    raise UserError(
                        f"pair {pair.name!r}, task {task}, method {method}: {pair.base.text} and "
                        f"{pair.aligned.text} were not asked the same: {what}."
                    )
                cells.setdefault(pair.name, {}).setdefault(task, {})[method] = changes.measure(
                    scores,
                    other,
                    num_bins=config.em.num_bins,
                    edges=config.em.edges,
                    seed=config.seed,
                    num_resamples=config.report.num_resamples,
                )
                stop.check()
    return changes.ranked(cells)


def _compared(pairs: Sequence[Pair], measured: Mapping[tuple, TaskScores]) -> dict[str, Any]:
    """What the page says first: the pairs, and the questions of every task."""
    if not pairs:
        return {}
    first = measured[pairs[0].base.key]
    return {
        "pairs": {pair.name: f"{pair.base.text} → {pair.aligned.text}" for pair in pairs},
        "questions": _sizes(first),
        "methods": list(next(iter(first.values()))),
    }


def _sizes(scores: TaskScores) -> dict[str, int]:
    """Task -> how many questions of it were measured."""
    return {task: len(next(iter(by_method.values()))) for task, by_method in scores.items()}


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    result: Mapping[str, Any],
    cells: changes.Cells,
    published: changes.Cells,
) -> None:
    """Writes tables, CSV files, figures, the page and, last of all, ``summary.json``."""
    if cells:
        study_table.write(workdir / "tables", cells)
        authors_csv.write(workdir / "csv", cells, changes.methods_of(cells))
        figures.write(workdir / "figures", cells)
    if published:
        study_table.write(workdir / "tables" / "published", published)
        figures.write(workdir / "figures" / "published", published)
    page.write(
        workdir / "report.html",
        result,
        cells,
        published,
        config=config.to_dict(),
        command=shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]]),
    )
    summary.write(workdir / "summary.json", result)
