"""What a run would take on its hardware."""

from collections.abc import Mapping
from typing import Any

from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, Text, View


def console(summary: Mapping[str, Any]) -> list[Block]:
    """Memory, operations, communication and time of each step."""
    mesh = " x ".join(f"{name} {size}" for name, size in summary["mesh"].items())
    steps = {name: summary[key] for name, key in (("E-step", "e_step"), ("M-step", "m_step"))}
    rows = (
        Row(
            (Cell(label.strip()), *(Cell(cell(step)) for step in steps.values())),
            "inset" if label.startswith(" ") else "",
        )
        for label, cell in _ROWS
    )
    title = (
        f"{summary['model']}, {summary['method']} ({summary['training']}), "
        f"{summary['attention']} attention, compiled for {summary['topology']}: {mesh}"
    )
    columns = (Column("", text=True), *map(Column, steps))
    fits = "fits" if summary["fits"] else "does not fit"
    limit = f"{summary['hbm_limit_gib']:.2f}"
    said = [f"{summary['hbm_gib_per_chip']:.2f} of {limit} GiB a chip: {fits}."]
    if largest := summary["max_batch"]:
        sure = "compiled" if summary["max_batch_compiled"] else "estimated, and not compiled"
        said.append(f"Largest batch of the M-step that fits: {largest} questions ({sure}).")
    else:
        said.append("No batch of the M-step fits.")
    said += [f"Note: {text}" for text in summary["notes"]]
    return [Table("plan", columns, tuple(rows), title), *map(Text, said)]


def view(summary: Mapping[str, Any]) -> View:
    """The table on the console."""
    return View("Plan", "plan", (), console(summary))


def _gib(key: str) -> Any:
    return lambda step: "–" if step[key] is None else f"{step[key]:.2f}"


def _collectives(step: Mapping[str, Any]) -> str:
    if step["collectives"] is None:
        return "–"
    return "\n".join(
        f"{kind}: {c['count']:,.0f}, {c['gib']:.2f} GiB" for kind, c in step["collectives"].items()
    )


def _number(key: str, unit: float, form: str) -> Any:
    return lambda step: "–" if step[key] is None else format(step[key] / unit, form)


_ROWS = (
    ("rows x tokens", lambda step: f"{step['rows']} x {step['length']}"),
    ("GiB a chip: weights, state, batch", _gib("arguments_gib")),
    ("  temporaries", _gib("temporaries_gib")),
    ("  in all", _gib("hbm_gib_per_chip")),
    ("  headroom", _gib("headroom_gib")),
    ("TFLOP, all chips", _number("flops", 1e12, ",.1f")),
    ("  of attention kernels", _number("kernel_flops", 1e12, ",.1f")),
    ("  the model's ideal", _number("ideal_flops", 1e12, ",.1f")),
    ("  ratio", _number("flops_ratio", 1, ".3f")),
    ("collectives, a chip", _collectives),
    ("GiB sent, a chip", _gib("sent_gib")),
    ("GiB of HBM traffic, a chip", _gib("hbm_traffic_gib")),
    ("seconds at best", _number("seconds", 1, ".3f")),
    ("  bound by", lambda step: step["bound"] or "–"),
    ("tokens/s at best", _number("tokens_per_second", 1, ",.0f")),
)
