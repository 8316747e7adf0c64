"""A finished run of the job ``evaluate``: how its model was measured, and the scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions import sources
from calib_jax.reports import predictions
from calib_jax.runs import results
from calib_jax.runs.subjects import RUN, Subject
from calib_jax.runs.tasks import TaskScores

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


def check_settings(config: ml_collections.ConfigDict, subjects: Sequence[Subject]) -> list[str]:
    """A sentence for every setting of `config` that the finished runs among `subjects` overrule.

    Raises:
      UserError: a folder holds no finished run, or one that was measured differently from the rest.
    """
    known: list[tuple[str, Mapping[str, Any]]] = []
    if any(side.run is None for side in subjects):
        known.append(("this study", config.to_dict()))
    known += [(side.text, read_run(side.run)) for side in subjects if side.run is not None]
    for what, settings in known[1:]:
        for path in _SHARED:
            first, value = (_setting(s, path) for s in (known[0][1], settings))
            if first != value:
                raise UserError(
                    f"{what} was measured with config.{'.'.join(path)}={value!r}, and "
                    f"{known[0][0]} with {first!r}: their figures cannot be compared. Measure one "
                    "of them again with the other's setting."
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
    # Blanks around commas mean nothing, and neither does a list that an older run does not have.
    return split_list(value or "") if path[-1] in _LISTS else value


def read_run(folder: Path) -> Mapping[str, Any]:
    """The config of a finished run of the job ``evaluate``.

    Raises:
      UserError: there is no run, it is of another job, or it is not finished.
    """
    path = folder / "config.json"
    reads(path)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{RUN}{folder}: no such run; {path} does not exist.") from None
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
