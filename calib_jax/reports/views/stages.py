"""Calibration and preference collapse after every stage of alignment."""

import functools
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import catalogue, headline, tables, verdicts
from calib_jax.reports.stages import figures
from calib_jax.reports.tables import Table
from calib_jax.reports.views import Block, Facts, Picture, Section, View, note, said, series, splits
from calib_jax.reports.views.pairs import RATIO
from calib_jax.reports.views.series import Part
from calib_jax.reports.words import DOMAINS, plural

CAPTION = (
    "Brackets: 95% bootstrap intervals over questions or pairs (shares: Wilson's); those of "
    "calibration errors allow for their bias, and include 0 where chance alone would explain the "
    "error. By chance: the conf-ECE that a perfectly calibrated model exceeds in one sample of 20. "
    f"{RATIO} A change is from the stage before, paired."
)
_CHANGES = ("changed by each stage", "by {}")


def parts(summary: Mapping[str, Any]) -> list[Part]:
    """Every split, those that are drawn together first, then every set of pairs."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, by_split in summary["letters"].items():
        for split, row in by_split.items():
            rows.setdefault(split, {})[stage] = row
    found = []
    for name, by_stage in (rows | summary["pairs"]).items():
        of_pairs = name in summary["pairs"]
        first = next(iter(by_stage.values()))
        # A summary of an earlier version does not tell what was pooled.
        whole = summary.get("drawn", {}).get(name, {}).get("splits", [name])
        pooled = len(whole) > 1
        about = plural(first["n"], "pair" if of_pairs else "question")
        if (domain := DOMAINS.get(first.get("domain"))) and not pooled:
            about = f"{domain}, {about}"
        title = f"{name}: {' + '.join(whole)}" if pooled else name
        found.append(
            Part(
                name,
                by_stage,
                catalogue.at(catalogue.STAGES, catalogue.PAIRS if of_pairs else None),
                {s: moved[name] for s, moved in summary["change"].items() if name in moved},
                f"{title} ({about})",
            )
        )
    return found


def tables_of(summary: Mapping[str, Any]) -> list[Table]:
    """Per split and set of pairs every stage's figures, and what each stage has changed."""
    found = []
    for part in parts(summary):
        table, *changes = part.tables(*_CHANGES)
        if part.name not in summary["pairs"]:
            table = splits.with_most_chosen(table, part.rows)
        found += [table, *changes]
    return found


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """How sure and how often right every stage is, and chance; then the course of the number.

    "conf-ECE on arc: 0.410 (start) → 0.050 (sft, significantly lower: by [...]) → ...".
    """
    found = []
    for part in parts(summary):
        name = part.name.replace("_", " ")
        if part.name in summary["pairs"]:
            found.append(part.course("mean_ratio", f"policy ratio of {name}"))
        # A summary of an earlier version does not tell what was pooled.
        elif part.name in summary.get("drawn", {part.name: None}):
            *_, last = part.rows.values()
            if told := headline.lead(name, part.rows):
                found.append(". ".join(told))
            chance = verdicts.of_chance(last)
            found.append(part.course("conf_ece", f"conf-ECE on {name}", after=chance))
    return found


def console(summary: Mapping[str, Any]) -> list[Block]:
    """Sentences, tables, and what brackets mean."""
    return [*said(sentences(summary)), *tables_of(summary), note(CAPTION)]


def view(summary: Mapping[str, Any], panels: figures.Panels) -> View:
    """The figure, the tables, and what was done at every stage.

    Args:
      summary: what summary.json holds.
      panels: drawn split -> stage -> what its reliability diagram shows.
    """
    texts, found = sentences(summary), tables_of(summary)
    draw = functools.partial(
        figures.draw, panels, summary["pairs"], figures.headings(summary["drawn"])
    )
    about = "Reliability diagrams of every stage, and figures across the stages."
    label = " ".join([about, *(f"{text}." for text in texts)])
    return View(
        title="Calibration after every stage",
        kicker=f"stages · {' → '.join(summary['stages'])}",
        said=texts,
        console=console(summary),
        sections=[
            Section("Figure", [Picture(draw, "stages", label, wide=True)]),
            Section("Results", [*found, series.legend(CAPTION)]),
            Section("Stages", [Facts(summary["stages"])]),
            Section("Data", [Facts(summary["data"])]),
        ],
        files={
            **tables.files("tables/stages", found, CAPTION),
            "tables/stages.csv": series.changes_csv(parts(summary), "stage"),
        },
        figures={"figures/stages": draw},
    )
