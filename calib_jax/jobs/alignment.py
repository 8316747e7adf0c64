"""The job ``alignment``: what of its alignment a fine-tuned model has kept.

Preference accuracy and margins on held-out pairs, and perplexity on text, before and after.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.reports.pairs import measure
from calib_jax.reports.result import Contrast, Result, of_states
from calib_jax.reports.views import alignment
from calib_jax.runs import score, subjects
from calib_jax.runs.material import PAIRS, TEXT, Material
from calib_jax.runs.run import Run, say
from calib_jax.runs.score import Said
from calib_jax.runs.subjects import Subject

# What config.model is called.
BEFORE = "before"


def main(run: Run) -> None:
    """Measures one model after the other, then writes tables, figures, report and summary.

    A model's folder is ``models/<label>``; what it holds is kept, so a run that was stopped
    continues where it was.

    Raises:
      UserError: bad input, or models that were not asked the same.
      Stopped: SIGTERM; the same command continues.
    """
    config = run.config

    # --- What is cheap to find wrong comes first --------------------------------------------------
    check_config(config)
    models = models_of(config)
    for label, subject in models.items():
        named = "config.model" if label == BEFORE else f"config.alignment.models, {label}"
        subjects.check(subject, named)
    asked = config.alignment
    material = Material(config, data={"seed": config.seed})
    material.add_pairs(asked.pairs, asked.pairs_size)
    material.add_running_text(asked.text, asked.text_size, asked.window)

    # --- Model by model ---------------------------------------------------------------------------
    found: dict[str, Said] = {}
    for label, subject in models.items():
        say(f"{label}: {subject.text}")
        folder = run.workdir / "models" / label
        found[label] = score.ask_subject(
            config, label, subject, material.probes, folder, run.claim, run.stop.check
        )
        run.stop.check()
    if jax.process_index() == 0:
        pairs, text = (_said(found, name) for name in (PAIRS, TEXT))
        run.finish(
            measured(config, material.data, found),
            lambda summary: alignment.view(summary, pairs, text),
        )


def models_of(config: ml_collections.ConfigDict) -> dict[str, Subject]:
    """config.model as "before", then those of ``config.alignment.models``, by label.

    Raises:
      UserError: an entry that is not understood.
    """
    after = subjects.parse_labelled(
        config.alignment.models, "config.alignment.models", taken=(BEFORE,)
    )
    return {BEFORE: subjects.of_config(config), **after}


def _said(found: Mapping[str, Said], name: str) -> dict[str, Any]:
    """label -> observations of one probe, of the models that were asked it."""
    return {label: said.files[name] for label, said in found.items() if name in said.files}


def measured(
    config: ml_collections.ConfigDict, data: Mapping[str, Any], found: Mapping[str, Said]
) -> Result:
    """Figures of pairs and text of every model, and their changes from the first one's.

    Raises:
      UserError: the models were not asked the same: tokenizers that differ leave out others.
    """
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    beta = config.align.beta
    pairs, text = (_said(found, name) for name in (PAIRS, TEXT))
    if pairs:
        measure.check_same_pairs(pairs)
    for label, losses in text.items():
        if losses.ids != text[BEFORE].ids:
            raise UserError(
                f"{label} and {BEFORE} read different documents of config.alignment.text: what one "
                "tokenizer makes too short to predict, another does not. Leave short texts out."
            )
    rows = {
        PAIRS: {
            label: measure.measure_pairs(
                scores, None if label == BEFORE else pairs[BEFORE], beta, **resampling
            )
            for label, scores in pairs.items()
        },
        TEXT: {label: measure.measure_text(losses, **resampling) for label, losses in text.items()},
    }
    change = {
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
    }
    own = {
        "method": config.method,
        "models": {label: one.about for label, one in found.items()},
        "beta": beta,
        **rows,
        "change": change,
        "data": dict(data),
    }
    states = {
        label: {part: by_model[label] for part, by_model in rows.items() if label in by_model}
        for label in found
    }
    contrasts = (
        Contrast(BEFORE, label, part, moved)
        for part, by_model in change.items()
        for label, moved in by_model.items()
    )
    return Result(own, of_states(states), tuple(contrasts))
