"""The job ``compare``: fine-tuning methods, their baselines and ablations over several seeds.

Source: Xiao et al. 2025, Table 2, Figure 5 and the ablation.
"""

import dataclasses
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax import posthoc, presets
from calib_jax.confidence.scores import Scores
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.reports import summary
from calib_jax.reports.compare import diagrams, measure, page, tables, wording
from calib_jax.reports.compare.comparison import BEFORE, Comparison, as_dict, from_dict
from calib_jax.runs import comparing, results
from calib_jax.runs.comparing import label
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run
from calib_jax.runs.subruns import Before, Subruns, numbers

# method -> seed -> split -> scores.
MethodScores = dict[str, dict[int, dict[str, Scores]]]


def main(run: Run) -> None:
    """Trains every method with every seed, then writes Table 2, its page and its figures.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    started = time.monotonic()
    results.check_options(config)
    methods = comparing.methods_of(config)
    seeds = numbers("compare.seeds", config.compare.seeds)
    own = comparing.own_settings(config, methods)
    subruns = Subruns(config, workdir, stop)
    trained = {
        name: comparing.with_method(subruns.settings(seeds[0]), name, own.get(name, {}))
        for name in methods
        if name in presets.METHODS
    }
    comparing.check(config, trained, own)
    beside = read_beside(config)

    # --- Every run, or what is left of them -------------------------------------------------------
    fitted = [name for name in methods if name not in (BEFORE, *trained)]
    scores: MethodScores = {name: {} for name in methods}
    before: dict[int, Before] = {}
    notes: dict[str, dict[str, str]] = {}
    warned: dict[tuple[str, str], list[int]] = {}  # (method, what its fit warns of) -> seeds
    for seed in seeds:
        needed = bool(fitted) and config.compare.calibration == "train"
        crossed = bool(fitted) and not needed

        def check(sizes: Mapping[str, int], crossed: bool = crossed) -> None:
            if crossed:
                _check_folds(config, sizes)

        before[seed] = subruns.before(seed, calibration=needed, check=check)
        for name in trained:
            derived = comparing.with_method(subruns.settings(seed), name, own.get(name, {}))
            scores[name][seed] = subruns.train(f"{name}-seed{seed}", derived, before[seed])
        if jax.process_index() == 0:
            for name in fitted:
                scores[name][seed], said, warns = calibrate(config, name, before[seed])
                notes.setdefault(name, {})[f"seed {seed}"] = "; ".join([*said, *warns]) or "fitted"
                for text in warns:
                    warned.setdefault((name, text), []).append(seed)
            if BEFORE in scores:
                scores[BEFORE][seed] = dict(before[seed].scores)
        stop.check()
    if jax.process_index() != 0:
        return

    # --- Results ----------------------------------------------------------------------------------
    first = before[seeds[0]]
    comparison = measure.compare(
        scores,
        first.domains,
        model=model_label(config),
        labels={name: label(config, name) for name in methods},
        reference=reference_of(methods),
        unchanged=[n for n in fitted if n in ("temperature", "fixed_temperature")],
        remarks=[remark(label(config, name), on, text) for (name, text), on in warned.items()],
        num_bins=config.em.num_bins,
        edges=config.em.edges,
        seed=config.seed,
        num_resamples=config.report.num_resamples,
    )
    rows = comparing.settings_rows(config, methods, trained, own)
    comparison = dataclasses.replace(comparison, settings=rows)
    says = wording.sentences(comparison, BEFORE, ["temperature", "fixed_temperature"])
    result = {
        "job": config.job,
        "method": config.method,
        "model": config.model.name,
        "fingerprint": first.summary.get("fingerprint"),
        "methods": {label(config, name): row["method"] for name, row in rows.items()},
        "said": says,
        "fitted": {label(config, name): said for name, said in notes.items()},
        "runs": {
            f"{name}-seed{seed}": str(workdir / f"{name}-seed{seed}")
            for seed in seeds
            for name in ("before", *trained)
        },
        "comparisons": [as_dict(c) for c in (comparison, *beside)],
        "data": first.summary.get("data"),
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    write_results(
        workdir, config, result, [comparison, *beside], {n: s[seeds[0]] for n, s in scores.items()}
    )
    tables.show_summary(result)
    say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")


def _check_folds(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Raises UserError where an evaluation split is too small to be cross-fitted."""
    for name, size in sizes.items():
        if size < config.posthoc.folds:
            raise UserError(
                f"config.posthoc.folds is {config.posthoc.folds}, but {name} has {size} "
                "question(s). Ask for fewer folds, or set config.compare.calibration to 'train'."
            )


def read_beside(config: ml_collections.ConfigDict) -> list[Comparison]:
    """The comparisons of other models that ``config.compare.beside`` names.

    Raises:
      UserError: a folder without a finished run of the job ``compare``.
    """
    found = []
    for folder in split_list(config.compare.beside):
        path = Path(folder) / "summary.json"
        comparisons = summary.read(path).get("comparisons")
        if not comparisons:
            raise UserError(f"{path} is not of the job 'compare'; see config.compare.beside.")
        found.append(from_dict(comparisons[0], str(path)))
    return found


def reference_of(methods: Sequence[str]) -> str:
    """What the others stand against: CFT, or the first that is trained, or the first of all.

    >>> reference_of(["before", "rcft", "cft"]), reference_of(["before", "sft"])
    ('cft', 'sft')
    """
    trained = [name for name in methods if name in presets.METHODS]
    return "cft" if "cft" in trained else (trained or list(methods))[0]


def model_label(config: ml_collections.ConfigDict) -> str:
    """What the tables call the model: the title, or its name without the folders before it."""
    name = config.model.name
    name = Path(name).name if Path(name).exists() else name.removeprefix("offline:")
    return config.report.title or name


def calibrate(
    config: ml_collections.ConfigDict, name: str, before: Before
) -> tuple[dict[str, Scores], list[str], list[str]]:
    """What a post-hoc method makes of the model's scores.

    The questions that are reported never take part in the fit that they are measured with.

    Returns:
      split -> scores, what was fitted, and what the fit warns of.
    """
    method = posthoc.METHODS[name]
    found = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", posthoc.CalibrationWarning)
        if config.compare.calibration == "train":
            on = before.calibration
            fitted = method.fit(on.log_scores, on.answers, on.mask)
            temperature = getattr(fitted, "temperature", None)
            said = [f"T = {temperature:.3f}"] if isinstance(temperature, float) else []
            for split, scores in before.scores.items():
                found[split] = posthoc.calibrated_scores(fitted, scores)
        else:
            said = []
            for split, scores in before.scores.items():
                found[split] = posthoc.cross_fit_scores(
                    name, scores, folds=config.posthoc.folds, seed=config.seed
                )
    warns = dict.fromkeys(
        str(w.message) for w in caught if issubclass(w.category, posthoc.CalibrationWarning)
    )
    found = {split: dataclasses.replace(scores, mass=None) for split, scores in found.items()}
    return found, said, list(warns)


def remark(label: str, seeds: Sequence[int], text: str) -> str:
    """What stands under the tables of a fit that warns.

    >>> remark("Temp. scale", [0, 2], "T stays at its upper bound")
    'Temp. scale (seeds 0, 2): T stays at its upper bound'
    """
    some = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{label} ({some}): {text}"


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    result: Mapping[str, Any],
    comparisons: Sequence[Comparison],
    scores: Mapping[str, Mapping[str, Scores]],
) -> None:
    """Writes tables, figures, the page and, last of all, ``summary.json``."""
    comparison = comparisons[0]
    tables.write(workdir / "tables", comparisons)
    figures = {
        name: (figure, f"Reliability diagrams, {name.replace('_', ', ')}: a panel per method.")
        for name, figure in diagrams.draw_all(
            comparison, scores, config.em.num_bins, config.em.edges
        ).items()
    }
    diagrams.write(workdir / "figures", {name: figure for name, (figure, _) in figures.items()})
    page.write(
        workdir / "report.html",
        "Methods compared",
        headline_of(comparison),
        result,
        comparisons,
        figures,
        diagrams.LEGEND,
        config=config.to_dict(),
        command=shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]]),
    )
    summary.write(workdir / "summary.json", result)


def headline_of(comparison: Comparison) -> list[str]:
    """The page's first sentences."""
    if BEFORE in comparison.rows and comparison.reference != BEFORE:
        return wording.change(comparison, BEFORE, comparison.reference)
    labels = comparison.labels
    return [f"{', '.join(labels.values())}: against {labels[comparison.reference]}"]
