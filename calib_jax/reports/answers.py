"""The table of the job "generate": what was answered, how long, how fast."""

from collections.abc import Mapping
from typing import Any

import rich.box
import rich.console
import rich.table

from calib_jax.reports.table import standard_console


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a summary.json of the job "generate"."""
    console = standard_console(console)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_header=False, show_edge=False)
    sampling, speed = summary["sampling"], summary["speed"]
    how = "greedy"
    if sampling["temperature"]:
        how = f"temperature {sampling['temperature']:g}"
        how += f", top-k {sampling['top_k']}" if sampling["top_k"] else ""
        how += f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""

    def rate(key: str) -> str:
        value = speed[key]
        return "-" if value is None else f"{value:,.1f}"

    cut = summary["truncated"]
    rows = [
        ("model", summary["generator"]),
        ("answers", f"{summary['prompts']:,} ({how}), {summary['format']}: {summary['file']}"),
        (
            "length",
            f"{summary['mean_answer_tokens']:.1f} tokens, "
            f"{summary['mean_answer_characters']:.0f} characters on average",
        ),
        ("cut at the limit", f"{cut:,} ({cut / summary['prompts']:.1%})"),
        ("empty", f"{summary['empty']:,}"),
        (
            "tokens/s",
            f"prompts {rate('prefill_tokens_per_s')}, answers {rate('decode_tokens_per_s')} "
            f"(batches of {speed['batch_size']}, compilation aside)",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
