"""Free answers: how well each way of reading a confidence tells the right ones from the wrong."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue, remarks, tables
from calib_jax.reports import states as of
from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, Section, View, measurement, note, said
from calib_jax.reports.words import sentence

_SHOWN = tuple(
    catalogue.get(key)
    for key in "mean_confidence conf_ece conf_ece_null_q95 brier nll auroc aurc".split()
)


def table(summary: Mapping[str, Any]) -> Table:
    """A row per reading with the figures of its confidence."""
    states = of.states_of(summary)
    (split,) = of.ordered_splits(states)
    rows = {name: by_split[split] for name, by_split in states.items()}
    first = next(iter(rows.values()))
    columns = (
        Column("confidence", text=True),
        *(Column(metric.brief, direction=metric.direction) for metric in _SHOWN),
    )
    notes = [remarks.uniform(first), remarks.gold(first), *remarks.zero_notes(rows)]
    return Table(
        "answers",
        columns,
        tuple(
            Row((Cell(name.replace("_", " ")), *(tables.figure(row, m) for m in _SHOWN)))
            for name, row in rows.items()
        ),
        f"{split} ({remarks.size(first)})",
        tuple(map(sentence, notes)),
    )


def _counts(summary: Mapping[str, Any]) -> str:
    data = summary["data"]
    text = f"{data['answered']:,} of {data['asked']:,} questions have an answer that is not empty"
    if cut := data["cut_at_max_new_tokens"]:
        text += f"; {cut:,} of them were cut at {data['max_new_tokens']} tokens"
    return text


def console(summary: Mapping[str, Any]) -> list[Block]:
    """The result in sentences, and the table."""
    lines = [*measurement.sentences(summary), _counts(summary)]
    return [*said(lines), table(summary), note(remarks.INTERVALS)]


def view(summary: Mapping[str, Any], scores: Mapping[str, Mapping[str, Scores]], **options) -> View:
    """What is shown of measured splits, with the table of readings before it.

    Args:
      summary, scores, **options: as in ``measurement.view``.
    """
    found = [table(summary)]
    whole = measurement.view(summary, scores, **options)
    return dataclasses.replace(
        whole,
        title="What the model knows of its own answers",
        console=console(summary),
        sections=[Section("Confidences of free answers", found), *whole.sections],
        files={**whole.files, **tables.files("tables/answers", found, "Free answers.")},
    )
