"""The job ``alignment``: what of its alignment a fine-tuned model has kept.

Preference accuracy and margins on held-out pairs, and perplexity on text, before and after.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.reports.pairs import measure
from calib_jax.reports.result import Contrast, Result, of_states
from calib_jax.reports.views import alignment
from calib_jax.runs import measuring, probing, restoring, results
from calib_jax.runs.measuring import say
from calib_jax.runs.pairs import Side
from calib_jax.runs.probing import PAIRS, TEXT, Answers
from calib_jax.runs.run import Run

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
    config, stop = run.config, run.stop

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
        folder = run.workdir / "models" / label
        found[label] = probing.ask(config, label, side, material, folder, run.claim, stop)
        stop.check()
    if jax.process_index() == 0:
        pairs = {label: one.pairs[PAIRS] for label, one in found.items() if one.pairs}
        text = {label: one.text for label, one in found.items() if one.text is not None}
        run.finish(
            measured(config, material.data, found),
            lambda summary: alignment.view(summary, pairs, text),
        )


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


def measured(
    config: ml_collections.ConfigDict, data: Mapping[str, Any], found: Mapping[str, Answers]
) -> Result:
    """Figures of pairs and text of every model, and their changes from the first one's.

    Raises:
      UserError: the models were not asked the same: tokenizers that differ leave out others.
    """
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    beta = config.align.beta
    pairs = {label: one.pairs[PAIRS] for label, one in found.items() if one.pairs}
    text = {label: one.text for label, one in found.items() if one.text is not None}
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
