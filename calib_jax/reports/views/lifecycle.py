"""Calibration of a series of models over scale, step or epoch: results, curves, diagrams."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import catalogue, tables, verdicts
from calib_jax.reports.figures import reliability
from calib_jax.reports.figures.canvas import Figure
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.lifecycle import figures
from calib_jax.reports.remarks import low_mass
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv, figure
from calib_jax.reports.views import (
    Block,
    Facts,
    Heading,
    Legend,
    Panels,
    Picture,
    Section,
    Text,
    View,
    note,
    said,
)
from calib_jax.reports.views.pictures import MARKS
from calib_jax.reports.views.series import Part
from calib_jax.reports.words import sentence

NOTE = (
    "Text and facts: top-1 probability over the whole vocabulary, right where its token is the "
    "next one; <task>_vocabulary: likewise after a question, right where it is the right letter; "
    "tasks: the letters' probabilities, renormalised. Brackets: 95% intervals; where a "
    "document gives several positions, by resampling documents. By chance: the conf-ECE that a "
    "perfectly calibrated model exceeds in one sample of 20. NLL: of the token that follows, in "
    "nats (of tasks: of the right letter)."
)
# (key of what was left out, why), before and after a tokenizer has seen it
_SKIPPED = (
    ("skipped_empty", "empty"),
    ("skipped_no_template", "without a template of the relation"),
    ("skipped_no_sentence", "without a sentence of their own"),
    ("skipped_no_mask", "whose sentences hold no [MASK]"),
    ("skipped_pronouns", "pronouns"),
    ("skipped_other_text", "whose span does not hold their name"),
    ("skipped_same_start", "that begin where a longer one does"),
    ("skipped_no_text_before", "without text before the object"),
    ("skipped_too_short", "too short"),
    ("skipped_inside_token", "whose span begins inside a token"),
)
# Of every group; of more models than so many the page shows the first of them alone.
_GROUPED = tuple(
    metric
    for metric in catalogue.METRICS
    if metric.key in ("conf_ece", "conf_ece_null_q95", "accuracy", "mean_confidence")
)
_MOST_MODELS = 4


def parts(summary: Mapping[str, Any]) -> list[Part]:
    """Text, facts and tasks: each with the models that were measured on it, in order."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for model in summary["models"]:
        for name, row in summary[model].items():
            rows.setdefault(name, {})[model] = row
    return [Part(name, by, catalogue.at(catalogue.SERIES), title=name) for name, by in rows.items()]


def table(part: Part, brief: bool = False) -> Table:
    """A row per model; a brief table, for the console, leaves room for intervals."""
    sizes = ["n"] if brief else [figures.unit(part.name), *_sources(part)]
    rows = (
        Row(
            (
                Cell(model),
                *(Cell(f"{row[key]:,}") for key in ("n", "documents")[: len(sizes)]),
                *(figure(row, metric) for metric in part.metrics),
            )
        )
        for model, row in part.rows.items()
    )
    columns = (
        Column("model", text=True),
        *map(Column, sizes),
        *(Column(metric.brief, direction=metric.direction) for metric in part.metrics),
    )
    how = {row["intervals"] for row in part.rows.values() if "intervals" in row}
    notes = tuple(f"Intervals: {text}." for text in sorted(how))
    return Table(part.name, columns, tuple(rows), part.title, notes, stacked=True)


def _sources(part: Part) -> list[str]:
    """The header of what rows may share, where that says more than their number."""
    if part.name == "facts" and any(row["documents"] != row["n"] for row in part.rows.values()):
        return ["sources"]
    return ["documents"] if part.name == "text" else []


def sentences(parts: Sequence[Part]) -> list[str]:
    """Per part its first and last model: conf-ECE, chance, and whether their intervals overlap."""
    found = []
    for part in parts:
        ends = {model: part.rows[model] for model in figures.spread(list(part.rows), 2)}
        *_, last = ends.values()
        text = verdicts.course(
            f"conf-ECE on {part.name}",
            {model: row["conf_ece"] for model, row in ends.items()},
            {},
            after=verdicts.of_chance(last, "answers"),
        )
        bounds = [row.get("conf_ece_ci") for row in ends.values()]
        if len(ends) > 1 and all(b and None not in b for b in bounds):
            (low, high), (other_low, other_high) = filter(None, bounds)
            meet = low <= other_high and other_low <= high
            text += f"; their 95% intervals {'overlap' if meet else 'do not overlap'}"
        found.append(text)
    return found


def skipped_lines(summary: Mapping[str, Any]) -> list[str]:
    """ "Text: documents skipped: 3 empty; 2 to 5 too short", a line per part that skipped any.

    A range is of the models, whose tokenizers may differ.
    """
    lines = []
    for part in parts(summary):
        source = summary["data"].get(part.name, {})
        counts = [row.get("counts", {}) for row in part.rows.values()]
        reasons = []
        for key, why in _SKIPPED:
            numbers = [source[key]] if key in source else [count.get(key, 0) for count in counts]
            least, most = min(numbers), max(numbers)
            if most:
                number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
                reasons.append(f"{number} {why}")
        if reasons:
            what = "Text: documents" if part.name == "text" else part.name.capitalize()
            lines.append(f"{what} skipped: {'; '.join(reasons)}.")
    return lines


def _remarks(parts: Sequence[Part]) -> list[Text]:
    """Where the letters hold little of a model's probability, and what the figures are."""
    rows = {f"{model}, {p.name}": row for p in parts for model, row in p.rows.items()}
    return [*(note(sentence(text)) for text in low_mass(rows)), note(NOTE)]


def console(summary: Mapping[str, Any]) -> list[Block]:
    """Sentences, a table per part, what was left out, and notes."""
    found = parts(summary)
    skipped = map(Text, skipped_lines(summary))
    shown = [table(part, brief=True) for part in found]
    return [*said(sentences(found)), *shown, *skipped, *_remarks(found)]


# --- The page -------------------------------------------------------------------------------------


def groups(part: Part) -> Table | None:
    """A table that the reader can sort, of every relation or subject; None without groups."""
    having = [model for model, row in part.rows.items() if row.get("groups")]
    if not having:
        return None
    many = len(having) > _MOST_MODELS
    chosen = figures.spread(having)
    found = {model: {g["group"]: g for g in part.rows[model]["groups"]} for model in chosen}
    metrics = _GROUPED[:1] if many else _GROUPED
    rows = []
    for name in sorted({name for by_name in found.values() for name in by_name}):
        sizes = [by_name[name]["n"] for by_name in found.values() if name in by_name]
        # Tokenizers that differ may leave out different facts.
        size = f"{max(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,}–{max(sizes):,}"
        cells = (figure(found[model].get(name), m) for m in metrics for model in chosen)
        rows.append(Row((Cell(name or "(none)"), Cell(size, value=max(sizes)), *cells)))
    alone = len(chosen) == 1
    columns = (
        Column("relation" if part.name == "facts" else "subject", text=True),
        Column(figures.unit(part.name)),
        *(Column(m.label if alone else f"{m.label}, {model}") for m in metrics for model in chosen),
    )
    text = "Press a header to sort. Few rows make a large conf-ECE by chance alone."
    if many:
        shown = f"{len(chosen)} of {len(having)} models, " if len(chosen) < len(having) else ""
        text += f" Shown: {shown}conf-ECE alone; tables/{part.name}_by_group.csv holds all."
    name = f"{part.name} by group"
    return Table(name, columns, tuple(rows), notes=(text,), sortable=True, stacked=True)


def _diagrams(panels: Mapping[str, Mapping[str, Panel]], num_bins: int, edges: str) -> list[Block]:
    blocks: list[Block] = [Legend(MARKS)]
    for i, (part, by_model) in enumerate(panels.items()):
        chosen = figures.spread(list(by_model))
        norm = reliability.shade_norm(by_model[model].bins for model in chosen)
        pictures = []
        for j, model in enumerate(chosen):
            text = reliability.about(by_model[model].row).replace("\n", " · ")
            draw = functools.partial(reliability.draw_panel, by_model[model], norm)
            label = f"Reliability diagram of {part}, {model}: {text}"
            pictures.append(Picture(draw, f"reliability-{i}-{j}", label, model, text))
        text = f"Darkest: {100 * (norm.vmax or 1):.0f}% of the {figures.unit(part)} in one bin."
        if len(chosen) < len(by_model):
            text += f" {len(chosen)} of {len(by_model)} models; figures/ holds all."
        blocks += [Heading(part), Panels(pictures), note(text)]
    text = (
        f"{num_bins} bins, closed on the {edges}. The interval of a bin and the orange lines, "
        "between which the bar of a calibrated model would end in 95% of cases, take rows to be "
        "independent."
    )
    return [*blocks, note(text)]


def view(
    summary: Mapping[str, Any],
    panels: Mapping[str, Mapping[str, Panel]],
    num_bins: int,
    edges: str,
) -> View:
    """Results, curves over the axis, reliability diagrams, and facts by relation.

    Args:
      summary: what summary.json holds.
      panels: part -> model -> what its diagram shows.
      num_bins, edges: of the bins.
    """
    found, models, axis = parts(summary), summary["models"], summary["axis"]
    rows = {model: summary[model] for model in models}
    results = list(map(table, found))
    sections = [Section("Results", [*results, *_remarks(found)])]
    drawn: dict[str, Any] = {}
    if len(rows) > 1:
        drawn["figures/curves"] = draw = functools.partial(figures.draw_curves, rows, models, axis)
        label = f"conf-ECE and accuracy of every part over the {axis}."
        sections.append(Section("Curves", [Picture(draw, "curves", label, wide=True)]))
    sections.append(Section("Reliability", _diagrams(panels, num_bins, edges)))
    for part in found:
        if (shown := groups(part)) is not None:
            title = "Facts by relation" if part.name == "facts" else f"{part.name} by subject"
            sections.append(Section(title, [shown]))
    counts = {
        model: {part: row["counts"] for part, row in by_part.items() if "counts" in row}
        for model, by_part in rows.items()
    }
    data: list[Block] = [Facts(summary["data"]), Heading("Used and skipped"), Facts(counts)]
    sections += [Section("Data", data), Section("Models", [Facts(models)])]
    *_, last = models
    return View(
        title=f"Calibration over {axis}" if len(rows) > 1 else f"Calibration of {last}",
        kicker=f"lifecycle · {' · '.join(rows)}",
        said=sentences(found),
        console=console(summary),
        sections=sections,
        files={
            **tables.files("tables/lifecycle", results, NOTE),
            "tables/lifecycle.csv": results_csv(summary),
            **{f"tables/{p.name}_by_group.csv": text for p in found if (text := groups_csv(p))},
        },
        figures=drawn | _files(panels),
    )


def _files(panels: Mapping[str, Mapping[str, Panel]]) -> dict[str, functools.partial[Figure]]:
    """Path -> what draws it: each part's diagrams, together and one by one."""
    found = {}
    for part, by_model in panels.items():
        path = f"figures/reliability_{reliability.file_name(part)}"
        if len(by_model) > 1:
            chosen = {model: by_model[model] for model in figures.spread(list(by_model))}
            found[path] = functools.partial(figures.draw_reliability, part, chosen)
        for model, panel in by_model.items():
            draw = functools.partial(figures.draw_reliability, part, {model: panel})
            found[f"{path}_{model}"] = draw
    return found


# --- CSV ------------------------------------------------------------------------------------------


def results_csv(summary: Mapping[str, Any]) -> str:
    """part, model, its place on the axis, n, documents, and every figure with its ends."""
    metrics = catalogue.at(catalogue.SERIES)
    heads = ["part", "model", "place", "n", "documents"]
    for metric in metrics:
        ends = (f"{metric.key}_low", f"{metric.key}_high") if metric.interval else ()
        heads += [metric.key, *ends]
    lines = []
    for part in parts(summary):
        for model, row in part.rows.items():
            place = summary["models"][model].get("place")
            line = [part.name, model, place, row["n"], row.get("documents")]
            for metric in metrics:
                low, high = row.get(f"{metric.key}_ci") or (None, None)
                line += [row.get(metric.key), *((low, high) if metric.interval else ())]
            lines.append(line)
    return as_csv(heads, lines)


def groups_csv(part: Part) -> str:
    """A part's figures by relation or subject: a line per model and group; "" without groups."""
    keys = ("n", *(metric.key for metric in _GROUPED))
    lines = [
        [model, group["group"], *(group.get(key) for key in keys)]
        for model, row in part.rows.items()
        for group in row.get("groups", ())
    ]
    return as_csv(["model", "group", *keys], lines) if lines else ""
