"""The page's sections of figures in words and tables: headline, results, subjects, bins."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content, overview, verdicts
from calib_jax.reports.figures.bins import bins_of
from calib_jax.reports.page import layout
from calib_jax.reports.page.layout import States, escape, note

# A split with more subjects than this shows those with the most questions.
MAX_SUBJECTS = 300
# (key in a row of ROW["groups"], label, whether it has an interval)
SUBJECT_COLUMNS = (
    ("conf_ece", "conf-ECE", True),
    ("conf_ece_null_q95", "by chance (95%)", False),
    ("nll", "NLL", False),
    ("brier", "Brier", False),
    ("accuracy", "accuracy", True),
    ("mean_confidence", "mean confidence", False),
    ("conf_ece_debiased", "debiased", False),
    ("conf_ece_p_value", "p if calibrated", False),
    ("cw_ece", "cw-ECE", False),
)


_FIRST = ("conf_ece", "nll", "brier", "accuracy")


def _course(states: States, split: str, key: str) -> str:
    """A metric through the states: "0.410 → 0.050"; of a few methods' beside one another."""
    values = [content.number(rows[split].get(key)) for rows in states.values() if split in rows]
    return (" → " if "before" in states else " · ").join(values)


def cards(states: States, changes: Mapping[str, Any] | None = None) -> str:
    """A card per split with the course of its main figures, and whether they changed."""

    def text(split: str, key: str) -> str:
        known = verdicts.short((changes or {}).get(split, {}).get(f"{key}_ci"))
        return _course(states, split, key) + (f" ({known})" if known else "")

    found = []
    for split in content.ordered_splits(states)[: layout.MAX_FIGURE_SPLITS]:
        row = next(rows[split] for rows in states.values() if split in rows)
        about = [split, content.DOMAINS.get(row.get("domain"), ""), f"{row['n']:,} questions"]
        also = (
            f"NLL {text(split, 'nll')}; Brier {text(split, 'brier')}; "
            f"accuracy {text(split, 'accuracy')}; "
            f"mean confidence {text(split, 'mean_confidence')}"
        )
        found.append(
            f"<li><span>{escape(' · '.join(filter(None, about)))}</span>"
            f"<strong>conf-ECE {text(split, 'conf_ece')}</strong>"
            f"<span>{also}</span></li>"
        )
    return '<ul class="cards">' + "".join(found) + "</ul>"


def _cell(value: str, interval: str = "", verdict: str = "", number: float | None = None) -> str:
    kind = f' class="{verdict}"' if verdict else ""
    data = "" if number is None else f' data-v="{number:.6g}"'
    small = f" <small>{escape(interval)}</small>" if interval else ""
    return f"<td{kind}{data}>{escape(value)}{small}</td>"


def results(states: States, changes: Mapping[str, Any] | None) -> str:
    """The table of results, one part per split."""
    text = "↓ lower is better, ↑ higher is better. " + content.caption(bool(changes))
    if changes:
        text += " Coloured and bold: the whole interval lies on one side of 0."
    return section_tables(content.sections(states, changes)) + "\n" + note(text)


def section_tables(sections: Sequence[content.Section]) -> str:
    """A titled table for every section, with its notes."""
    parts = []
    for section in sections:
        rows = []
        for row in section.rows:
            cells = "".join(_cell(c.value, c.interval, c.verdict) for c in row.cells)
            # Figures that belong to the one above are set in by spaces.
            inset = ' class="inset"' if row.label.startswith(" ") else ""
            rows.append(f'<tr{inset}><th scope="row">{escape(row.arrow.strip())}</th>{cells}</tr>')
        parts.append(f"<h3>{escape(section.title)}</h3>")
        head = f"<tr><td></td>{layout.heads(section.header)}</tr>"
        parts.append(layout.table(head, rows, f"Results on {section.split}"))
        parts += [note(text) for text in section.notes]
    return "\n".join(parts)


def one_table(states: States) -> str:
    """The overview: a row per task and method, which the reader can sort."""
    found = overview.lines(states)
    shown = overview.columns(found)
    names = ["task", "method", "n", *(
        content.Row(label, direction, ()).arrow for _, label, direction in shown
    )]  # fmt: skip
    head = "".join(
        f'<th scope="col"{"" if i > 1 else " class=text"}'
        f"{' data-type=number' if i > 1 else ''}>{escape(name)}</th>"
        for i, name in enumerate(names)
    )
    body = []
    for line in found:
        cells = [
            f'<td class="text">{escape(line.method)}</td>',
            f'<td data-v="{line.row["n"]}">{line.row["n"]:,}</td>',
        ]
        for key, _, _ in shown:
            value = line.row.get(key)
            known = value is not None and value == value
            bounds = content.interval(line.row.get(f"{key}_ci"))
            verdict = "best" if key in line.best else ""
            shows = overview.figure(line.row, key)
            cells.append(_cell(shows, bounds, verdict, value if known else None))
        body.append(f'<tr><th scope="row">{escape(line.task)}</th>{"".join(cells)}</tr>')
    parts = [layout.table(f"<tr>{head}</tr>", body, "Tasks and methods", "sortable stacked")]
    text = "↓ lower is better, ↑ higher is better; press a header to sort. " + overview.NOTE
    parts += [note(f"Note: {warning}.") for warning in overview.low_mass(found)]
    parts.append(note(f"{text} {overview.RULE}" if any(line.best for line in found) else text))
    return "\n".join(parts)


def posthoc(methods: Mapping[str, Mapping[str, Mapping[str, Any]]], states: States) -> str:
    """What calibrators make of the scores, out of fold, beneath the scores as they are.

    Args:
      methods: method -> split -> figures like a ROW's.
      states: the measured states, shown first.
    """
    parts = []
    splits = dict.fromkeys(split for by_split in methods.values() for split in by_split)
    for split in splits:
        lines = {name: rows[split] for name, rows in states.items() if split in rows}
        measured = len(lines)
        lines |= {name: by_split[split] for name, by_split in methods.items() if split in by_split}
        shown = [
            (key, label, direction)
            for key, label, direction in content.METRICS
            if any(row.get(key) is not None for row in list(lines.values())[measured:])
        ]
        # The proper scores stand beside the first error: trivial recalibration wins that alone.
        shown.sort(key=lambda metric: (*_FIRST, metric[0]).index(metric[0]))
        names = [content.Row(label.strip(), direction, ()).arrow for _, label, direction in shown]
        body = []
        for i, (name, row) in enumerate(lines.items()):
            cells = "".join(
                _cell(content.number(row.get(key)), content.interval(row.get(f"{key}_ci")))
                for key, _, _ in shown
            )
            kind = ' class="base"' if i < measured else ""
            title = f"{name}, as measured" if i < measured else name.replace("_", " ")
            body.append(f'<tr{kind}><th scope="row">{escape(title)}</th>{cells}</tr>')
        parts.append(f"<h3>{escape(split)}</h3>")
        head = f'<tr><th scope="col">method</th>{layout.heads(names)}</tr>'
        parts.append(layout.table(head, body, f"Calibrators on {split}", "stacked"))
        parts += [note(text) for text in content.zero_notes(lines)]
        fitted = {name: by_split[split] for name, by_split in methods.items() if split in by_split}
        parts += [note(text) for text in content.calibrator_notes(fitted)]
    source = "before" if "before" in states else "each model"
    parts.append(
        note(
            f"Applied to the scores of {source}. Cross-fitted: every question's figures come from "
            "a calibrator that did not see it. Grey: the scores as they are. A calibrator that "
            "wins conf-ECE while NLL and Brier stay has only learnt the mean."
        )
    )
    return "\n".join(parts)


def quantization(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """What quantised weights change on the same questions: a column a split.

    Args:
      splits: split -> figures, as ``summary.json`` holds them.
    """
    changes = {"conf_ece": "conf-ECE", "accuracy": "accuracy", "nll": "NLL"}
    rows: dict[str, list[str]] = {}
    for row in splits.values():
        for key, name in (
            ("mean_confidence_shift", "mean shift of the confidence"),
            ("mean_abs_confidence_shift", "mean size of the shift"),
            ("max_abs_confidence_shift", "largest size"),
        ):
            rows.setdefault(name, []).append(_cell(content.number(row[key])))
        agreement = f"{row['argmax_agreement']:.1%}"
        rows.setdefault("same prediction", []).append(_cell(agreement))
        for key, name in changes.items():
            before, after = (content.number(row[key][k]) for k in ("unquantized", "quantized"))
            rows.setdefault(name, []).append(_cell(f"{before} → {after}"))
            interval = content.interval(row[key]["change_ci"])
            rows.setdefault(f"change of {name}, 95%", []).append(_cell(interval))
    body = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>'
        for name, cells in rows.items()
    ]
    head = f'<tr><th scope="col"></th>{layout.heads(list(splits))}</tr>'
    text = (
        "The same questions scored with the weights as they are and quantised, before any "
        "training. Shift: of the confidence, quantised less unquantised."
    )
    return layout.table(head, body, "What quantisation changes") + "\n" + note(text)


def _subject_name(group: Mapping[str, Any]) -> str:
    name = next((group[k] for k in ("group", "subject", "name") if k in group), None)
    return "(none)" if name is None else str(name)


def has_subjects(states: States) -> bool:
    """Whether any ROW holds figures by subject."""
    return any(row.get("groups") for rows in states.values() for row in rows.values())


def subjects(states: States) -> str:
    """Per split a table with a row per subject, which the reader can sort."""
    parts = []
    for split in content.ordered_splits(states):
        tables = {
            state: {_subject_name(g): g for g in rows[split]["groups"]}
            for state, rows in states.items()
            if split in rows and rows[split].get("groups")
        }
        if not tables:
            continue
        every = {name: g for groups in tables.values() for name, g in groups.items()}
        names = sorted(every, key=lambda name: -every[name].get("n", 0))[:MAX_SUBJECTS]
        columns = [
            (state, key, label, ranged)
            for key, label, ranged in SUBJECT_COLUMNS
            for state, groups in tables.items()
            if any(g.get(key) is not None for g in groups.values())
        ]
        alone = len(tables) == 1
        head = "".join(
            f'<th scope="col" data-type="{kind}">{escape(text)}</th>'
            for kind, text in [
                ("text", "subject"),
                ("number", "questions"),
                *(("number", label if alone else f"{label}, {s}") for s, _, label, _ in columns),
            ]
        )
        body = []
        for name in sorted(names):
            cells = [f'<td data-v="{every[name].get("n", "")}">{every[name].get("n", 0):,}</td>']
            for state, key, _, ranged in columns:
                group = tables[state].get(name, {})
                value = group.get(key)
                if value is None or value != value:
                    cells.append('<td data-v="">-</td>')
                    continue
                bounds = content.interval(group.get(f"{key}_ci")) if ranged else ""
                cells.append(_cell(content.number(value), bounds, number=value))
            body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
        parts.append(f"<h3>{escape(split)}: {len(every):,} subjects</h3>")
        label = f"Subjects of {split}"
        parts.append(
            layout.table(f"<tr>{head}</tr>", body, label, "sortable stacked", len(body) > 20)
        )
        if len(names) < len(every):
            text = f"The {len(names)} subjects with the most questions, of {len(every):,}."
            parts.append(note(text))
    parts.append(
        note(
            "Press a header to sort. Few questions make a large conf-ECE by chance alone: 95% of "
            "perfectly calibrated models stay below the figure beside it. Of many calibrated "
            "subjects, one in twenty still has p below 0.05."
        )
    )
    return "\n".join(parts)


def _bounds(edges: np.ndarray, m: int, convention: str) -> str:
    low, high = f"{edges[m]:.3g}", f"{edges[m + 1]:.3g}"
    # The first and the last bin take the value that the half-open convention leaves over.
    if convention == "right":
        return f"{'[' if m == 0 else '('}{low}, {high}]"
    return f"[{low}, {high}{']' if m == len(edges) - 2 else ')'}"


def bin_tables(
    states: States, scores: Mapping[str, Mapping[str, Scores]], num_bins: int, edges: str
) -> str:
    """Per split the bins behind the reliability diagram."""
    parts = []
    splits = content.ordered_splits(states)
    for split in splits[: layout.MAX_BIN_SPLITS]:
        tables = {
            state: bins_of(scores[state][split], num_bins, edges)
            for state, rows in states.items()
            if split in rows
        }
        top = "".join(f'<th class="group" colspan="4">{escape(state)}</th>' for state in tables)
        names = layout.heads(["questions", "accuracy", "confidence", "gap"]) * len(tables)
        rows = []
        bounds = next(iter(tables.values())).edges
        for m in range(num_bins):
            cells = [f'<th scope="row">{_bounds(bounds, m, edges)}</th>']
            for bins in tables.values():
                cells += [f"<td>{text}</td>" for text in _bin_cells(bins, m)]
            rows.append("<tr>" + "".join(cells) + "</tr>")
        parts.append(f"<h3>{escape(split)}</h3>")
        head = f'<tr><td></td>{top}</tr><tr><th scope="col">confidence in</th>{names}</tr>'
        parts.append(layout.table(head, rows, f"Bins of {split}"))
    if len(splits) > layout.MAX_BIN_SPLITS:
        parts.append(note(f"The first {layout.MAX_BIN_SPLITS} of {len(splits)} splits."))
    parts.append(
        note(
            "Brackets: 95% Wilson intervals. Gap: confidence − accuracy; positive is "
            "over-confident."
        )
    )
    return "\n".join(parts)


def _bin_cells(bins: Any, m: int) -> Sequence[str]:
    if not bins.counts[m]:
        return "0", "", "", ""
    accuracy, confidence = float(bins.accuracy[m]), float(bins.confidence[m])
    low, high = (float(end[m]) for end in bins.interval)
    return (
        f"{int(bins.counts[m]):,}",
        f"{content.number(accuracy)} <small>{content.interval([low, high])}</small>",
        content.number(confidence),
        content.number(confidence - accuracy, signed=True),
    )
