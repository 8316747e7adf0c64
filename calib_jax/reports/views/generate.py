"""What was answered, how long, how fast."""

from collections.abc import Mapping
from typing import Any

from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, View


def console(summary: Mapping[str, Any]) -> list[Block]:
    """One table of what there is to say of the answers."""
    sampling, speed = summary["sampling"], summary["speed"]
    how = "greedy"
    if sampling["temperature"]:
        how = f"temperature {sampling['temperature']:g}"
        how += f", top-k {sampling['top_k']}" if sampling["top_k"] else ""
        how += f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else ""

    def rate(key: str) -> str:
        return "–" if speed[key] is None else f"{speed[key]:,.1f}"

    cut = summary["truncated"]
    said = {
        "model": summary["generator"],
        "answers": f"{summary['prompts']:,} ({how}), {summary['format']}: {summary['file']}",
        "length": f"{summary['mean_answer_tokens']:.1f} tokens, "
        f"{summary['mean_answer_characters']:.0f} characters on average",
        "cut at the limit": f"{cut:,} ({cut / summary['prompts']:.1%})",
        "empty": f"{summary['empty']:,}",
        "tokens/s": f"prompts {rate('prefill_tokens_per_s')}, answers "
        f"{rate('decode_tokens_per_s')} (batches of {speed['batch_size']}, compilation aside)",
    }
    rows = tuple(Row((Cell(name), Cell(text))) for name, text in said.items())
    return [Table("answers", (Column("", text=True), Column("", text=True)), rows)]


def view(summary: Mapping[str, Any]) -> View:
    """The table on the console."""
    return View("Answers", "generate", (), console(summary))
