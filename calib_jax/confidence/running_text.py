"""The loss of a model on whole texts: every token of a document, each predicted once.

A document longer than the window of W tokens is read in windows: the first one predicts its W
tokens; every further one predicts the next W / 2 after the W / 2 tokens before them, so that no
token has a shorter context than that unless its text begins so late.
Before the first token stands what the tokenizer puts there by default, else its BOS or EOS token,
at the front of every window; where it has neither, the first token is not predicted, and counted.

Perplexity is exp of the mean loss of a token. Tokenizers differ, so across them only losses per
word (white space) and per byte (UTF-8) can be compared.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import transformers

from calib_jax.confidence.engine import TokenScores
from calib_jax.errors import UserError
from calib_jax.questions.pairs import Pair, PairEncoder
from calib_jax.questions.text import Document

# Never reached: windows are cut here, not by the encoder.
_NO_LIMIT = 1 << 40


@dataclasses.dataclass(frozen=True)
class Windows:
    """What is scored of N documents, in the engine's form.

    Attributes:
      groups: one pair a window.
      keys: a name for each.
      owners: [windows] int32, which document each is of.
      ids: N names.
      words, bytes: [N] int32, of the texts.
      counts: documents; used; skipped_too_short, without a token to predict; first_tokens_unread;
        windows.
    """

    groups: list[list[Pair]]
    keys: list[str]
    owners: np.ndarray
    ids: tuple[str, ...]
    words: np.ndarray
    bytes: np.ndarray
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class TextLosses:
    """The loss of N documents.

    Attributes:
      nll: [N] float64, nats, summed over the document's tokens.
      tokens: [N] int32, how many of them were predicted.
      words, bytes, ids, counts: as in ``Windows``.
    """

    nll: np.ndarray
    tokens: np.ndarray
    words: np.ndarray
    bytes: np.ndarray
    ids: tuple[str, ...]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.nll)


def text_windows(
    documents: Sequence[Document],
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    window: int = 512,
    size: int = 0,
    seed: int = 0,
) -> Windows:
    """Cuts documents into windows; see the module.

    Args:
      documents: where to take them from.
      tokenizer: of the model.
      window: W, the most tokens that are fed at once, 2 or more.
      size: at most so many documents, the first ones by a hash of (seed, id); 0 for all.
      seed: of that choice.

    Raises:
      UserError: no tokenizer, or no document with a token to predict.
      ValueError: a window below 2.
    """
    if window < 2:
        raise ValueError(f"a window of {window} tokens; expected 2 or more")
    encoder = PairEncoder(tokenizer, _NO_LIMIT)
    order = sorted(range(len(documents)), key=lambda i: (_hash(seed, documents[i].id), i))
    chosen: dict[int, tuple[np.ndarray, int]] = {}
    short = 0
    for i in order:
        tokens, front = _tokens(encoder, documents[i].text)
        if len(tokens) < 2:
            short += 1
            continue
        chosen[i] = tokens, front
        if len(chosen) == size:
            break
    if not chosen:
        raise UserError("config.alignment.text: no document has a token to predict.")
    groups, keys, owners = [], [], []
    for owner, i in enumerate(sorted(chosen)):
        for k, pair in enumerate(_windows(*chosen[i], window)):
            groups.append([pair])
            keys.append(f"{documents[i].id}@{k}")
            owners.append(owner)
    texts = [documents[i].text for i in sorted(chosen)]
    return Windows(
        groups=groups,
        keys=keys,
        owners=np.array(owners, np.int32),
        ids=tuple(documents[i].id for i in sorted(chosen)),
        words=np.array([len(text.split()) for text in texts], np.int32),
        bytes=np.array([len(text.encode()) for text in texts], np.int32),
        counts={
            "documents": len(documents),
            "used": len(chosen),
            "skipped_too_short": short,
            "first_tokens_unread": sum(not front for _, front in chosen.values()),
            "windows": len(groups),
        },
    )


def read(windows: Windows, scores: Sequence[Sequence[TokenScores]]) -> TextLosses:
    """The losses from what the engine returns for the windows."""
    N = len(windows.ids)
    nll = np.array([-group[0].log_probs.sum(dtype=np.float64) for group in scores])
    tokens = np.array([len(group[0].log_probs) for group in scores])
    return TextLosses(
        nll=np.bincount(windows.owners, nll, N),
        tokens=np.bincount(windows.owners, tokens, N).astype(np.int32),
        words=windows.words,
        bytes=windows.bytes,
        ids=windows.ids,
        counts=windows.counts,
    )


def _tokens(encoder: PairEncoder, text: str) -> tuple[np.ndarray, int]:
    """A text's tokens, and how many at the front are not its own: 0 or 1."""
    if encoder.prefix_id is None:
        return np.array(encoder.tokens(text), np.int32), 0
    return encoder.encode([("", text)])[0].tokens, 1


def _windows(tokens: np.ndarray, front: int, window: int) -> list[Pair]:
    """Pairs whose targets are the tokens after the first, each once."""
    end = min(len(tokens), window + 1)
    pairs = [Pair(tokens[:end], end - 1)]
    while end < len(tokens):
        first, end = end, min(end + window // 2, len(tokens))
        # The front counts as one of the W tokens fed; the last token is never fed.
        fed = tokens[max(front, end - 1 - window + front) : end]
        pairs.append(Pair(np.concatenate([tokens[:front], fed]), end - first))
    return pairs


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(json.dumps([int(seed), name]).encode()).digest()
