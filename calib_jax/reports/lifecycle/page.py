"""report.html of a series of models: results, curves, reliability diagrams, facts by relation."""

from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.reports import content
from calib_jax.reports.figures import reliability
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.lifecycle import figures, tables
from calib_jax.reports.page import layout
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import escape, facts, legend, note, swatch

Panels = Mapping[str, Mapping[str, Panel]]  # part -> label -> what its diagram shows

_GROUP_KEYS = (
    ("accuracy", "accuracy"),
    ("mean_confidence", "mean confidence"),
    ("conf_ece", "conf-ECE"),
    ("conf_ece_null_q95", "by chance (95%)"),
)


def render(
    summary: Mapping[str, Any],
    panels: Panels,
    config: Mapping[str, Any],
    command: str,
) -> str:
    """The report as one HTML document that takes nothing from outside."""
    rows = tables.rows_of(summary)
    sections = [("Results", _results(rows))]
    curves = figures.draw_curves(rows, summary["models"], summary["axis"])
    if curves is not None:
        label = f"conf-ECE and accuracy of every part over the {summary['axis']}."
        sections.append(("Curves", layout.figure(curves, "curves", label, wide=True)))
    sections.append(("Reliability", _diagrams(panels, config["em"])))
    for part in tables.parts_of(rows):
        if any(by_part.get(part, {}).get("groups") for by_part in rows.values()):
            title = "Facts by relation" if part == "facts" else f"{escape(part)} by subject"
            sections.append((title, _groups(part, rows)))
    counts = {
        label: {part: row["counts"] for part, row in by_part.items() if "counts" in row}
        for label, by_part in rows.items()
    }
    sections.append(("Data", facts(summary["data"]) + "<h3>Used and skipped</h3>" + facts(counts)))
    sections.append(("Models", facts(summary["models"])))
    sections.append(("How to get this again", again(summary, config, command)))
    last = list(rows)[-1]
    title = f"Calibration of {last}" if len(rows) == 1 else f"Calibration over {summary['axis']}"
    return document(title, "lifecycle · " + " · ".join(rows), tables.sentences(rows), sections)


def _results(rows: figures.Rows) -> str:
    parts = []
    names = [content.Row(label, way, ()).arrow for _, label, way, _ in tables.COLUMNS]
    for part in tables.parts_of(rows):
        body = []
        here = {label: by_part[part] for label, by_part in rows.items() if part in by_part}
        sources = _sources(part, here.values())
        for label, row in here.items():
            cells = "".join(
                f"<td>{content.number(row.get(key), signed=key == 'overconfidence')} <small>"
                f"{content.interval(row.get(f'{key}_ci')) if ranged else ''}</small></td>"
                for key, _, _, ranged in tables.COLUMNS
            )
            n = f"<td>{row['n']:,}</td>" + (f"<td>{row['documents']:,}</td>" if sources else "")
            body.append(f'<tr><th scope="row">{escape(label)}</th>{n}{cells}</tr>')
        head = f"<tr>{layout.heads(['model', figures.unit(part), *sources, *names])}</tr>"
        parts.append(f"<h3>{escape(part)}</h3>")
        parts.append(layout.table(head, body, f"Results on {part}", "stacked"))
        how = {row["intervals"] for row in here.values() if "intervals" in row}
        parts += [note(f"Intervals: {text}.") for text in sorted(how)]
    return "\n".join([*parts, *map(note, tables.low_mass(rows)), note(tables.NOTE)])


def _sources(part: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The header of what rows may share, where that says more than their number."""
    if part == "facts" and any(row["documents"] != row["n"] for row in rows):
        return ["sources"]
    return ["documents"] if part == "text" else []


def _diagrams(panels: Panels, em: Mapping[str, Any]) -> str:
    signs = legend(
        [
            (swatch("fill", "var(--f-shade4)"), "accuracy in the bin"),
            (swatch("over"), "gap: over-confident"),
            (swatch("under"), "gap: under-confident"),
            (swatch("whisker"), "95% interval (Wilson)"),
            (swatch("dashed", "var(--f-ink)"), "perfect calibration"),
            (swatch("line", "var(--f-ink)"), "beneath: accuracy overall"),
            (swatch("dashed", "var(--f-vermilion)"), "beneath: mean confidence"),
        ]
    )
    parts = [signs]
    for i, (part, by_label) in enumerate(panels.items()):
        chosen = figures.spread(list(by_label))
        norm = reliability.shade_norm(by_label[label].bins for label in chosen)
        drawn = []
        for j, label in enumerate(chosen):
            text = reliability.about(by_label[label].row).replace("\n", " · ")
            drawn.append(
                layout.figure(
                    reliability.draw_panel(by_label[label], norm), f"reliability-{i}-{j}",
                    f"Reliability diagram of {part}, {label}: {text}", label, text,
                )
            )  # fmt: skip
        parts += [f"<h3>{escape(part)}</h3>", layout.panels(drawn)]
        text = f"Darkest: {100 * norm.vmax:.0f}% of the {figures.unit(part)} in one bin."
        if len(chosen) < len(by_label):
            text += f" {len(chosen)} of {len(by_label)} models; figures/ holds all."
        parts.append(note(text))
    bins = f"{em['num_bins']} bins, closed on the {em['edges']}. The interval of a bin takes its "
    return "\n".join([*parts, note(bins + "rows for independent.")])


def _groups(part: str, rows: figures.Rows) -> str:
    """A table that can be sorted: accuracy, confidence and error of every group and model."""
    having = [label for label, by_part in rows.items() if by_part.get(part, {}).get("groups")]
    many = len(having) > layout.MAX_FIGURE_STATES
    chosen = figures.spread(having)
    found = {
        label: {group["group"]: group for group in rows[label][part]["groups"]} for label in chosen
    }
    keys = _GROUP_KEYS if not many else [entry for entry in _GROUP_KEYS if entry[0] == "conf_ece"]
    head = f'<th scope="col" data-type="text">{"relation" if part == "facts" else "subject"}</th>'
    head += f'<th scope="col" data-type="number">{figures.unit(part)}</th>'
    for _, name in keys:
        for label in chosen:
            text = name if len(chosen) == 1 else f"{name}, {label}"
            head += f'<th scope="col" data-type="number">{escape(text)}</th>'
    body = []
    for name in sorted({name for by_name in found.values() for name in by_name}):
        sizes = [by_name[name]["n"] for by_name in found.values() if name in by_name]
        # Tokenizers that differ may leave out different facts.
        size = f"{max(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,}–{max(sizes):,}"
        cells = f'<td data-v="{max(sizes)}">{size}</td>'
        for key, _ in keys:
            for label in chosen:
                value = found[label].get(name, {}).get(key)
                data = "" if value is None else f"{value:.6g}"
                cells += f'<td data-v="{data}">{content.number(value)}</td>'
        body.append(f'<tr><th scope="row">{escape(name or "(none)")}</th>{cells}</tr>')
    text = "Press a header to sort. Few rows make a large conf-ECE by chance alone."
    if many:
        shown = f"{len(chosen)} of {len(having)} models, " if len(chosen) < len(having) else ""
        text += f" Shown: {shown}conf-ECE alone; tables/{part}_by_group.csv holds all."
    kind = "sortable stacked"
    return layout.table(f"<tr>{head}</tr>", body, part, kind, len(body) > 20) + note(text)
