"""The page's table of classes."""

from calib_jax.reports import content
from calib_jax.reports.page import layout
from calib_jax.reports.page.layout import States, escape, note

_COLUMNS = (
    ("n", "right answer of"),
    ("chosen", "chosen for"),
    ("recall", "recall"),
    ("precision", "precision"),
    ("share", "share of the answers"),
    ("mean_probability", "mean probability"),
    ("ece", "class ECE"),
)


def tables(states: States) -> str:
    """Per split and state a table with a row per class, which the reader can sort."""
    parts = []
    for split in content.ordered_splits(states):
        for state, rows in states.items():
            found = rows.get(split, {}).get("by_class")
            if not found:
                continue
            body = []
            for row in found:
                cells = [f'<th scope="row">{escape(row["class"])}</th>']
                for key, _ in _COLUMNS:
                    value = row[key]
                    whole = isinstance(value, int)
                    text = f"{value:,}" if whole else content.number(value)
                    order = "" if value is None else f"{value:.6g}"
                    cells.append(f'<td data-v="{order}">{text}</td>')
                body.append(f"<tr>{''.join(cells)}</tr>")
            names = [("text", "class"), *(("number", name) for _, name in _COLUMNS)]
            head = "".join(
                f'<th scope="col" data-type="{kind}">{escape(name)}</th>' for kind, name in names
            )
            label = f"Classes of {split}, {state}"
            parts.append(f"<h3>{escape(f'{split}, {state}: {len(found):,} classes')}</h3>")
            parts.append(
                layout.table(f"<tr>{head}</tr>", body, label, "sortable stacked", len(body) > 20)
            )
    parts.append(
        note(
            "Press a header to sort. A class whose mean probability is above its share of the "
            "answers is given too much. Class ECE: the error of its probabilities, in bins; the "
            "mean over the classes is the cw-ECE."
        )
    )
    return "\n".join(parts)
