"""Context and continuation as tokens, by lm-evaluation-harness's rules.

They are those of ``TemplateLM._encode_pair``, ``HFLM.tok_encode`` and
``HFLM._loglikelihood_tokens`` of version 0.4.13.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import transformers

from calib_jax.errors import UserError
from calib_jax.questions import control
from calib_jax.questions.record import LETTERS

# What can be done where a letter is no token of its own, by whether there is a chat.
_REMEDIES = {
    False: "Set config.prompt.template so that it ends where a word can begin (for example in "
    "'Answer:'), or config.prompt.letter_prefix to '' when a letter without a space before it is "
    "one token.",
    True: "The chat template ends so that no letter can follow by itself. Leave it out "
    "(--config.prompt.chat=False), or read the options' texts (the job evaluate with "
    "--config.confidence.methods=continuation_sum).",
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A context with the continuation whose tokens are scored after it.

    Attributes:
      tokens: [L] int32, the context, then the continuation. What is fed is all but the last.
      num_targets: T, how many tokens at the end are the continuation; 0 where nothing is left of
        it.
      num_cut: context tokens that were cut at the left to fit the model.
    """

    tokens: np.ndarray
    num_targets: int
    num_cut: int = 0


class PairEncoder:
    """Tokenises pairs of texts for one model.

    1. White space at the context's end moves to the continuation, line breaks too.
    2. Context c and whole (context + continuation) are encoded; the targets are whole[len(c):],
       after c as it is, also where a token of the whole spans the join.
    3. Special tokens are the tokenizer's default (BOS or none), but none are added to a text that
       starts with the BOS token's own text, as chat templates write it.
    4. An empty context is the BOS token (EOS where there is none), or the continuation's own first
       token where that is the same.
    5. Contexts are cut at the left so that c and the targets hold ``max_length`` + 1 tokens, for
       the last is never fed. Special tokens at the beginning (BOS) stay, which the harness cuts
       too: without them many models compute something else. Targets are never cut.
    6. What a chat marks in its text (see ``control``) is encoded as text.

    Args:
      tokenizer: the model's own.
      max_length: the longest input of the model.

    Raises:
      UserError: no tokenizer, or one that puts a token after every text.
    """

    def __init__(
        self, tokenizer: transformers.PreTrainedTokenizerBase | None, max_length: int
    ) -> None:
        if tokenizer is None:
            raise UserError(
                "the model's folder has no tokenizer files (tokenizer.json, tokenizer.model), so "
                "questions cannot be encoded; add them to the folder."
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self.bos_id = ids[0]
        self.prefix_id = next((i for i in ids if i is not None), None)
        prefix = [] if self.prefix_id is None else [self.prefix_id]
        self._prefix_text = str(tokenizer.decode(prefix)) if prefix else ""
        (bare,), (full,) = (control.encode(tokenizer, ["a"], special) for special in (False, None))
        self._start = full[: len(full) - len(bare)]
        if full[len(full) - len(bare) :] != bare:
            added = tokenizer.convert_ids_to_tokens(full[-1])
            raise UserError(
                f"the tokenizer puts a token, {added!r}, after every text ({full} for 'a'), so "
                f"that the model would be read after the end of its prompt. Take {added!r} out of "
                '"post_processor" in tokenizer.json, and set "add_eos_token" to false in '
                "tokenizer_config.json (of a .gguf file: make a folder of it first, "
                "--config=configs/export.py)."
            )

    def encode(
        self, pairs: Sequence[tuple[str, str]], names: Sequence[str] | None = None
    ) -> list[Pair]:
        """Tokenises (context, continuation) pairs; equal texts are tokenised once.

        Args:
          pairs: N pairs of texts.
          names: how messages call each of them; None for its number.

        Raises:
          UserError: a continuation longer than the model's input, or an empty context and a
            tokenizer without BOS and EOS.
        """
        split = [_move_space(*pair) for pair in pairs]
        ids = self._ids(
            text
            for context, continuation in split
            for text in ((context, context + continuation) if context else ())
        )
        bare = self._ids((k for context, k in split if not context), special=False)
        result = []
        for i, (context, continuation) in enumerate(split):
            if context:
                head = ids[context]
                targets = ids[context + continuation][len(head) :]
            else:
                head, targets = self._after_nothing(bare[continuation])
            result.append(self._pair(head, targets, names[i] if names else f"pair {i}"))
        return result

    def encode_letters(
        self,
        contexts: Sequence[str],
        counts: Sequence[int],
        delimiter: str = " ",
        *,
        fixed_end: bool = True,
        chat: bool = False,
    ) -> list[list[Pair]]:
        """Pairs of one target each: the letters after every context.

        The tokens are those of ``encode``, but a line break that moved (after a chat template's
        header) counts as context, and it is never lost where it merges with the token before it.
        Where a blank line at the end falls apart as soon as a letter follows it, the context is
        the prompt's own tokens, as they are when the model answers.

        Args:
          contexts: N texts.
          counts: N, how many letters follow each, from "A" on.
          delimiter: between context and letter.
          fixed_end: whether all contexts end in the same text, so that one is enough to check.
          chat: whether a chat template ends them all.

        Returns:
          N lists of as many pairs as there are letters.

        Raises:
          UserError: a letter is not exactly one token of its own.
        """
        ends = [delimiter + letter for letter in LETTERS[: max(counts, default=0)]]
        fixed_end, remedy = fixed_end or chat, _REMEDIES[chat]
        probes = contexts[:1] if fixed_end else contexts
        ids = self._ids(
            [text + ends[0] for text in contexts]
            + [text + end for text in probes for end in ends]
            + [form for text in probes for form in (text, text.rstrip()) if form]
        )
        read = [self._letters(text, ends, ids, remedy) for text in probes]
        if any(apart for _, apart in read):
            ids |= self._ids(contexts)
        result = []
        for i, (text, count) in enumerate(zip(contexts, counts, strict=True)):
            whole, (some, apart) = ids[text + ends[0]], read[0 if fixed_end else i]
            if whole[-1] != some[0]:
                raise UserError(_not_one_token(text, ends[0], whole, remedy))
            head = ids[text] if apart else whole[:-1]
            result.append([self._pair(head, [letter], "") for letter in some[:count]])
        return result

    def tokens(self, text: str) -> list[int]:
        """A whole text's tokens, special ones by rule 3."""
        return self._ids([text])[text]

    def token_lists(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Likewise for many; equal texts are tokenised once."""
        return self._ids(texts)

    def _letters(
        self, text: str, ends: list[str], ids: dict[str, list[int]], remedy: str
    ) -> tuple[list[int], bool]:
        """The token that each end adds to a text, or to the text without its white space.

        The flag says that the text's own white space is split in another way once a letter follows.
        """
        before = ids[text + ends[0]][:-1]
        apart = before not in [ids.get(text), ids.get(text.rstrip())]
        same = not apart or self._text(before) == self._text(ids.get(text, []))
        for end in ends:
            whole = ids[text + end]
            alone = not apart or self._text(whole[-1:]) == end
            if whole[:-1] != before or not same or not alone:
                raise UserError(_not_one_token(text, end, whole, remedy))
        letters = [ids[text + end][-1] for end in ends]
        if len(set(letters)) != len(letters):
            raise UserError("with this tokenizer two option letters are the same token.")
        return letters, apart

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _pair(self, head: list[int], targets: list[int], name: str) -> Pair:
        if len(targets) > self.max_length:
            raise UserError(
                f"{name}: the continuation has {len(targets)} tokens, and the model takes "
                f"{self.max_length}. Remove the question; continuations are never cut."
            )
        cut = max(0, len(head) + len(targets) - (self.max_length + 1))
        # What the tokenizer puts first, or the BOS token that a chat template writes itself.
        start = len(self._start) if self._start and head[: len(self._start)] == self._start else 0
        if not start and self.bos_id is not None:
            start = int(head[:1] == [self.bos_id])
        start = min(start, len(head) - cut)
        kept = head[:start] + head[start + cut :]
        return Pair(np.array(kept + targets, np.int32), len(targets), cut)

    def _after_nothing(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """Head and targets of an empty context."""
        if self.prefix_id is None:
            raise UserError(
                "the model's tokenizer has neither a BOS nor an EOS token, and nothing else can "
                "stand before a continuation without context (the method continuation_pmi scores "
                "such). Leave the method out, or set bos_token in tokenizer_config.json."
            )
        if ids[:1] == [self.prefix_id]:
            return ids[:1], ids[1:]
        return [self.prefix_id], ids

    def _ids(self, texts: Iterable[str], special: bool = True) -> dict[str, list[int]]:
        """Every text's tokens."""
        by_setting: dict[bool | None, list[str]] = {None: [], False: []}
        for text in dict.fromkeys(texts):
            marked = self._prefix_text and text.startswith(self._prefix_text)
            by_setting[None if special and not marked else False].append(text)
        result: dict[str, list[int]] = {}
        for setting, some in by_setting.items():
            result |= zip(some, control.encode(self.tokenizer, some, setting), strict=True)
        return result


def _move_space(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _not_one_token(text: str, end: str, ids: list[int], remedy: str) -> str:
    shown = control.unmarked(text + end)[-20:]
    return (
        f"with this tokenizer the letter {end[-1]!r} after the prompt is not one more token: "
        f"{shown!r} ends in the tokens {ids[-4:]}. {remedy}"
    )
