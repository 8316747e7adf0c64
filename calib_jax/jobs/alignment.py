"""The job ``alignment``: what of its alignment a fine-tuned model has kept.

Preference accuracy and margins on held-out pairs, and perplexity on text, before and after.
"""

import functools
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.jobs.study import Side
from calib_jax.reports import summary
from calib_jax.reports.alignment import measure, page, tables
from calib_jax.reports.alignment.tables import BEFORE
from calib_jax.reports.atomic import atomic_path, write_text
from calib_jax.reports.figures.canvas import png
from calib_jax.runs import measuring, probing, restoring, results
from calib_jax.runs.measuring import say
from calib_jax.runs.probing import PAIRS, TEXT, Answers
from calib_jax.runs.run import Run, claim


def main(run: Run) -> None:
    """Measures one model after the other, then writes tables, figures, report and summary.

    A model's folder is ``models/<label>``; what stands there is kept, so a run that was stopped
    goes on where it was.

    Raises:
      UserError: bad input, or models that were not asked the same.
      Stopped: SIGTERM; the same command continues.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    started = time.monotonic()

    # --- What is cheap to find wrong comes first --------------------------------------------------
    results.check_options(config)
    measuring.check_batches(config)
    measuring.check_least(config, 0, ("alignment", "pairs_size"), ("alignment", "text_size"))
    sides = models_of(config)
    for label, side in sides.items():
        named = "config.model" if label == BEFORE else f"config.alignment.models, {label}"
        restoring.check(side, named)
    asked = config.alignment
    if not (split_list(asked.pairs) or split_list(asked.text)):
        raise UserError(
            "config.alignment names neither pairs nor text; there would be nothing to measure. Set "
            "--config.alignment.pairs or .text."
        )
    material = probing.load_material(
        config,
        pairs=(asked.pairs, asked.pairs_size),
        text=(asked.text, asked.text_size),
    )
    if material.documents:
        material.data[TEXT]["window"] = asked.window

    # --- Model by model ---------------------------------------------------------------------------
    found: dict[str, Answers] = {}
    for label, side in sides.items():
        say(f"{label}: {side.text}")
        begin = functools.partial(claim, workdir, config)
        folder = workdir / "models" / label
        found[label] = probing.ask(config, label, side, material, folder, begin, stop)
        stop.check()
    if jax.process_index() == 0:
        result = write_results(workdir, config, material.data, found, started)
        tables.show_summary(result)
        say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")


def models_of(config: ml_collections.ConfigDict) -> dict[str, Side]:
    """config.model as "before", then those of ``config.alignment.models``, by label.

    Raises:
      UserError: no model after, or an entry that is not understood.
    """
    model = config.model
    text = model.name + (f"@{model.revision}" if model.revision else "")
    text += f"+{model.adapter}" if model.adapter else ""
    before = Side(text, model.name, model.revision, model.adapter)
    after = restoring.parse_labelled(
        config.alignment.models, "config.alignment.models", taken=(BEFORE,)
    )
    if not after:
        raise UserError(
            "config.alignment.models names no model to compare config.model with; write "
            f"{restoring.SPELLING}: --config.alignment.models=cft=run:runs/cft"
        )
    return {BEFORE: before, **after}


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    data: Mapping[str, Any],
    found: Mapping[str, Answers],
    started: float,
) -> dict[str, Any]:
    """Writes tables, figures, the report and, last of all, ``summary.json``; returns the summary.

    Raises:
      UserError: the models were not asked the same pairs: tokenizers that differ leave out others.
    """
    beta = config.align.beta
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    pairs = {label: one.pairs[PAIRS] for label, one in found.items() if one.pairs}
    text = {label: one.text for label, one in found.items() if one.text is not None}
    for label, scores in pairs.items():
        if not measure.same_pairs(pairs[BEFORE], scores):
            raise UserError(
                f"{label} and {BEFORE} were not asked the same preference pairs: "
                f"{len(scores)} and {len(pairs[BEFORE])} of them fit config.align.max_length in "
                "their tokens. Raise it, so that none is left out."
            )
    for label, losses in text.items():
        if losses.ids != text[BEFORE].ids:
            raise UserError(
                f"{label} and {BEFORE} read other documents of config.alignment.text: what one "
                "tokenizer makes too short to predict, another does not. Leave short texts out."
            )
    result: dict[str, Any] = {
        "job": "alignment",
        "method": config.method,
        "models": {label: one.about for label, one in found.items()},
        "beta": beta,
        PAIRS: {
            label: measure.measure_pairs(
                scores, None if label == BEFORE else pairs[BEFORE], beta, **resampling
            )
            for label, scores in pairs.items()
        },
        TEXT: {label: measure.measure_text(losses, **resampling) for label, losses in text.items()},
        "change": {
            PAIRS: {
                label: measure.change_pairs(pairs[BEFORE], scores, **resampling)
                for label, scores in pairs.items()
                if label != BEFORE
            },
            TEXT: {
                label: measure.change_text(text[BEFORE], losses, **resampling)
                for label, losses in text.items()
                if label != BEFORE
            },
        },
        "data": dict(data),
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    tables.write(workdir / "tables", result)
    drawn = {}
    if pairs:
        drawn["margins"] = page.margins(pairs)
    if len(text) > 1:
        drawn["text"] = page.drift(text)
    for name, figure in drawn.items():
        with atomic_path(workdir / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(png(figure, dpi=150))
    command = shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]])
    shown = page.render(result, pairs, text, config.to_dict(), command)
    write_text(workdir / "report.html", shown)
    summary.write(workdir / "summary.json", result)
    return result
