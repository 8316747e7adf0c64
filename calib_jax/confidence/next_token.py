"""Next-token confidence: the top probability over the whole vocabulary, and whether it is right.

Confidence is max_v p(v | context), and the prediction is correct where its token is the one that
follows (Zhu et al. 2023, arXiv 2311.13240). A place is one such token in a text: a random position
of a document, the first token of an entity, or the letter after a question's prompt. A place is one
``Pair`` of one target.

The context is what stands before the place, at most ``context_length`` tokens of the text, cut at
the left. What the tokenizer puts before every text by default (BOS) stays at the front of a cut
context too, and does not count.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import transformers

from calib_jax.confidence.engine import TokenScores
from calib_jax.confidence.readout import Reading
from calib_jax.errors import UserError
from calib_jax.questions.facts import Fact
from calib_jax.questions.pairs import Pair
from calib_jax.questions.text import Document

# Texts handed to the tokenizer at once.
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Places:
    """N places to score, grouped by what they are from.

    Attributes:
      groups: lists of pairs for the engine, one pair a place; in the order of the rows below.
        Places of a document whose contexts begin alike are one group; others stand alone, so that
        no group is longer than a context.
      keys: a name for each group.
      gold: [N] int32, the token that follows.
      positions: [N] int32, its index among the tokens of its text.
      ids: N, the document's or fact's id.
      documents: N, what the place is from: places of one document are not independent.
      relations: N, "" where there is none.
      counts: what was used, skipped and cut.
    """

    groups: list[list[Pair]]
    keys: list[str]
    gold: np.ndarray
    positions: np.ndarray
    ids: tuple[str, ...]
    documents: tuple[str, ...]
    relations: tuple[str, ...]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.gold)


@dataclasses.dataclass(frozen=True)
class NextTokens:
    """What a model says at N places.

    Attributes:
      confidences: [N] float32, the probability of the most probable token.
      correct: [N] bool, whether that is the token that follows.
      log_probs: [N] float32, natural log, of the token that follows.
      predictions, gold: [N] int32, the most probable token and the one that follows.
      positions, ids, documents, relations, counts: as in ``Places``.
    """

    confidences: np.ndarray
    correct: np.ndarray
    log_probs: np.ndarray
    predictions: np.ndarray
    gold: np.ndarray
    positions: np.ndarray
    ids: tuple[str, ...]
    documents: tuple[str, ...]
    relations: tuple[str, ...]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.gold)


def read(places: Places, scores: Sequence[Sequence[TokenScores]]) -> NextTokens:
    """Confidence and correctness at every place from what the engine returns for its groups.

    Raises:
      UserError: a probability that is not a number.
    """
    flat = [score for group in scores for score in group]
    top, log_probs = (
        np.array([getattr(score, name)[0] for score in flat], np.float32)
        for name in ("top_log_probs", "log_probs")
    )
    predictions = np.array([score.top_tokens[0] for score in flat], np.int32)
    if bad := int((~np.isfinite(top) | np.isnan(log_probs)).sum()):
        raise UserError(
            f"the model gives no number at {bad} of {len(places)} places; its weights are damaged, "
            "or too large for config.model.dtype."
        )
    return NextTokens(
        # A log-probability may exceed 0 by rounding.
        confidences=np.minimum(np.exp(top), np.float32(1)),
        correct=predictions == places.gold,
        log_probs=log_probs,
        predictions=predictions,
        gold=places.gold,
        positions=places.positions,
        ids=places.ids,
        documents=places.documents,
        relations=places.relations,
        counts=places.counts,
    )


def read_letters(reading: Reading, scores: Sequence[Sequence[TokenScores]]) -> NextTokens:
    """The same of questions: the token after the prompt, right where it is the right letter's.

    Paper 3's confidence in a task, over the whole vocabulary and not the letters alone: what a
    model says that would rather not answer by a letter counts as wrong.

    Args:
      reading: by letters, in the order given.
      scores: what an engine that names the top tokens says of its groups.

    Returns:
      One row a question; ``relations`` are the subjects.

    Raises:
      UserError: as ``read``.
      ValueError: the reading has no letters.
    """
    if not all(places.shifts for places in reading.places):
        raise ValueError(f"{', '.join(reading.methods)}: nothing is read by letters")
    at = [places.shifts[0] for places in reading.places]
    answers = [question.answer for question in reading.questions]
    pairs = [reading.groups[i][answer] for i, answer in zip(at, answers, strict=True)]
    ids = tuple(question.id for question in reading.questions)
    places = Places(
        groups=[[pair] for pair in pairs],
        keys=[reading.keys[i] for i in at],
        gold=np.array([pair.tokens[-1] for pair in pairs], np.int32),
        positions=np.array([len(pair.tokens) - 1 for pair in pairs], np.int32),
        ids=ids,
        documents=tuple(reading.keys[i] for i in at),
        relations=tuple(question.subject or "" for question in reading.questions),
        counts={"questions": len(ids), "cut_questions": len(reading.cut)},
    )
    return read(places, [[scores[i][answer]] for i, answer in zip(at, answers, strict=True)])


def text_places(
    documents: Sequence[Document],
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    size: int = 0,
    positions: int = 1,
    context_length: int = 512,
    seed: int = 0,
) -> Places:
    """Random positions of random documents, never a text's first token.

    Documents are taken in the order of a hash of (seed, id) until there are ``size`` of them with
    more than ``positions`` tokens; a document's positions are different ones, drawn from a hash as
    well. So neither depends on the other documents.

    Args:
      documents: where to take them from.
      tokenizer: of the model.
      size: at most so many documents; 0 for all.
      positions: of each document.
      context_length: tokens before a position, at most.
      seed: of both choices.

    Returns:
      Places in the order of the documents. counts: documents, the source's; used;
      skipped_too_short, of those that were looked at; cut_contexts.

    Raises:
      UserError: no tokenizer, no document is long enough, or a number is not positive.
    """
    _check(tokenizer, context_length)
    if positions < 1 or size < 0:
        raise UserError(
            f"config.lifecycle.positions is {positions} and text_size {size}; expected at least 1 "
            "position, and 0 (all) or more documents."
        )
    order = sorted(range(len(documents)), key=lambda i: (_hash(seed, documents[i].id), i))
    used: list[tuple[int, str, _Tokens]] = []
    short, longest = 0, 0
    for i, document, tokens in _tokenised(documents, order, tokenizer):
        if len(tokens.ids) <= positions:
            short, longest = short + 1, max(longest, len(tokens.ids))
            continue
        used.append((i, document.id, tokens))
        if len(used) == size:
            break
    if not used:
        raise UserError(
            f"no document of config.lifecycle.text is long enough: {positions} position(s) take "
            f"{positions + 1} tokens, and the longest of {short} has {longest}. Ask for fewer "
            "config.lifecycle.positions, or give longer documents."
        )
    groups: dict[str, list[Pair]] = {}
    rows = []
    for _, name, tokens in sorted(used, key=lambda entry: entry[0]):
        for place in _positions(seed, name, len(tokens.ids), positions):
            pair = _pair(tokens, place, context_length)
            groups.setdefault(f"{name}@{place}" if pair.num_cut else name, []).append(pair)
            rows.append((name, place, name, ""))
    counts = {"documents": len(documents), "used": len(used), "skipped_too_short": short}
    return _places(groups, rows, counts)


def fact_places(
    facts: Sequence[Fact],
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    context_length: int = 512,
) -> Places:
    """The first token of every fact's span, given all text before it.

    Text and span are tokenised together and the token is found by its characters, so that the
    space before a word is with the word, as the model has learnt it. White space alone may share
    the span's first token; a fact whose span begins inside another token is skipped.

    Returns:
      Places in the order of the facts. counts: facts; used; skipped_inside_token;
      several_tokens, used facts whose span is more than its first token; cut_contexts.

    Raises:
      UserError: no tokenizer, or one that knows no offsets; or no fact is left.
    """
    _check(tokenizer, context_length)
    groups: dict[str, list[Pair]] = {}
    rows, several = [], 0
    for i, _, tokens in _tokenised(facts, range(len(facts)), tokenizer):
        fact = facts[i]
        place, last = _span_tokens(fact, tokens)
        if place is None:
            continue
        several += last > place
        groups[fact.id] = [_pair(tokens, place, context_length)]
        rows.append((fact.id, place, fact.document, fact.relation))
    if not groups:
        raise UserError(
            f"config.lifecycle.facts: none of {len(facts)} facts has a span that begins with a "
            "token of this model's tokenizer."
        )
    counts = {
        "facts": len(facts),
        "used": len(groups),
        "skipped_inside_token": len(facts) - len(groups),
        "several_tokens": several,
    }
    return _places(groups, rows, counts)


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """A text's own tokens with their characters, and what stands before every text."""

    front: list[int]
    ids: list[int]
    offsets: list[tuple[int, int]]


def _tokenised(
    texts: Sequence[Document | Fact],
    order: Sequence[int],
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> Iterator[tuple[int, Document | Fact, _Tokens]]:
    """(index, text, its tokens) in the given order, a batch at a time."""
    for first in range(0, len(order), _BATCH):
        indices = order[first : first + _BATCH]
        batch = [texts[i] for i in indices]
        encoded = tokenizer(
            [one.text for one in batch],
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,  # longer than the model: only a window of it is used
        )
        for row, (i, one) in enumerate(zip(indices, batch, strict=True)):
            ids, mask = encoded.input_ids[row], encoded.special_tokens_mask[row]
            own = [place for place, special in enumerate(mask) if not special]
            start, end = (own[0], own[-1] + 1) if own else (len(ids), len(ids))
            offsets = [tuple(pair) for pair in encoded.offset_mapping[row][start:end]]
            yield i, one, _Tokens(ids[:start], ids[start:end], offsets)


def _span_tokens(fact: Fact, tokens: _Tokens) -> tuple[int | None, int]:
    """The span's first token and its last; None where it begins inside a token or the text."""
    inside = [
        i for i, (start, end) in enumerate(tokens.offsets) if start < fact.end and end > fact.start
    ]
    if not inside or inside[0] == 0:
        return None, 0
    before = fact.text[tokens.offsets[inside[0]][0] : fact.start]
    return (None, 0) if before.strip() else (inside[0], inside[-1])


def _pair(tokens: _Tokens, place: int, context_length: int) -> Pair:
    first = max(0, place - context_length)
    ids = [*tokens.front, *tokens.ids[first : place + 1]]
    return Pair(np.array(ids, np.int32), 1, num_cut=first)


def _places(groups: dict[str, list[Pair]], rows: list[tuple], counts: dict[str, int]) -> Places:
    pairs = [pair for group in groups.values() for pair in group]
    ids, positions, documents, relations = zip(*rows, strict=True)
    return Places(
        groups=list(groups.values()),
        keys=list(groups),
        gold=np.array([pair.tokens[-1] for pair in pairs], np.int32),
        positions=np.array(positions, np.int32),
        ids=ids,
        documents=documents,
        relations=relations,
        counts={**counts, "cut_contexts": sum(pair.num_cut > 0 for pair in pairs)},
    )


def _positions(seed: int, name: str, length: int, number: int) -> list[int]:
    """``number`` different places of 1..length - 1, in order."""
    found: set[int] = set()
    draw = 0
    while len(found) < number:
        word = int.from_bytes(_hash(seed, name, draw)[:8])
        found.add(1 + word % (length - 1))
        draw += 1
    return sorted(found)


def _hash(seed: int, *parts: str | int) -> bytes:
    return hashlib.sha256(json.dumps([int(seed), *parts]).encode()).digest()


def _check(tokenizer: transformers.PreTrainedTokenizerBase | None, context_length: int) -> None:
    if tokenizer is None:
        raise UserError(
            "the model's folder has no tokenizer files (tokenizer.json, tokenizer.model), so texts "
            "cannot be encoded; add them to the folder."
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"the model's tokenizer ({type(tokenizer).__name__}) does not know which characters a "
            "token stands for; save it as tokenizer.json."
        )
    if context_length < 1:
        raise UserError(f"config.lifecycle.context_length is {context_length}; expected 1 or more.")
