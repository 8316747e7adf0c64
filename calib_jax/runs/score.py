"""The one loop that asks a model: probes in, observations out, what is done kept on disk."""

import contextlib
import dataclasses
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from calib_jax.atomic import write_text
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.models.model import Model, open_checkpoint
from calib_jax.reports import Progress, result
from calib_jax.runs import journal, subjects
from calib_jax.runs.probe import Asked, Probe
from calib_jax.runs.run import agreed, say, settle
from calib_jax.runs.subjects import Subject


def engine_of(
    config: ml_collections.ConfigDict, model: Model, top_tokens: bool = False, states: bool = False
) -> Engine:
    """The engine with the config's batches."""
    batch = config.batch
    return Engine(
        model,
        token_budget=batch.token_budget,
        max_shapes=batch.max_buckets,
        length_multiple=batch.length_multiple,
        top_tokens=top_tokens,
        states=states,
    )


def paths_of(probes: Sequence[Probe], folder: Path) -> dict[str, Path]:
    """Name of a file -> its path, of all that the probes leave in a model's folder."""
    names = [name for probe in probes for name in probe.files]
    return {name: folder / "predictions" / f"{name}.parquet" for name in names}


@dataclasses.dataclass(frozen=True)
class Said:
    """What one model says; on processes other than 0 nothing.

    Attributes:
      files: name of a file -> observations.
      about: the model, its fingerprint, and what its tokenizer left out, for ``summary.json``.
    """

    files: Mapping[str, Any]
    about: Mapping[str, Any]


def ask_subject(
    config: ml_collections.ConfigDict,
    label: str,
    subject: Subject,
    probes: Sequence[Probe],
    folder: Path,
    begin: Callable[[], None],
    check: Callable[[], None],
) -> Said:
    """Asks one model everything, or reads from its folder what it has said.

    Args:
      config: the run's config.
      label: what messages call the model.
      subject: the model.
      probes: what it is asked.
      folder: of the model.
      begin: called once the input has proven good, before weights are read and files written.
      check: called between batches; raises to stop.

    Raises:
      UserError: the model cannot be read, or a text or prompt is too long for it.
    """
    about = folder / "model.json"
    if not agreed(all(path.exists() for path in [*paths_of(probes, folder).values(), about])):
        # Of the checkpoint the tokenizer and the dimensions are needed: no weights so far.
        checkpoint = open_checkpoint(*subjects.base_of(subject))
        asked = {probe.name: probe.asked(checkpoint) for probe in probes}
        begin()
        model = subjects.load(config, subject)
        if jax.process_index() == 0:
            facts = {
                "model": subject.text,
                "fingerprint": model.fingerprint,
                "parameters": sum(x.size for x in jax.tree.leaves(model.params)),
            }
            left_out = {key: n for one in asked.values() for key, n in one.about.items()}
            write_text(about, json.dumps(facts | left_out, indent=2) + "\n")
        ask(config, model, probes, asked, folder, check, label=label)
        del model
        gc.collect()  # its parameters and programs, before the next one is loaded
    if jax.process_index() != 0:
        return Said({}, {})
    return Said(read(probes, folder), result.read(about))


def ask(
    config: ml_collections.ConfigDict,
    model: Model,
    probes: Sequence[Probe],
    asked: Mapping[str, Asked],
    folder: Path,
    check: Callable[[], None],
    *,
    label: str = "",
    quantize: str | None = None,
) -> dict[str, Any]:
    """Asks a model every probe, or reads what an interrupted run of this folder has kept.

    Scores go to ``partial/<name>.jsonl`` as they come (see ``journal.Journal``); a probe that is
    complete becomes its files in ``predictions``.

    Args:
      config: the run's config.
      model: on its mesh.
      probes: in order.
      asked: probe's name -> the probe in this model's tokens.
      folder: of the model.
      check: called between batches; raises to stop.
      label: of the model, in bars and messages; "" for none.
      quantize: how the model is quantised; None for as the config says.

    Returns:
      Name of a file -> observations, on process 0; other processes of a pod, which write nothing,
      get {}.

    Raises:
      UserError: see ``Engine.score``.
    """
    paths = paths_of(probes, folder)
    engine = engine_of(
        config,
        model,
        top_tokens=any(probe.top_tokens for probe in probes),
        states=any(probe.states for probe in probes),
    )
    # Over everything, done or not: a run that continues computes in the shapes it began with.
    engine.plan([group for probe in probes for group in asked[probe.name].groups])
    header = {
        "model": model.fingerprint,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize if quantize is None else quantize,
    }
    if engine.top_tokens:
        header["top_tokens"] = "named"
    if engine.states:
        header["states"] = "kept"
    for probe in probes:
        first = next(iter(probe.files))
        partial = folder / "partial" / f"{first}.jsonl"
        if not agreed(all(paths[name].exists() for name in probe.files)):
            title = ": ".join(filter(None, (label, probe.name)))
            here = asked[probe.name]
            found = score_with_journal(engine, here, partial, header, title, check)
            if jax.process_index() == 0:
                for name, observations in probe.finish(here, found).items():
                    probe.files[name].write(paths[name], observations)
        if jax.process_index() == 0:
            partial.unlink(missing_ok=True)
    if jax.process_index() != 0:
        return {}
    with contextlib.suppress(OSError):  # there was none
        (folder / "partial").rmdir()
    return read(probes, folder)


def read(probes: Sequence[Probe], folder: Path) -> dict[str, Any]:
    """Name of a file -> observations, of a model that has been asked everything."""
    paths = paths_of(probes, folder)
    return {name: file.read(paths[name]) for probe in probes for name, file in probe.files.items()}


def score_with_journal(
    engine: Engine,
    asked: Asked,
    path: Path,
    header: Mapping[str, str],
    title: str,
    check: Callable[[], None],
) -> list[list[TokenScores]]:
    """The scores of all groups in order on process 0: what the journal holds, and the rest."""
    settle()
    keys, groups = asked.keys, asked.groups
    book = None
    if jax.process_index() == 0:
        pairs = journal.fingerprint(keys, groups)
        book = journal.Journal(path, {**header, "pairs": pairs})
        if book.replaced:
            say(f"{path} is of other questions, prompts or weights, and is started anew.")
        if book.done:
            cut = f"; its last {book.cut} bytes are no whole line" if book.cut else ""
            say(
                f"{path} holds {len(book.done)} of {len(keys)} prompts{cut}; continuing from there."
            )
    done = np.array([book is not None and key in book.done for key in keys], np.bool_)
    if jax.process_count() > 1:
        done = np.asarray(multihost_utils.broadcast_one_to_all(done))
    left = np.flatnonzero(~done).tolist()
    found = dict(book.done) if book else {}
    try:
        with Progress(len(keys), title, unit="prompts", initial=int(done.sum())) as bar:

            def on_group(i: int, scores: list[TokenScores]) -> None:
                key = keys[left[i]]
                if book:
                    found[key] = scores
                    book.write(key, scores)
                bar.update(1)

            if len(left):
                engine.score(
                    [groups[i] for i in left],
                    on_group,
                    check,
                    lambda i: f"{title}: {keys[left[i]]}",
                )
    finally:
        if book:
            book.close()
    return [found[key] for key in keys] if book else []
