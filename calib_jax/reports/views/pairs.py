"""Preference pairs: tables of what models make of the chosen and the rejected answers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import catalogue
from calib_jax.reports.tables import Table
from calib_jax.reports.views.series import Part, Rows

CAPTION = (
    "Brackets: 95% bootstrap intervals over pairs (shares: Wilson's) or documents; changes are "
    "paired over the same ones."
)
RATIO = (
    "Policy ratio: pi(chosen) / (pi(chosen) + pi(rejected)); beyond the preference rate it is "
    "preference collapse. Per token: that of the tokens' geometric mean probabilities, since of "
    "long answers nearly every ratio is 0 or 1."
)
_ACCURACY = (
    "Accuracy: the chosen answer has the higher log-probability, summed over its tokens or as "
    "their mean; a tie counts as wrong."
)
_SETS = {
    "held_out": "held-out preference pairs",
    "training": "preference pairs that were trained on",
}
CHANGES = ("change from before", "{} − before")


def part(name: str, rows: Rows, changes: Rows, beta: float, title: str) -> Part:
    """The models' figures of one set of pairs, with every note that they need.

    Args:
      name: of the set.
      rows: model -> figures.
      changes: model -> paired differences from the first.
      beta: of DPO's rewards.
      title: above the table.
    """
    notes = [_ACCURACY, RATIO]
    if any("mean_reward_margin" in row for row in rows.values()):
        notes.append(
            "Reward margin: DPO's, beta times the change of the margin from the model before; "
            f"beta = {beta:g}."
        )
    return Part(name, rows, catalogue.PAIRS, changes, title, tuple(notes))


def preferences_tables(preferences: Mapping[str, Any]) -> list[Table]:
    """The pairs before and after a training by SFT or DPO: a table per set, notes once.

    Args:
      preferences: the key of that name of the job ``align``'s summary: set -> "pairs", "change",
        "beta".
    """
    found = []
    for i, (name, one) in enumerate(preferences.items(), 1):
        rows, changes = one["pairs"], one["change"]["pairs"]
        title = f"{_SETS.get(name, name)} ({rows['before']['n']:,})"
        shown = part(name, rows, changes, one["beta"], title)
        if i < len(preferences):
            shown = dataclasses.replace(shown, notes=())
        found += shown.tables(*CHANGES)
    return found
