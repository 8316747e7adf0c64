"""What every model of a run is asked: probes, loaded from the sources that its fields name."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.questions import facts
from calib_jax.questions import text as texts
from calib_jax.questions.preferences import Preference, load_preferences
from calib_jax.questions.prompts import letter_template
from calib_jax.runs.probe import VOCABULARY, PairsProbe, Probe, RunningTextProbe, TokensProbe
from calib_jax.runs.tasks import LoadedTask, load_tasks, task_probes

PAIRS, TEXT, FACTS = "pairs", "text", "facts"


@dataclasses.dataclass
class Material:
    """What every model is asked.

    Attributes:
      probes: in order.
      data: where they come from and what was left out, for ``summary.json``.
    """

    config: ml_collections.ConfigDict
    probes: list[Probe] = dataclasses.field(default_factory=list)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add_tasks(self, specs: str, field: str, vocabulary: bool = False) -> list[LoadedTask]:
        """Multiple-choice questions, read by the config's methods.

        Args:
          specs: as ``config.data.eval``.
          field: what messages call it.
          vocabulary: whether letters are read over the whole vocabulary as well.

        Raises:
          UserError: a source is missing or not understood, or its name is another part's.
        """
        if not split_list(specs):
            return []
        derived = self.config.copy_and_resolve_references()
        derived.data.eval = specs
        loaded = load_tasks(derived)
        taken = {PAIRS, TEXT, FACTS, *(VOCABULARY.format(task.name) for task in loaded)}
        for task in loaded:
            if task.name in taken:
                raise UserError(f"{field}: no task can be called {task.name!r}.")
            self.data[task.name] = dict(task.data)
        self.probes += task_probes(derived, loaded, vocabulary=vocabulary)
        return loaded

    def add_pairs(self, source: str, size: int) -> None:
        """Preference pairs, as ``config.align.eval`` names them; none for "".

        Raises:
          UserError: the source is missing or not understood, or held out of a run's own pairs.
        """
        if source.startswith("train:"):
            raise UserError(
                f"pairs are asked for as {source!r}, held out of a run's own training pairs; here "
                "every model is asked the same. Name a source, such as "
                "--config.align.eval=questions:offline:openbookqa/test@0.8."
            )
        if not source.strip():
            return
        config = self.config
        found = load_preferences(
            source,
            size,
            config.seed,
            template=letter_template(config.prompt) or None,
            prefix=config.prompt.letter_prefix,
            chat=config.prompt.chat,
            answer_base=config.data.answer_base,
        )
        self.data[PAIRS] = dict(found.report)
        self.add_set(PAIRS, found.items)

    def add_set(self, name: str, items: Sequence[Preference]) -> None:
        """A further set of preference pairs."""
        self.probes.append(PairsProbe(name, items, self.config))

    def add_running_text(self, source: str, size: int, window: int) -> None:
        """Whole documents, as ``config.alignment.text`` names them; none for ""."""
        if source.strip():
            documents, counts = texts.load(source)
            self.data[TEXT] = {"source": source, "documents": len(documents), **counts}
            self.data[TEXT]["window"] = window
            self.probes.append(RunningTextProbe(documents, window, size, self.config.seed))

    def add_next_tokens(self) -> None:
        """Places in text and facts, as ``config.lifecycle`` names them."""
        asked, seed = self.config.lifecycle, self.config.seed
        options = {"context_length": asked.context_length}
        if asked.text:
            documents, counts = texts.load(asked.text)
            self.data[TEXT] = {"source": asked.text, "documents": len(documents), **counts}
            places = {"size": asked.text_size, "positions": asked.positions, "seed": seed}
            self.probes.append(TokensProbe(TEXT, documents, options | places))
        if asked.facts:
            every, counts = facts.load(asked.facts, asked.patterns)
            chosen = facts.sample_evenly(every, asked.facts_size, seed)
            self.data[FACTS] = {"source": asked.facts, "facts": len(every), **counts}
            self.data[FACTS]["sampled"] = len(chosen)
            self.probes.append(TokensProbe(FACTS, chosen, options))
