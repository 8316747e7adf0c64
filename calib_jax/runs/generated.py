"""Generated answers, kept on disk as they come: a run that was stopped continues where it was."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from calib_jax.generation import Answer, Generator
from calib_jax.reports import Progress
from calib_jax.runs.journal import Journal
from calib_jax.runs.run import say
from calib_jax.training.interrupt import StopRequest


def fingerprint(names: Sequence[str], prompts: Sequence[np.ndarray]) -> str:
    """sha256 over names and tokens of all prompts."""
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for tokens in prompts:
        digest.update(f"{len(tokens)};".encode() + np.asarray(tokens, "<i4").tobytes())
    return digest.hexdigest()


def answer_with_journal(
    generator: Generator,
    prompts: Sequence[np.ndarray],
    names: Sequence[str],
    path: Path,
    header: dict[str, Any],
    stop: StopRequest,
    title: str = "answers",
) -> tuple[list[Answer], int]:
    """All answers in order on process 0 ([] on others): those of the journal, and the rest; and
    how many the journal held."""
    book = None
    if jax.process_index() == 0:
        book = Journal(path, header, _encode, _decode)
        if book.replaced:
            say(f"{path} is of other prompts, settings or weights, and is started anew.")
        if book.done:
            say(f"{path} holds {len(book.done)} of {len(names)} answers; continuing from there.")
    done = np.array([book is not None and name in book.done for name in names], np.bool_)
    if jax.process_count() > 1:
        done = np.asarray(multihost_utils.broadcast_one_to_all(done))
    left = np.flatnonzero(~done).tolist()
    found = dict(book.done) if book else {}
    try:
        with Progress(len(names), title, unit="answers", initial=int(done.sum())) as bar:

            def on_answer(i: int, answer: Answer) -> None:
                if book:
                    found[names[left[i]]] = answer
                    book.write(names[left[i]], answer)
                bar.update(1)

            generator.generate(
                [prompts[i] for i in left], [names[i] for i in left], on_answer, stop.check
            )
    finally:
        if book:
            book.close()
    return ([found[name] for name in names] if book else []), int(done.sum())


def _encode(key: str, answer: Answer) -> bytes:
    entry = {"key": key, "tokens": list(answer.tokens), "stopped": answer.stopped}
    return json.dumps(entry).encode() + b"\n"


def _decode(line: bytes) -> tuple[str, Answer] | None:
    try:
        entry: Any = json.loads(line) if line.endswith(b"\n") else None
        return entry["key"], Answer(tuple(entry["tokens"]), bool(entry["stopped"]))
    except (ValueError, TypeError, KeyError):
        return None
