"""What is shown of measured splits: by the jobs finetune, evaluate, report and align."""

from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import headline, remarks, tables, verdicts
from calib_jax.reports import states as of
from calib_jax.reports.figures import evaluation, reliability
from calib_jax.reports.states import States
from calib_jax.reports.views import (
    Block,
    Details,
    Facts,
    Section,
    View,
    methods,
    note,
    pictures,
    said,
    splits,
    thresholds,
    wrong,
)
from calib_jax.reports.words import DOMAINS, number

# A console shows the details of so many splits; of more, the overview alone.
MAX_DETAILED = 3
_SORT = "↓ lower is better, ↑ higher is better; press a header to sort."
_COLOURED = (
    "Coloured: the whole interval lies on one side of 0, each change on its own: one in twenty is "
    "coloured where nothing changes."
)
_SUBJECTS = (
    "Press a header to sort. Few questions make a large conf-ECE by chance alone: 95% of "
    "perfectly calibrated models stay below the figure beside it. Of many calibrated subjects, one "
    "in twenty still has p below 0.05; the adjusted p (Benjamini-Hochberg) allows for their number."
)
_CLASSES = (
    "Press a header to sort. A class whose mean probability is above its share of the answers is "
    "given too much. Class ECE: the error of its probabilities, in bins; the mean over the classes "
    "is the cw-ECE."
)
_BINS = (
    "Brackets: 95% Wilson intervals, over clusters where there are any. Gap: confidence − "
    "accuracy; positive is over-confident."
)


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The result in sentences without their full stops."""
    states = of.states_of(summary)
    if of.is_by_reading(summary):
        return headline.of_methods(states)
    return headline.of_states(states, summary.get("change"))


def sets(summary: Mapping[str, Any], among: str = "states") -> Mapping[str, Any]:
    """Which may be the best, among the "states" or the "methods"; {} in older summaries."""
    found = summary.get("best", {})
    return found.get(among, found.get("states", {}))


def _is_overview(states: States) -> bool:
    """Whether there is anything but one model before and after training."""
    return "before" not in states


def console(summary: Mapping[str, Any]) -> list[Block]:
    """The result in words, then the details of few splits, and the overview of several tasks."""
    states, changes = of.states_of(summary), summary.get("change")
    blocks: list[Block] = list(said(sentences(summary)))
    few = len(of.ordered_splits(states)) <= MAX_DETAILED
    blocks += thresholds.tables(states) if few else thresholds.first(states)
    if not _is_overview(states) or (few and not of.is_by_reading(summary)):
        blocks += [*splits.results(states, changes), note(splits.caption(bool(changes)))]
    if _is_overview(states):
        blocks.append(methods.overview(states, sets(summary)))
    return blocks


def view(
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    *,
    num_bins: int,
    edges: str,
    log: Sequence[Mapping[str, Any]] = (),
    title: str = "",
) -> View:
    """Tables, figures and page of measured splits.

    Args:
      summary: what ``summary.json`` holds; parts that it lacks are left out of the page.
      scores: state -> split -> scores, for figures and tables of bins.
      num_bins, edges: of the bins.
      log: the lines of metrics.jsonl.
      title: of the reliability diagrams.
    """
    states = of.states_of(summary)
    model, method = summary.get("model"), summary.get("method")
    cards = () if of.is_by_reading(summary) else _cards(states, summary.get("change"))
    return View(
        "Calibration" + (f" of {model}" if model else ""),
        str(method or ""),
        sentences(summary),
        console(summary),
        _sections(summary, states, scores, log, num_bins, edges),
        thresholds.first(states),
        cards,
        _files(summary, states),
        _figures(states, scores, log, num_bins, edges, title),
    )


def _cards(states: States, changes: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """A card per split with the course of its main figures, and whether they changed."""

    def course(split: str, key: str, ends: bool = False) -> str:
        rows = [by_split[split] for by_split in states.values() if split in by_split]
        values = [headline.figure(r, key) if ends else number(r.get(key)) for r in rows]
        change = (changes or {}).get(split, {})
        known = verdicts.short(change.get(f"{key}_ci"))
        text = (" → " if "before" in states else " · ").join(values)
        return text + (f" ({known})" if known else "")

    found = []
    for split in of.ordered_splits(states)[: pictures.MAX_SPLITS]:
        row = next(rows[split] for rows in states.values() if split in rows)
        about = [split, DOMAINS.get(row.get("domain", ""), ""), remarks.size(row)]
        also = (
            f"NLL {course(split, 'nll')}; Brier {course(split, 'brier')}; accuracy "
            f"{course(split, 'accuracy')}; mean confidence {course(split, 'mean_confidence')}"
        )
        top = f"conf-ECE {course(split, 'conf_ece', ends=True)}"
        found.append((" · ".join(filter(None, about)), top, also))
    return found


def _sections(
    summary: Mapping[str, Any],
    states: States,
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]],
    num_bins: int,
    edges: str,
) -> list[Section]:
    """The page's sections in order; those that have nothing to show are left out."""
    bins = num_bins, edges
    drawn, limits = pictures.chosen(states)
    diagrams, fewer = pictures.chosen(states, pictures.MAX_DIAGRAM_SPLITS)
    named = {bool(row.get("classes")) for rows in states.values() for row in rows.values()}
    by_option = {True: "Class by class", False: "Letter by letter"}
    option = by_option[named.pop()] if len(named) == 1 else "Option by option"
    subjects, classes = splits.subjects(states), splits.classes(states)
    calibrators = summary.get("posthoc")
    shift = summary.get("quantization")
    many = len(of.ordered_splits(states)) > splits.MAX_BIN_SPLITS
    some = f"The first {splits.MAX_BIN_SPLITS} of {len(of.ordered_splits(states))} splits."
    first = thresholds.first(states)
    above: list[Block] = [table for table in thresholds.tables(states) if table not in first]
    if len(above) > MAX_DETAILED:
        above = [Details("Every split", above)]
    sections = [
        Section("Results", _results(summary, states)),
        Section("Acting above a confidence", above),
        Section("Reliability", [*fewer, *pictures.diagrams(diagrams, scores, *bins)]),
        Section("Reliability curves", [*limits, *pictures.reliability_curves(drawn, scores)]),
        Section(option, pictures.class_grid(drawn, scores, *bins)),
        Section("Classes", [*classes, note(_CLASSES)] if classes else []),
        Section("Confidences", pictures.confidences(drawn, scores, log)),
        Section("Risk and coverage", pictures.risk_coverage(drawn, scores)),
        Section("Subjects", [*subjects, note(_SUBJECTS)] if subjects else []),
        Section("Post-hoc calibration", _calibrators(summary, states) if calibrators else []),
        Section("Quantisation", [methods.quantization(shift)] if shift else []),
        Section("Confidently wrong", wrong.blocks(states, scores)),
        Section("Course of the training", pictures.course_of_training(log) if log else []),
        Section("Data", [Facts(summary["data"])] if summary.get("data") else []),
        Section("Training", [Facts(summary["training"])] if summary.get("training") else []),
        Section(
            "Bins",
            [*splits.bins(states, scores, *bins), *([note(some)] if many else []), note(_BINS)],
        ),
    ]
    return [section for section in sections if section.blocks]


def _results(summary: Mapping[str, Any], states: States) -> list[Block]:
    changes = summary.get("change")
    text = f"↓ lower is better, ↑ higher is better. {splits.caption(bool(changes))}"
    detailed: list[Block] = [*splits.results(states, changes)]
    detailed.append(note(f"{text} {_COLOURED}" if changes else text))
    if of.is_by_reading(summary):
        # Thousands of figures: there for who asks for them.
        detailed = [Details("Every figure, task by task", detailed)]
    if _is_overview(states):
        return [methods.overview(states, sets(summary)), note(_SORT), *detailed]
    return detailed


def _calibrators(summary: Mapping[str, Any], states: States) -> list[Block]:
    source = "before" if "before" in states else "each model"
    rows = [row for splits in summary["posthoc"].values() for row in splits.values()]
    text = (
        f"Applied to the scores of {source}. Cross-fitted: every question's figures come from a "
        "calibrator that did not see it; AUROC is the mean over the folds, for different fits' "
        "confidences cannot be ranked together. Grey: the scores as they are. A calibrator that "
        "wins conf-ECE while NLL and Brier stay has only learnt the mean."
    )
    if any("calibrator" in row for row in rows):
        text += (
            " The calibrators fitted to all questions lie beside the page in the folder "
            "calibrators; calib_jax.posthoc.load reads such a file."
        )
    return [*methods.calibrators(summary["posthoc"], states), note(text)]


def _files(summary: Mapping[str, Any], states: States) -> dict[str, str]:
    """Tables as CSV, Markdown and LaTeX."""
    changes, every = summary.get("change"), methods.with_calibrators(summary)
    table = methods.methods(every, sets(summary, "methods"))
    found = {
        **tables.files("tables/methods", [table]),
        "tables/methods.csv": methods.methods_csv(table),
        "tables/metrics.csv": methods.metrics_csv(every),
        **tables.files(
            "tables/metrics", splits.results(states, changes), splits.caption(bool(changes))
        ),
    }
    if above := thresholds.tables(states):
        found |= tables.files("tables/thresholds", above)
        found["tables/thresholds.csv"] = thresholds.as_text(states)
    if _is_overview(states):
        found |= tables.files("tables/overview", [methods.overview(states, sets(summary))])
        found["tables/overview.csv"] = methods.overview_csv(states)
    return found


def _figures(
    states: States,
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]],
    num_bins: int,
    edges: str,
    title: str,
) -> dict[str, Any]:
    """reliability of all splits, and of each; then every figure of the page."""
    bins = num_bins, edges
    names = of.ordered_splits(states)
    found: dict[str, Any] = {
        "reliability": lambda: evaluation.draw(states, scores, *bins, title=title or None)
    }
    for split in names:
        one = {state: {split: rows[split]} for state, rows in states.items() if split in rows}
        found[f"figures/reliability_{reliability.file_name(split)}"] = lambda one=one: (
            evaluation.draw(one, scores, *bins, title=title or None)
        )
    return found | pictures.files(states, scores, log, *bins)
