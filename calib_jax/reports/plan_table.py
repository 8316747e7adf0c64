"""The result of the job ``plan`` on the console."""

from collections.abc import Mapping
from typing import Any

import rich.box
import rich.console
import rich.table

from calib_jax.reports.table import standard_console


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a plan's ``summary.json``: memory, operations, communication and time of each step."""
    console = standard_console(console)
    mesh = " x ".join(f"{name} {size}" for name, size in summary["mesh"].items())
    console.print(
        f"\n{summary['model']}, {summary['method']} ({summary['training']}), "
        f"{summary['attention']} attention, compiled for {summary['topology']}: {mesh}"
    )
    steps = {name: summary[key] for name, key in (("E-step", "e_step"), ("M-step", "m_step"))}
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("", no_wrap=True)
    for name in steps:
        table.add_column(name, justify="right", no_wrap=True)
    for label, cell in _ROWS:
        table.add_row(label, *(cell(step) for step in steps.values()))
    console.print(table)
    fits = "fits" if summary["fits"] else "does not fit"
    console.print(
        f"{summary['hbm_gib_per_chip']:.2f} of {summary['hbm_limit_gib']:.2f} GiB a chip: {fits}."
    )
    largest = summary["max_batch"]
    if largest:
        sure = "compiled" if summary["max_batch_compiled"] else "estimated, and not compiled"
        console.print(f"Largest batch of the M-step that fits: {largest} questions ({sure}).")
    else:
        console.print("No batch of the M-step fits.")
    for note in summary["notes"]:
        console.print(f"Note: {note}")


def _gib(key: str) -> Any:
    return lambda step: "-" if step[key] is None else f"{step[key]:.2f}"


def _collectives(step: Mapping[str, Any]) -> str:
    if step["collectives"] is None:
        return "-"
    return "\n".join(
        f"{kind}: {c['count']:,.0f}, {c['gib']:.2f} GiB" for kind, c in step["collectives"].items()
    )


def _number(key: str, unit: float, form: str) -> Any:
    return lambda step: "-" if step[key] is None else format(step[key] / unit, form)


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
    ("  bound by", lambda step: step["bound"] or "-"),
    ("tokens/s at best", _number("tokens_per_second", 1, ",.0f")),
)
