"""Probes: what a model is asked, as what the engine scores, and what becomes of its answers.

A probe is loaded once for all models and says, for one model's tokenizer, which groups of pairs are
to be scored (``asked``), what their scores are as observations (``finish``) and how observations
are kept in files. ``score.ask`` asks them; a job measures the observations and shows them.
A further kind of probe is one more class here or beside it.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from calib_jax.confidence import next_token, preference, running_text
from calib_jax.confidence.engine import TokenScores
from calib_jax.confidence.readout import Reading
from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint, Model
from calib_jax.questions.pairs import Pair
from calib_jax.questions.preference_tokens import encode_preferences
from calib_jax.questions.preferences import Preference
from calib_jax.questions.text import Document
from calib_jax.reports import predictions
from calib_jax.reports.lifecycle import predictions as token_files
from calib_jax.reports.pairs import predictions as pair_files
from calib_jax.runs import chat_prompt

# Of a task, the confidence over the whole vocabulary beside that over the letters.
VOCABULARY = "{}_vocabulary"
Found = Sequence[Sequence[TokenScores]]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A probe in one model's tokens.

    Attributes:
      keys: a unique name for each group, the same in every run.
      groups: pairs that the engine scores together.
      source: what ``finish`` needs beside the scores.
      about: what the tokenizer left out, for ``summary.json``.
    """

    keys: Sequence[str]
    groups: Sequence[Sequence[Pair]]
    source: Any
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class File:
    """Observations in a file: how they are written and read."""

    write: Callable[[Path, Any], None]
    read: Callable[[Path], Any]


class Probe(abc.ABC):
    """What every model is asked.

    Attributes:
      name: unique within a run; in bars and messages.
      top_tokens: whether the likeliest tokens of the whole vocabulary are needed, too.
      states: whether the hidden states are needed, too.
    """

    name: str
    top_tokens = False
    states = False

    @property
    @abc.abstractmethod
    def files(self) -> Mapping[str, File]:
        """Name of a file in ``predictions``, without its ending -> how it is kept."""

    @abc.abstractmethod
    def asked(self, model: Checkpoint | Model) -> Asked:
        """The probe in a model's tokens; raises UserError for what the model cannot be asked."""

    @abc.abstractmethod
    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        """Name of a file -> its observations, from the scores of all groups."""


def scores_file(methods: Sequence[str], states: bool = False) -> File:
    """Scores of a task by every method: reading -> Scores, with the states of the first one."""
    return File(
        lambda path, found: predictions.write(path, *(found[m] for m in methods)),
        lambda path: {
            method: predictions.read(path, method, states and method == methods[0])
            for method in methods
        },
    )


@dataclasses.dataclass(frozen=True)
class TaskProbe(Probe):
    """Multiple-choice questions of one task, read in one or several ways.

    Attributes:
      name: of the task.
      plan: (checkpoint or model) -> the task's Reading.
      methods: the readings.
      state: the first part of the file's name.
      vocabulary: whether letters are read over the whole vocabulary as well.
      states: whether the hidden states that the letters are read from are kept; the first of
        ``methods`` is then "choice".
    """

    name: str
    plan: Callable[[Checkpoint | Model], Reading]
    methods: tuple[str, ...]
    state: str = "measured"
    vocabulary: bool = False
    states: bool = False

    @property
    def top_tokens(self) -> bool:  # type: ignore[override]  # a class attribute in the other probes
        """Only the reading over the whole vocabulary needs them."""
        return self.vocabulary

    @property
    def file(self) -> str:
        """The name of the scores' file."""
        return f"{self.state}-{self.name}"

    @property
    def files(self) -> Mapping[str, File]:
        found = {self.file: scores_file(self.methods, self.states)}
        if self.vocabulary:
            found[VOCABULARY.format(self.name)] = File(token_files.write, token_files.read)
        return found

    def asked(self, model: Checkpoint | Model) -> Asked:
        reading = self.plan(model)
        return Asked(reading.keys, reading.groups, reading)

    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        result: dict[str, Any] = {}
        if self.vocabulary:
            name = VOCABULARY.format(self.name)
            result[name] = next_token.read_letters(asked.source, found)
        return {**result, self.file: asked.source.finish(found)}


@dataclasses.dataclass(frozen=True)
class TokensProbe(Probe):
    """Places in documents or facts where the next token is predicted (Zhu et al. 2023).

    Attributes:
      name: "text" or "facts".
      items: documents or facts.
      options: of ``next_token.text_places`` or ``fact_places``.
    """

    name: str
    items: Sequence[Any]
    options: Mapping[str, Any]
    top_tokens = True

    @property
    def files(self) -> Mapping[str, File]:
        return {self.name: File(token_files.write, token_files.read)}

    def asked(self, model: Checkpoint | Model) -> Asked:
        make: Callable[..., next_token.Places] = next_token.fact_places
        if self.name == "text":
            make = next_token.text_places
        places = make(self.items, model.tokenizer, **self.options)
        limit, length = model.config.max_length, self.options["context_length"]
        fed = max(len(pair.tokens) - 1 for group in places.groups for pair in group)
        if fed > limit:
            raise UserError(
                f"config.lifecycle.context_length is {length}, which makes up to {fed} tokens, and "
                f"{model.name} was made for {limit}. Set it to at most {length - (fed - limit)}."
            )
        return Asked(places.keys, places.groups, places)

    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        return {self.name: next_token.read(asked.source, found)}


@dataclasses.dataclass(frozen=True)
class PairsProbe(Probe):
    """Preference pairs: the log-probabilities of the chosen and of the rejected answer.

    Attributes:
      name: of the set.
      items: the pairs.
      config: of the run: prompts and the longest pair.
    """

    name: str
    items: Sequence[Preference]
    config: ml_collections.ConfigDict

    @property
    def files(self) -> Mapping[str, File]:
        return {self.name: File(pair_files.write_pairs, pair_files.read_pairs)}

    def asked(self, model: Checkpoint | Model) -> Asked:
        align = self.config.align
        if align.max_length > model.config.max_length:
            raise UserError(
                f"config.align.max_length is {align.max_length}, and {model.name} was made for "
                f"{model.config.max_length} tokens. Set it to at most that."
            )
        chat = chat_prompt.chat_settings(self.config) if align.chat else None
        items, groups, skipped = encode_preferences(
            model.tokenizer, self.items, align.max_length, chat
        )
        if not items:
            raise UserError(
                f"None of {len(self.items)} preference pairs fits config.align.max_length="
                f"{align.max_length} tokens; raise it."
            )
        about = {f"{self.name}_skipped_too_long": skipped} if skipped else {}
        return Asked([item.id for item in items], groups, [item.rate for item in items], about)

    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        return {self.name: preference.collect(found, asked.keys, asked.source)}


@dataclasses.dataclass(frozen=True)
class RunningTextProbe(Probe):
    """The loss of whole documents, window by window.

    Attributes:
      documents: to be read.
      window: tokens.
      size: documents at most.
      seed: of which they are.
    """

    documents: Sequence[Document]
    window: int
    size: int
    seed: int
    name = "text"

    @property
    def files(self) -> Mapping[str, File]:
        return {self.name: File(pair_files.write_text, pair_files.read_text)}

    def asked(self, model: Checkpoint | Model) -> Asked:
        limit = model.config.max_length
        if not 2 <= self.window <= limit:
            raise UserError(
                f"config.alignment.window is {self.window}; choose 2 to {limit}, the length that "
                f"{model.name} was made for."
            )
        windows = running_text.text_windows(
            self.documents, model.tokenizer, window=self.window, size=self.size, seed=self.seed
        )
        return Asked(windows.keys, windows.groups, windows)

    def finish(self, asked: Asked, found: Found) -> Mapping[str, Any]:
        return {self.name: running_text.read(asked.source, found)}
