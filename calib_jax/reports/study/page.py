"""The study's report.html: what was compared, Table 1, every change with its interval, figures."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import content
from calib_jax.reports.atomic import write_text
from calib_jax.reports.page import layout
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import escape, facts, note
from calib_jax.reports.study import figures, table, wording
from calib_jax.reports.study.changes import METRICS, Cell, Cells, column, methods_of, tasks_of

# A table of more rows scrolls within itself.
_TALL = 30
_AXES = "Axes whose ratios exceed 100% are linear up to 10% and logarithmic beyond."
_WHISKERS = (
    " Lines through marks: 95% intervals, where each line of a figure is one pair on one task."
)


def render(
    summary: Mapping[str, Any],
    cells: Cells,
    published: Cells | None = None,
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """The study as one HTML document that takes nothing from outside.

    Args:
      summary: what summary.json holds.
      cells: the measured changes, with ranks; {} where there are published ones only.
      published: changes read from files of the authors' layout.
      config: the resolved configuration.
      command: the shell command that runs this again.
    """
    sections = []
    if cells:
        compared = facts(summary.get("compared", {}))
        said = (*summary.get("not_used", ()), *summary.get("low_mass", ()))
        sections.append(("What was compared", "\n".join([compared, *map(note, said)])))
        if len(cells) > 1:
            sections.append(("Ranking", _rankings(cells, "ranking")))
        sections.append(("Changes", _changes(cells)))
        sections.append(("Figures", _figures(cells, "measured")))
    if published:
        sections.append(
            ("Published figures", _published(published, cells, summary.get("published_files")))
        )
    if summary.get("data"):
        sections.append(("Data", facts(summary["data"])))
    sections.append(("How to get this again", again(summary, config, command)))
    shown = cells or published or {}
    kicker = f"{len(shown)} pair(s) · {', '.join(tasks_of(shown))} · {', '.join(methods_of(shown))}"
    files = None if cells else summary.get("published_files")
    said = wording.headline(shown, files)
    return document("What alignment changes in calibration", kicker, [said], sections)


def write(path: str | os.PathLike, *args: Any, **options: Any) -> None:
    """Writes `render(...)` to `path`, atomically."""
    write_text(path, render(*args, **options))


def _rankings(cells: Cells, name: str, metrics: Sequence[str] = table.RANKED) -> str:
    """Table 1: for every method, by every form of the error."""
    parts = []
    for method in methods_of(cells):
        parts.append(f"<h3>{escape(method)}</h3>")
        for metric in metrics:
            if not column(cells, method, metric):
                continue
            header, lines = table.ranking_rows(table.ranking(cells, method, metric))
            rows = [
                f'<tr><th scope="row">{line[0]}</th>'
                + "".join(f'<td class="text">{escape(text)}</td>' for text in line[1:])
                + "</tr>"
                for line in lines
            ]
            # A column of several tasks names one a line.
            head = "".join(
                f'<th scope="col" class="text">{escape(text).replace(", ", ",<br>")}</th>'
                for text in header
            )
            label = METRICS[metric][0]
            parts.append(note(f"by the change ratio of {label}, rank 1: the largest"))
            parts.append(layout.table(f"<tr>{head}</tr>", rows, f"{name}: {method}, {label}"))
    return "\n".join([*parts, *map(note, table.notes(cells))])


def _changes(cells: Cells) -> str:
    """Values before and after with their change, its interval and its ratio, a table per method."""
    parts = []
    metrics = table.metrics_in(cells)
    for method in methods_of(cells):
        rows = []
        for task in tasks_of(cells):
            for pair, by_task in cells.items():
                cell = by_task.get(task, {}).get(method)
                if cell is None:
                    continue
                texts = []
                for metric in metrics:
                    change = cell.changes[metric]
                    kind = wording.verdict(change, metric)
                    attribute = f' class="{kind}"' if kind else ""
                    texts.append(
                        f"<td{attribute}>"
                        f"{escape(wording.values_text(change))} "
                        f"<small>{escape(wording.difference_text(change, metric))}</small>"
                        f"<small>{wording.percent(change.ratio)}</small></td>"
                    )
                number = "" if cell.n is None else f"{cell.n:,}"
                rows.append(
                    f'<tr><th scope="row">{escape(task)}</th><td class="text">{escape(pair)}</td>'
                    f"<td>{number}</td>{''.join(texts)}</tr>"
                )
        head = (
            '<tr><th scope="col">task</th><th scope="col" class="text">pair</th>'
            + layout.heads(["n", *map(wording.label, metrics)])
            + "</tr>"
        )
        parts.append(f"<h3>{escape(method)}</h3>")
        parts.append(
            layout.table(head, rows, f"Changes by {method}", "stacked", tall=len(rows) > _TALL)
        )
        parts.append(note(wording.falls_text(cells, method) + "."))
    text = "Coloured and bold: the whole interval of the change lies on one side of 0."
    return "\n".join(
        [*parts, *map(note, table.notes(cells)), note(wording.caption(cells)), note(text)]
    )


def _figures(cells: Cells, name: str) -> str:
    """Figures 1 and 2."""
    said = wording.headline(cells)
    every = [c for m in methods_of(cells) for c in column(cells, m, "conf_ece").values()]
    known = any(change.interval is not None for change in every)
    ratios = [
        f"{METRICS[metric][0]}, {method}: {content.number(_median(cells, method, metric), True)}"
        for method in methods_of(cells)
        for metric in ("conf_ece", wording.sce_of(cells, method))
    ]
    return "\n".join(
        [
            layout.figure(
                figures.figure1(cells), f"{name}-1",
                f"Changes of ECE and SCE by model and task, read by {figures.reading_of(cells)}, "
                f"and change ratios by method. {said}.",
                wide=True,
            ),
            layout.figure(
                figures.figure2(cells), f"{name}-2",
                f"Change ratios of ECE and SCE, a panel per method. Medians: {'; '.join(ratios)}.",
                wide=True,
            ),
            note(
                f"Changes by model and task are read by {figures.reading_of(cells)}. {_AXES}"
                + (_WHISKERS if known else "")
            ),
        ]
    )  # fmt: skip


def _median(cells: Cells, method: str, metric: str) -> float:
    """The median ratio; NaN where there is none."""
    ratios = sorted(c.ratio for c in column(cells, method, metric).values() if c.ratio == c.ratio)
    return ratios[len(ratios) // 2] if ratios else float("nan")


def _published(cells: Cells, measured: Cells, files: Mapping[str, str] | None) -> str:
    """What files of the authors' layout hold: Table 1 and the figures from their numbers."""
    parts = [note(f"{wording.published_text(files)}.")] if files else []
    metrics = table.metrics_in(cells)
    if "sce_ovr" in metrics:
        parts.append(
            note(
                "What Oh and Hwang (2024) call SCE fits the one-vs-rest form, not the class-wise "
                "ECE, and is compared with that."
            )
        )
    parts.append(_beside(cells, measured))
    parts.append(_rankings(cells, "published", [m for m in table.RANKED[:2] if m in metrics]))
    parts.append(_figures(cells, "published"))
    return "\n".join(
        [*parts, *(note(wording.falls_text(cells, m) + ".") for m in methods_of(cells))]
    )


def _beside(published: Cells, measured: Cells) -> str:
    """Measured and published changes of pairs, tasks and methods that have the same names."""
    metrics = [m for m in table.metrics_in(published) if m in table.metrics_in(measured)]
    rows = []
    for method in methods_of(measured):
        for task in tasks_of(measured):
            for pair, by_task in measured.items():
                ours = by_task.get(task, {}).get(method)
                theirs = published.get(pair, {}).get(task, {}).get(method)
                if ours is None or theirs is None:
                    continue
                texts = [
                    f"<td>{escape(wording.change_text(ours.changes[m], m))} "
                    f"<small>{escape(_change_text(theirs, m))}</small></td>"
                    for m in metrics
                ]
                rows.append(
                    f'<tr><th scope="row">{escape(task)}</th><td class="text">{escape(pair)}</td>'
                    f'<td class="text">{escape(method)}</td>{"".join(texts)}</tr>'
                )
    if not rows:
        return ""
    names = "".join(f'<th scope="col" class="text">{n}</th>' for n in ("task", "pair", "method"))
    head = f"<tr>{names}{layout.heads([wording.label(m) for m in metrics])}</tr>"
    body = layout.table(head, rows, "Measured and published", "stacked", tall=len(rows) > _TALL)
    return f"<h3>Measured, and published beneath</h3>{body}"


def _change_text(cell: Cell, metric: str) -> str:
    """A published change, "" where its file has another form of the metric."""
    change = cell.changes.get(metric)
    return wording.change_text(change, metric) if change else ""
