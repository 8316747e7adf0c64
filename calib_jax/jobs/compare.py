"""The job ``compare``: fine-tuning methods, their baselines and ablations over several seeds.

Source: Xiao et al. 2025, Table 2, Figure 5 and the ablation.
"""

import dataclasses
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax import posthoc, presets
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.grammar import numbers
from calib_jax.jobs import finetune
from calib_jax.reports import calibrated, result
from calib_jax.reports.compare import measure, sentences
from calib_jax.reports.compare.comparison import BEFORE, Comparison, as_dict, from_dict
from calib_jax.reports.compare.parts import act_above
from calib_jax.reports.result import Result
from calib_jax.reports.views import View
from calib_jax.reports.views import comparison as views
from calib_jax.runs import compared_methods
from calib_jax.runs.compared_methods import label
from calib_jax.runs.run import Run
from calib_jax.runs.subruns import Before, Subruns

# method -> seed -> split -> scores.
MethodScores = dict[str, dict[int, dict[str, Scores]]]
# They move no prediction.
TEMPERATURES = ("temperature", "fixed_temperature")


def main(run: Run) -> None:
    """Trains every method with every seed, then writes Table 2, its page and its figures.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config = run.config
    check_config(config)
    methods = compared_methods.methods_of(config)
    seeds = numbers(config.compare.seeds, "config.compare.seeds")
    own = compared_methods.own_settings(config, methods)
    subruns = Subruns(run, finetune.main)

    def configs(seed: int) -> dict[str, ml_collections.ConfigDict]:
        return {
            name: compared_methods.with_method(subruns.settings(seed), name, own.get(name, {}))
            for name in compared_methods.trained_of(methods)
        }

    trained = configs(seeds[0])
    compared_methods.check(config, trained, own)
    beside = read_beside(config)
    fitted = [name for name in methods if name not in (BEFORE, *trained)]
    crossed = [name for name in fitted if compared_methods.parts(name)[1]]
    if config.compare.calibration == "cross":
        crossed = fitted
    on_train = len(crossed) < len(fitted)

    def check(sizes: Mapping[str, int]) -> None:
        if crossed:
            _check_folds(config, sizes, crossed)

    scores: MethodScores = {name: {} for name in methods}
    said: dict[str, dict[str, str]] = {}
    warned: dict[tuple[str, str], list[int]] = {}  # (method, what its fit warns of) -> seeds
    first: Any = None
    asked = on_train, check, posthoc.reads_states(set(fitted) & set(posthoc.METHODS))
    for seed, before, found in subruns.series(seeds, configs, *asked):
        first = first or before
        if jax.process_index() != 0:
            continue
        for name in fitted:
            first_part, then = compared_methods.parts(name)
            scored = found[first_part] if then else before.scores
            on = None if name in crossed else before.calibration
            found[name], facts, warns = calibrate(config, then or first_part, scored, on)
            said.setdefault(name, {})[f"seed {seed}"] = "; ".join([*facts, *warns]) or "fitted"
            for text in warns:
                warned.setdefault((name, text), []).append(seed)
        found[BEFORE] = dict(before.scores)
        for name in methods:
            scores[name][seed] = found[name]
    if jax.process_index() != 0:
        return

    labels = {name: label(config, name) for name in methods}
    rows = compared_methods.settings_rows(config, methods, trained, own)
    compared = compare(
        config,
        scores,
        first,
        labels=labels,
        reference=reference_of(methods),
        unchanged=[name for name in fitted if compared_methods.preserves_predictions(name)],
        remarks=[remark(labels[name], on, text) for (name, text), on in warned.items()],
        settings=rows,
    )
    shown = {name: by_seed[seeds[0]] for name, by_seed in scores.items()}
    own_facts = {
        "methods": {labels[name]: row["method"] for name, row in rows.items()},
        "said": sentences.sentences(compared, TEMPERATURES),
        "fitted": {labels[name]: by_seed for name, by_seed in said.items()},
        "act_above": act_above(shown, first.domains, labels),
    }

    def view(summary: Mapping[str, Any]) -> View:
        return views.view(summary, shown, config.em.num_bins, config.em.edges)

    finish(subruns, first, [compared, *beside], own_facts, view)


def compare(
    config: ml_collections.ConfigDict, scores: MethodScores, first: Before, **options: Any
) -> Comparison:
    """Measures methods, or settings, on the same questions.

    Args:
      config: of the whole.
      scores: method -> seed -> split -> scores.
      first: the model as it is, of any seed.
      **options: labels, reference, unchanged, remarks, settings of ``measure.compare``.
    """
    name = config.model.name
    name = Path(name).name if Path(name).exists() else name.removeprefix("offline:")
    return measure.compare(
        scores,
        first.domains,
        model=config.report.title or name,
        num_bins=config.em.num_bins,
        edges=config.em.edges,
        seed=config.seed,
        num_resamples=config.report.num_resamples,
        **options,
    )


def finish(
    subruns: Subruns,
    first: Before,
    comparisons: Sequence[Comparison],
    own: Mapping[str, Any],
    view: Callable[[Mapping[str, Any]], View],
) -> None:
    """Finishes a run that compares methods or settings.

    Args:
      subruns: the finished runs.
      first: the model as it is, of the first seed.
      comparisons: this run's, then those of other runs that are shown in the same tables.
      own: the keys of the summary that this job alone has.
      view: how the summary is shown.
    """
    config = subruns.whole.config
    facts = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": first.summary.get("fingerprint"),
        **own,
        "runs": subruns.folders,
        "comparisons": [as_dict(comparison) for comparison in comparisons],
        "data": first.summary.get("data"),
    }
    measured, contrasts = comparisons[0].measured(), comparisons[0].contrasts()
    subruns.whole.finish(Result(facts, measured, contrasts), view)


def _check_folds(
    config: ml_collections.ConfigDict, sizes: Mapping[str, int], crossed: Sequence[str]
) -> None:
    """Raises UserError where an evaluation split is too small for what is cross-fitted on it."""
    remedy = "Ask for fewer folds"
    if not any(compared_methods.parts(name)[1] for name in crossed):
        remedy += ", or set config.compare.calibration to 'train'"
    for name, size in sizes.items():
        if size < config.posthoc.folds:
            raise UserError(
                f"config.posthoc.folds is {config.posthoc.folds}, but {name} has {size} "
                f"question(s), on which {', '.join(crossed)} would be cross-fitted. {remedy}."
            )


def read_beside(config: ml_collections.ConfigDict) -> list[Comparison]:
    """The comparisons of other models that ``config.compare.beside`` names.

    Raises:
      UserError: a folder without a finished run of the job ``compare``.
    """
    found = []
    for folder in split_list(config.compare.beside):
        path = Path(folder) / result.SUMMARY
        comparisons = result.read(path).get("comparisons")
        if not comparisons:
            raise UserError(f"{path} is not of the job 'compare'; see config.compare.beside.")
        found.append(from_dict(comparisons[0], str(path)))
    return found


def reference_of(methods: Collection[str]) -> str:
    """What the others are compared with: CFT, or the first that is trained, or the first of all.

    >>> reference_of(["before", "rcft", "cft"]), reference_of(["before", "sft"])
    ('cft', 'sft')
    """
    trained = [name for name in methods if name in presets.METHODS]
    return "cft" if "cft" in trained else (trained or list(methods))[0]


def calibrate(
    config: ml_collections.ConfigDict,
    name: str,
    scored: Mapping[str, Scores],
    on: Scores | None,
) -> tuple[dict[str, Scores], list[str], list[str]]:
    """What a post-hoc method makes of a model's scores.

    The questions that are reported never take part in the fit that they are measured with.

    Args:
      config: of the whole.
      name: a key of ``posthoc.METHODS``.
      scored: split -> the model's scores.
      on: what the method is fitted on; None for the splits themselves, out of fold.

    Returns:
      split -> scores, what was fitted, and what the fit warns of.
    """
    found, said = {}, []
    fit = calibrated.settings(name, config.posthoc.pseudo_count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", posthoc.CalibrationWarning)
        if on is not None:
            fitted = posthoc.fit_scores(name, on, **fit)
            temperature = getattr(fitted, "temperature", None)
            said += [f"T = {temperature:.3f}"] if isinstance(temperature, float) else []
        for split, scores in scored.items():
            if on is not None:
                changed = posthoc.calibrated_scores(fitted, scores)
            else:
                changed = posthoc.cross_fit_scores(
                    name, scores, folds=config.posthoc.folds, seed=config.seed, **fit
                )
            found[split] = dataclasses.replace(changed, mass=None)
    warns = dict.fromkeys(
        str(w.message) for w in caught if issubclass(w.category, posthoc.CalibrationWarning)
    )
    return found, said, list(warns)


def remark(label: str, seeds: Sequence[int], text: str) -> str:
    """What the tables' notes say of a fit that warns.

    >>> remark("Temp. scale", [0, 2], "T stays at its upper bound")
    'Temp. scale (seeds 0, 2): T stays at its upper bound'
    """
    some = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{label} ({some}): {text}"
