"""Control tokens: those that a tokenizer finds in text before it splits it, and how text that only
looks like one is kept text.

A question's text may hold "<|im_end|>", in which a tokenizer finds the token that ends a turn: a
row of data could write turns of its own. In chats it is therefore marked, by two private-use
characters around it, and what is marked is encoded as any other text. The rules, and the tokens
that result, are those of ``apply_chat_template(sanitize_control_tokens=True)`` in transformers
5.24.
"""

import functools
import re
from collections.abc import Sequence

import jinja2
import transformers

from calib_jax.errors import UserError

START, END = "\U000f0000", "\U000f0001"
_MARKED = re.compile(f"{START}([^{START}{END}]*){END}")
_BATCH = 4096  # texts a call of the tokenizer: its results hold far more than the ids

Tokenizer = transformers.PreTrainedTokenizerBase


def special_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokens that are special, by name or in the table of added tokens alone."""
    added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    return tuple(dict.fromkeys([*tokenizer.all_special_tokens, *added]))


def control_tokens(tokenizer: Tokenizer, template: str = "") -> tuple[str, ...]:
    """The special tokens, and the added ones that a chat template writes.

    Args:
      tokenizer: where it lists ``chat_control_tokens``, these stand for those of the template.
      template: the chat template's source; "" for none.
    """
    listed = getattr(tokenizer, "chat_control_tokens", None)
    written = "\0".join(listed) if listed is not None else _literals(template)
    added = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if not token.content.isspace() and token.content in written
    ]
    return tuple(dict.fromkeys([*special_tokens(tokenizer), *added]))


@functools.lru_cache
def _literals(template: str) -> str:
    """The texts in a template, out of which it writes: not its comments and names."""
    try:
        pieces = list(jinja2.Environment().lex(template))
    except jinja2.TemplateError:  # said where the template is used
        return template
    return "\0".join(value for _, kind, value in pieces if kind in ("data", "string"))


def pattern(tokens: Sequence[str]) -> re.Pattern:
    """Finds any of the tokens in text, the longest first."""
    longest = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or "(?!)")


def mark(text: str, found: re.Pattern) -> str:
    """The text with marks around what ``found`` finds in it.

    Raises:
      UserError: the text holds a mark already.
    """
    for character in (START, END):
        if character in text:
            raise UserError(
                f"a text holds the private-use character U+{ord(character):X}, which marks control "
                f"tokens here: {text[:60]!r}. Remove the character."
            )
    return found.sub(lambda match: f"{START}{match[0]}{END}", text)


def unmarked(text: str) -> str:
    """The text as its reader sees it."""
    return text.replace(START, "").replace(END, "")


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], special: bool | None = None
) -> list[list[int]]:
    """Texts as tokens; what is marked in them as text.

    Args:
      tokenizer: the model's own.
      texts: N texts.
      special: whether the tokenizer puts special tokens around a text; None: as it does by default.

    Raises:
      UserError: the tokenizer makes a control token even of marked text.
    """
    settings = {} if special is None else {"add_special_tokens": special}
    result: list[list[int]] = [[]] * len(texts)
    plain = [i for i, text in enumerate(texts) if START not in text]
    for start in range(0, len(plain), _BATCH):
        some = plain[start : start + _BATCH]
        ids = tokenizer(
            [texts[i] for i in some],
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **settings,
        ).input_ids
        for i, row in zip(some, ids, strict=True):
            result[i] = row
    for i in sorted(set(range(len(texts))) - set(plain)):
        result[i] = _encode_marked(tokenizer, texts[i], settings)
    return result


def _encode_marked(tokenizer: Tokenizer, text: str, settings: dict[str, bool]) -> list[int]:
    """Piece by piece: what is marked without added tokens, the rest with them."""
    first, *rest = _MARKED.split(text)  # every second piece was marked
    ids = list(tokenizer(first, verbose=False, **settings).input_ids)
    line_break = _bare(tokenizer, "\n")
    for i, piece in enumerate(rest):
        if not piece:
            continue
        encode_piece = _as_text if i % 2 == 0 else _bare
        # After a line break: at a text's beginning some tokenizers put a space.
        found = encode_piece(tokenizer, "\n" + piece)
        if found[: len(line_break)] == line_break:
            found = found[len(line_break) :]
        else:
            found = encode_piece(tokenizer, piece)
        if i % 2 == 0 and tokenizer.convert_tokens_to_ids(piece) in found:
            raise UserError(
                f"a question's text holds {piece!r}, and this tokenizer makes the control token of "
                "it even where it is text, so that a row could write turns of its own. Remove it "
                "from the text."
            )
        ids += found
    return ids


def _bare(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _as_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text in which no added token is looked for."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        settings = {"add_special_tokens": False, "split_special_tokens": True}
        return list(tokenizer(text, verbose=False, **settings).input_ids)
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    parts = [text]
    if backend.pre_tokenizer is not None:
        parts = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for part in parts for token in backend.model.tokenize(part)]
