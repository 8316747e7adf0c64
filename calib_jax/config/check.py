"""The whole table, the config that is made of it, and the errors of a config, all of them."""

import re
from collections.abc import Collection, ItemsView, Iterable, Iterator
from typing import Any

import ml_collections

from calib_jax.config import table_jobs, table_model, table_train
from calib_jax.config.conflicts import CONFLICTS
from calib_jax.config.field import Field
from calib_jax.errors import UserError
from calib_jax.grammar import nearest

FIELDS: dict[str, Field] = {
    **table_model.RUN,
    **table_model.MODEL,
    **table_model.MESH,
    **table_model.DATA,
    **table_model.PROMPT,
    **table_model.CONFIDENCE,
    **table_model.BATCH,
    **table_train.EM,
    **table_train.TRAIN,
    **table_train.TRAIN_LORA,
    **table_train.ALIGN,
    **table_jobs.STAGES,
    **table_jobs.COMPARE,
    **table_jobs.SWEEP,
    **table_jobs.ALIGNMENT,
    **table_jobs.GENERATE,
    **table_jobs.ANSWERS,
    **table_jobs.WINRATE,
    **table_jobs.REGIMES,
    **table_jobs.PLAN,
    **table_train.CHECKPOINT,
    **table_model.REPORT,
    **table_jobs.STUDY,
    **table_jobs.LIFECYCLE,
    **table_jobs.EXPORT,
    **table_model.POSTHOC,
}
_NAMED = re.compile(r"config\.([a-z_]+(?:\.[a-z_]+)*)")


def base() -> ml_collections.ConfigDict:
    """A config of all fields with their defaults, which suit a small model on a CPU."""
    config = ml_collections.ConfigDict()
    for path, field in FIELDS.items():
        *sections, key = path.split(".")
        node = config
        for name in sections:
            if name not in node:
                node[name] = ml_collections.ConfigDict()
            node = node[name]
        empty = isinstance(field.default, dict)  # plan.dimensions
        node[key] = ml_collections.ConfigDict() if empty else field.default
    return config


def paths(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every field by its path ("train.lora.rank") with its value.

    ``plan.dimensions`` is one field, whatever a preset writes into it.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        path = prefix + key
        if path == "plan.dimensions":
            found[path] = value.to_dict()
        elif isinstance(value, ml_collections.ConfigDict):
            found |= paths(value, f"{path}.")
        else:
            found[path] = value
    return found


def unknown(path: str) -> str:
    """The message for a path that is none of a field, with the nearest one that is."""
    section, dot, key = path.rpartition(".")
    here = {known.removeprefix(section + dot): known for known in FIELDS}
    anywhere = {known.rpartition(".")[2]: known for known in FIELDS}
    near = here.get(nearest(key, here)) or anywhere.get(nearest(key, anywhere))
    guess = f"Did you mean config.{near}? " if near else ""
    return f"there is no field config.{path}. {guess}--help lists all of them."


def check_config(
    config: ml_collections.ConfigDict,
    asked: Collection[str] = (),
    written: Collection[str] = (),
    found: Iterable[str] = (),
) -> None:
    """Refuses a config with anything wrong, before anything is loaded, and says all that is.

    Checked are the type and the limits of every field that the job obeys, what it needs of several
    fields together, and that what the user set has an effect: a setting that is recorded and has
    none is worse than an error, since the numbers beside it belong to another experiment. A value
    that is the default asks for nothing, and neither does an empty one where the job has no use for
    any.

    Args:
      config: with the job that it is for.
      asked: paths of the fields that the command line sets.
      written: paths of those that the config file sets for this job.
      found: errors that were found before.

    Raises:
      UserError: one line for every error, which names the field, its value and the remedy.
    """
    errors = [*found, *problems(config, asked, written)]
    if len(errors) == 1:
        raise UserError(errors[0])
    if errors:
        lines = "".join(f"\n  {error}" for error in errors)
        raise UserError(f"the config has {len(errors)} errors:{lines}")


def problems(
    config: ml_collections.ConfigDict, asked: Collection[str] = (), written: Collection[str] = ()
) -> list[str]:
    """The messages of ``check_config``, in the order of the table."""
    values = paths(config)
    if wrong := FIELDS["job"].problem(config.job):
        return [wrong]
    errors = {path: unknown(path) for path in values if path not in FIELDS}
    for path, field in FIELDS.items():
        if path not in values:
            errors[path] = f"config.{path} is missing; start from calib_jax.config.base()."
        elif config.job in field.jobs and (wrong := field.problem(values[path])):
            errors[path] = wrong
    if errors.keys() - FIELDS or FIELDS.keys() - values:
        return list(errors.values())
    # What depends on a field that is wrong cannot be told: nothing more is said of that field.
    mended = config.copy_and_resolve_references()
    for path in errors:
        set_field(mended, path, FIELDS[path].default)
    found, unsure = [*errors.values()], set(errors)
    several = [text for jobs, check in CONFLICTS if config.job in jobs for text in check(mended)]
    for messages in (
        refused(mended, (*asked, *written)),
        several,
        without_effect(mended, asked),
    ):
        told = [text for text in messages if not unsure & set(_NAMED.findall(text))]
        found += told
        unsure.update(*map(_NAMED.findall, told))
    return found


def set_field(config: ml_collections.ConfigDict, path: str, value: Any) -> None:
    """Sets "train.lora.rank" of a config, whatever type its value has now."""
    *sections, key = path.split(".")
    for name in sections:
        config = config[name]
    with config.ignore_type():
        config[key] = value


def refused(config: ml_collections.ConfigDict, given: Collection[str]) -> Iterator[str]:
    """Messages for fields that are set, and that the job does not obey."""
    for path, value in _set(config, given):
        field = FIELDS[path]
        # What a config file calls itself is no request, and neither is an empty text.
        if config.job in field.jobs or path == "method" or value == "":
            continue
        others = ", ".join(job for job in field.jobs if job != "plan")
        yield (
            f"config.{path} is {value!r}, and has no effect in the job {config.job!r}: "
            f"{field.instead.get(config.job, 'leave it out')}. It is obeyed by: {others}."
        )


def without_effect(config: ml_collections.ConfigDict, asked: Collection[str]) -> Iterator[str]:
    """Messages for fields that the job obeys, and that have no effect beside the others."""
    for path, value in _set(config, asked):
        needs = [need for need in FIELDS[path].needs if config.job in need.jobs]
        if need := next((need for need in needs if not need.holds(config)), None):
            yield (
                f"config.{path} is {value!r}, and has no effect here: it has one only {need.text}. "
                "Leave it out, or change that."
            )


def _set(config: ml_collections.ConfigDict, given: Collection[str]) -> ItemsView[str, Any]:
    """Those of the given fields whose values are not the defaults."""
    values = paths(config)
    fields = ("plan.dimensions" if p.startswith("plan.dimensions.") else p for p in given)
    return {p: values[p] for p in fields if values.get(p) != FIELDS[p].default}.items()
