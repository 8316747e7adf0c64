"""A run's folder: it belongs to one config, and it knows whether the run is finished."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from calib_jax.errors import UserError
from calib_jax.reports import answers, overview, plan_table, summary, winrate
from calib_jax.reports.alignment import tables as alignment_tables
from calib_jax.reports.alignment import training_tables
from calib_jax.reports.atomic import write_text
from calib_jax.reports.compare import tables as compare_tables
from calib_jax.reports.lifecycle import tables as lifecycle_tables
from calib_jax.reports.stages import tables as stages_tables
from calib_jax.reports.study import table as study_table

# Of jobs whose results are no ROWs of metrics alone.
_TABLES = {
    "align": training_tables,
    "alignment": alignment_tables,
    "compare": compare_tables,
    "generate": answers,
    "lifecycle": lifecycle_tables,
    "plan": plan_table,
    "stages": stages_tables,
    "sweep": compare_tables,
    "winrate": winrate,
}


def agreed(value: bool) -> bool:
    """Process 0's value, on every process: all of them must take the same branch."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def as_json(config: ml_collections.ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _without_mesh(text: str) -> str:
    """The config of a run as far as it makes the run's numbers: a run may change its devices."""
    try:
        config = json.loads(text)
    except ValueError:  # not what we wrote: it differs
        return text
    config.get("mesh", {}).pop("shape", None)
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)


def check_workdir(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Raises UserError when the folder is another run's (the difference is shown) or no run's."""
    path = workdir / "config.json"
    if path.exists():
        there = _without_mesh(path.read_text(encoding="utf-8"))
        asked = _without_mesh(as_json(config))
        if there != asked:
            lines = difflib.unified_diff(there.splitlines(), asked.splitlines(), n=0, lineterm="")
            changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
            raise UserError(
                f"{workdir} holds a run with another config (-: there, +: asked for):\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nChoose another --workdir, delete this one, or ask for the same config."
            )
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir} is not empty and holds no config.json, so it is not a run's folder. Choose "
            "another --workdir."
        )


def claim(
    workdir: Path, config: ml_collections.ConfigDict, inputs: Mapping[str, str] | None = None
) -> None:
    """Makes the folder this run's own; called once its input has proven good.

    Args:
      inputs: fingerprints of what a run learns from and is measured on, by name. A run that goes on
        must find them as they were: half a training on other questions is nobody's.

    Raises:
      UserError: an input is another than when the run began.
    """
    path = workdir / "inputs.json"
    if inputs is not None and path.exists():
        there = summary.read(path)
        if changed := [name for name, what in inputs.items() if there.get(name) != what]:
            raise UserError(
                f"{workdir} was begun with other data: {', '.join(changed)} changed since. Restore "
                "the files as they were, or choose another --workdir."
            )
    if jax.process_index() == 0:
        if not (workdir / "config.json").exists():
            write_text(workdir / "config.json", as_json(config))
        if inputs is not None and not path.exists():
            write_text(path, json.dumps(inputs, indent=2) + "\n")


def show_if_finished(workdir: Path) -> bool:
    """Prints the table of a run that has its result already."""
    path = workdir / "summary.json"
    if not agreed(path.exists()):
        return False
    if jax.process_index() == 0:
        print(f"{workdir} is finished; this is its result.")
        result = summary.read(path)
        shown = study_table if "pairs" in result else overview
        shown = _TABLES.get(result.get("job"), shown)
        shown.show_summary(result)
    return True
