"""Answer files in the layouts that AlpacaEval's and Arena-Hard's judges read."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calib_jax.atomic import write_text
from calib_jax.errors import UserError
from calib_jax.generation.prompts import Prompt

FORMATS = ("alpaca_eval", "arena_hard", "jsonl")
_CODE = re.compile(r"```[^`]*```")


def check_layout(layout: str, prompts: Sequence[Prompt], name: str) -> None:
    """Raises UserError where prompts or name do not fit the layout.

    Args:
      layout: one of FORMATS.
      prompts: to be answered.
      name: what the file calls the model.
    """
    if layout not in FORMATS:
        raise UserError(f"config.generate.format is {layout!r}; choose from: {', '.join(FORMATS)}.")
    if not name or "/" in name or name.startswith("."):
        raise UserError(
            f"config.generate.name is {name!r}; the judges take the file's name for the model's, "
            "so it must not be empty, begin with a dot or hold a slash."
        )
    for prompt in prompts if layout != "jsonl" else ():
        if sum(message["role"] != "system" for message in prompt.messages) > 1:
            raise UserError(
                f"prompt {prompt.id!r} is a conversation of several turns, and {layout} judges one "
                "instruction with one answer. Set --config.generate.format=jsonl."
            )
    if layout == "arena_hard":
        for prompt in prompts:
            if "uid" not in prompt.row and "question_id" not in prompt.row:
                raise UserError(
                    f"prompt {prompt.id!r} has neither uid (Arena-Hard v2.0) nor question_id "
                    "(v0.1), by which its judge finds the answer. Give the benchmark's "
                    "question.jsonl, or another config.generate.format."
                )


def write_answers(
    workdir: Path,
    layout: str,
    name: str,
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    sizes: Sequence[int],
    stopped: Sequence[bool],
) -> Path:
    """Writes the answer file and returns where it is.

    alpaca_eval: ``<name>.json``, a list for ``--model_outputs``. arena_hard:
    ``model_answer/<name>.jsonl``, for data/<bench>/model_answer; rows with a ``uid`` as v2.0 has
    them, with a ``question_id`` alone as v0.1. jsonl: ``<name>.jsonl``.

    Args:
      workdir: the run's folder.
      layout, name: see ``check_layout``.
      prompts, texts: what was asked and answered.
      sizes: tokens of the answers, by the model's own tokenizer.
      stopped: whether an answer came to its end.
    """
    if layout == "alpaca_eval":
        rows = [_alpaca(prompt, text, name) for prompt, text in zip(prompts, texts, strict=True)]
        path = workdir / f"{name}.json"
        write_text(path, json.dumps(rows, ensure_ascii=False, indent=2) + "\n")
        return path
    rows = []
    for prompt, text, size, ended in zip(prompts, texts, sizes, stopped, strict=True):
        if layout == "arena_hard":
            rows.append(_arena(prompt, text, size, name))
        else:
            rows.append(
                {
                    "id": prompt.id,
                    "messages": list(prompt.messages),
                    "output": text,
                    "generator": name,
                    "tokens": size,
                    "stopped": ended,
                }
            )
    folder = workdir / "model_answer" if layout == "arena_hard" else workdir
    path = folder / f"{name}.jsonl"
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _alpaca(prompt: Prompt, text: str, name: str) -> dict[str, Any]:
    row = {"instruction": prompt.text, "output": text, "generator": name}
    if isinstance(prompt.row.get("dataset"), str):
        row["dataset"] = prompt.row["dataset"]
    return row


def _arena(prompt: Prompt, text: str, size: int, name: str) -> dict[str, Any]:
    identity = hashlib.sha256(json.dumps([name, prompt.id, text]).encode()).hexdigest()[:22]
    metadata = {"token_len": size, **markdown_counts(text)}
    if "uid" in prompt.row:
        return {
            "uid": prompt.row["uid"],
            "ans_id": identity,
            "model": name,
            "messages": [*prompt.messages, {"role": "assistant", "content": {"answer": text}}],
            "tstamp": time.time(),
            "metadata": metadata,
        }
    return {
        "question_id": prompt.row["question_id"],
        "answer_id": identity,
        "model_id": name,
        "choices": [{"index": 0, "turns": [{"content": text, "token_len": size}]}],
        "tstamp": time.time(),
        "conv_metadata": metadata,
    }


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """Headers, list items and bold passages outside code blocks: Arena-Hard's style features.

    >>> counts = markdown_counts("# A\\n- b\\n1. c **d**\\n")
    >>> counts["header_count"]["h1"], counts["list_count"], counts["bold_count"]["**"]
    (1, {'ordered': 1, 'unordered': 1}, 1)
    """
    text = _CODE.sub("", text)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, text, re.MULTILINE))

    return {
        "header_count": {f"h{n}": count(rf"^#{{{n}}}\s") for n in range(1, 7)},
        "list_count": {"ordered": count(r"^\s*\d+\.\s"), "unordered": count(r"^\s*[-*+]\s")},
        "bold_count": {"**": count(r"\*\*[^*\n]+\*\*"), "__": count(r"__[^_\n]+__")},
    }
