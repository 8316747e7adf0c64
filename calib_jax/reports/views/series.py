"""What the views of several models share: tables of what each said and changed, and its course.

The models are one before and others after (``alignment``), each after the one before (``stages``),
or in the order of an axis (``lifecycle``).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import verdicts
from calib_jax.reports.catalogue import Metric
from calib_jax.reports.tables import Table, as_csv, transposed
from calib_jax.reports.views import Text, note

Rows = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Part:
    """What every model was asked of one kind, and what it said.

    Attributes:
      name: a split, a set of preference pairs, or "text".
      rows: model -> figures, in order.
      metrics: those that the tables show.
      changes: model -> paired differences from an earlier one.
      title: above the table.
      notes: beneath it.
    """

    name: str
    rows: Rows
    metrics: Sequence[Metric]
    changes: Rows = dataclasses.field(default_factory=dict)
    title: str = ""
    notes: tuple[str, ...] = ()

    def tables(self, title: str, column: str) -> list[Table]:
        """A column per model; a single change stands beside them, several have a table beneath.

        Args:
          title: what the table of changes shows, such as "change from before".
          column: the name of a change's column, with "{}" for its model.
        """
        changes = {column.format(model): row for model, row in self.changes.items()}
        beside = changes if len(changes) == 1 else {}
        found = [
            transposed(
                self.name, self.rows, self.metrics, beside, title=self.title, notes=self.notes
            )
        ]
        if len(changes) > 1:
            title = f"{self.name}: {title}"
            found.append(transposed(title, {}, self.metrics, changes, title=title))
        return found

    def course(self, key: str, name: str, arrow: str = " → ", after: str = "") -> str:
        """A metric of every model with the verdict on its change, as a sentence.

        Args:
          key: of the metric.
          name: what the sentence calls it.
          arrow, after: as in ``verdicts.course``.
        """
        metric = next(metric for metric in self.metrics if metric.key == key)
        known = {
            model: verdicts.of_change(
                row.get(f"{metric.change_key}_ci"), float(metric.factor), not metric.factor
            )
            for model, row in self.changes.items()
        }
        values = {model: row[key] for model, row in self.rows.items()}
        return verdicts.course(name, values, known, arrow, after)


def changes_csv(parts: Sequence[Part], model: str) -> str:
    """A line per part, model and metric: value, change, and the ends of their intervals.

    Args:
      parts: in order.
      model: what the column of the models is called.
    """
    lines = []
    for part in parts:
        for name, row in part.rows.items():
            change = part.changes.get(name, {})
            for metric in part.metrics:
                if metric.key in row:
                    key, moved = metric.key, metric.change_key
                    ends = row.get(f"{key}_ci") or (None, None)
                    moved_ends = change.get(f"{moved}_ci") or (None, None)
                    lines.append(
                        [part.name, name, key, row[key], *ends, change.get(moved), *moved_ends]
                    )
    heads = ["value", "low", "high", "change", "change_low", "change_high"]
    return as_csv(["part", model, "figure", *heads], lines)


def legend(caption: str) -> Text:
    """What the page says beneath its tables."""
    return note(
        f"↓ lower is better, ↑ higher is better. {caption} Coloured: the whole interval lies on "
        "one side of no change, each change on its own: one in twenty is coloured where nothing "
        "changes."
    )
