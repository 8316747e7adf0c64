"""A tokenizer rebuilt from the vocabulary in a GGUF file."""

import dataclasses
from typing import Any

import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from calib_jax.errors import UserError
from calib_jax.models.formats.gguf import GgufSource

# llama.cpp's token types.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6
_SPACE = "▁"  # how SentencePiece spells a space
_NO_TOKEN = 2**32 - 1  # -1 in the format's unsigned integers
# Longer than any piece of SentencePiece; cutting one in two takes time with its length squared.
_LONGEST_PIECE = 512

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class _Splitting:
    """How byte-level BPE splits text before it merges.

    Attributes:
      pattern: of the pieces; None for GPT-2's own.
      digits: whether digits stand alone.
      whole_words: a piece that is a token is that token, whatever the merges would make of it.
      nfc: whether text is composed first.
      add_bos: whether a BOS token comes first where the file does not say.
    """

    pattern: str | None = None
    digits: bool = False
    whole_words: bool = False
    nfc: bool = False
    add_bos: bool = False


_DIGITS = _Splitting(digits=True)
_LLAMA3_SPLITTING = _Splitting(_LLAMA3, whole_words=True, add_bos=True)
# By llama.cpp's names ("tokenizer.ggml.pre").
_SPLITTINGS = {
    "gpt-2": _Splitting(),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama-bpe": _LLAMA3_SPLITTING,
    "llama-v3": _LLAMA3_SPLITTING,
    "llama3": _LLAMA3_SPLITTING,
    "tekken": _Splitting(_TEKKEN, whole_words=True, add_bos=True),
    "qwen2": _Splitting(_QWEN2, nfc=True),
    "deepseek-r1-qwen": _Splitting(_QWEN2),
}

# Keys of ``tokenizer.ggml``, beside those of the special tokens' ids.
_HANDLED = {
    "model",
    "pre",
    "tokens",
    "token_type",
    "scores",
    "merges",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
}
_HARMLESS = {"token_type_count", "suppress_tokens", "eot_token_ids", "eog_token_ids"}
# What would change the ids, and the only value that is rebuilt.
_ONLY = {"add_sep_token": False, "remove_extra_whitespaces": False}


def from_gguf(source: GgufSource) -> transformers.PreTrainedTokenizerBase | None:
    """The tokenizer of a file: byte-level BPE ("gpt2") or SentencePiece BPE ("llama").

    None when the file holds no tokenizer.

    Raises:
      UserError: another kind of tokenizer, a pre-tokenizer or a key that is not known here, or
        damaged metadata.
    """
    kind = source.field("tokenizer.ggml.model")
    if kind in (None, "no_vocab", "none"):
        return None
    builders = {"gpt2": _byte_level, "llama": _sentencepiece}
    if not isinstance(kind, str) or kind not in builders:
        raise UserError(
            f"{source.path}: tokenizer model {_short(kind)} is not read from GGUF "
            f"({', '.join(map(repr, builders))} are); use the Hugging Face folder of this model."
        )
    _check_known(source)
    vocabulary = _Vocabulary(source)
    try:
        tokenizer, add_bos = builders[kind](vocabulary)
        tokenizer.add_special_tokens(vocabulary.added(_CONTROL, special=True))
        tokenizer.add_tokens(vocabulary.added(_USER_DEFINED, special=False))
    except UserError:
        raise
    except Exception as error:  # the library raises whatever its parsers raise
        raise vocabulary.damaged(str(error).splitlines()[0]) from None
    adds = {
        "bos": vocabulary.flag("add_bos_token", add_bos),
        "eos": vocabulary.flag("add_eos_token", False),
    }
    for mark, add in adds.items():
        if add and vocabulary.special(mark) is None:
            raise UserError(
                f"{source.path}: asks for a {mark.upper()} token around every text, and has no "
                f"'tokenizer.ggml.{mark}_token_id'."
            )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=vocabulary.special("bos"),
        eos_token=vocabulary.special("eos"),
        pad_token=vocabulary.special("padding"),
        unk_token=vocabulary.special("unknown"),
        add_bos_token=adds["bos"],
        add_eos_token=adds["eos"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = source.field("tokenizer.chat_template")
    return fast


def _check_known(source: GgufSource) -> None:
    """Raises UserError for a key that nothing here reads."""
    for key, value in source.fields.items():
        rest = key.removeprefix("tokenizer.ggml.")
        known = rest == key or rest in _HANDLED | _HARMLESS or rest.endswith("_token_id")
        if not known and not (rest in _ONLY and value is _ONLY[rest]):
            raise UserError(
                f"{source.path}: metadata key {key!r} = {_short(value)} is not handled; text "
                "would be split wrongly. Use the Hugging Face folder of this model."
            )


class _Vocabulary:
    """A file's tokens and their types, checked."""

    def __init__(self, source: GgufSource):
        self.source = source
        self.tokens = self.values("tokens", str)
        self.types = self.values("token_type", int, [1] * len(self.tokens))
        if len(self.types) != len(self.tokens):
            raise self.damaged(f"{len(self.types)} types for {len(self.tokens)} tokens")
        rows = source.shape("model.embed_tokens.weight")[0]
        if len(self.tokens) > rows:
            raise self.damaged(f"{len(self.tokens)} tokens for {rows} rows of the embedding")

    def damaged(self, what: str) -> UserError:
        return UserError(
            f"{self.source.path}: the tokenizer's metadata are damaged ({what[:200]}). Download "
            "the file again."
        )

    def values(self, key: str, kind: type, default: list | None = None) -> list[Any]:
        """The list of ``kind`` under ``tokenizer.ggml.<key>``."""
        values = self.source.field(f"tokenizer.ggml.{key}", default)
        if values is None:
            raise UserError(f"{self.source.path}: metadata key 'tokenizer.ggml.{key}' is missing.")
        if not isinstance(values, list) or (values and type(values[0]) is not kind):
            raise self.damaged(f"'tokenizer.ggml.{key}' is no list of {kind.__name__}")
        return values

    def flag(self, key: str, default: bool) -> bool:
        value = self.source.field(f"tokenizer.ggml.{key}", default)
        if not isinstance(value, bool):
            raise self.damaged(f"'tokenizer.ggml.{key}' is {_short(value)}")
        return value

    def special(self, name: str) -> str | None:
        """The token that the file names as its BOS, EOS, padding or unknown one."""
        i = self.source.field(f"tokenizer.ggml.{name}_token_id", _NO_TOKEN)
        if i == _NO_TOKEN:
            return None
        if not isinstance(i, int) or not 0 <= i < len(self.tokens):
            raise self.damaged(f"'tokenizer.ggml.{name}_token_id' is {_short(i)}")
        return self.tokens[i]

    def ids(self) -> dict[str, int]:
        """Ids of the tokens; each may occur once."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            twice = next(t for i, t in enumerate(self.tokens) if ids[t] != i)
            raise self.damaged(f"token {twice!r} occurs twice")
        return ids

    def merges(self) -> list[Any]:
        return [tuple(merge.split(" ", 1)) for merge in self.values("merges", str)]

    def added(self, kind: int, special: bool) -> list[AddedToken]:
        """The tokens of this type, which are found in text before it is split."""
        return [
            AddedToken(token, special=special, normalized=False)
            for token, type_ in zip(self.tokens, self.types, strict=True)
            if type_ == kind
        ]


def _byte_level(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Byte-level BPE, and whether BOS comes first where the file does not say."""
    # A file without the name predates it, and then nothing says how its model splits text.
    pre = vocabulary.source.field("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in _SPLITTINGS:
        raise UserError(
            f"{vocabulary.source.path}: pre-tokenizer {_short(pre)} is not known "
            f"({', '.join(_SPLITTINGS)} are); text would be split wrongly. Use the Hugging Face "
            "folder of this model."
        )
    splitting = _SPLITTINGS[pre]
    tokenizer = Tokenizer(
        models.BPE(vocabulary.ids(), vocabulary.merges(), ignore_merges=splitting.whole_words)
    )
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if splitting.digits else []
    if splitting.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(splitting.pattern), "isolated"))
    steps.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting.pattern is None)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if splitting.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, splitting.add_bos


def _sentencepiece(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """SentencePiece BPE with byte fallback, and that BOS comes first where the file is silent."""
    gemma = vocabulary.source.field("general.architecture") == "gemma3"
    if gemma:
        # llama.cpp spells these pieces with spaces, and merging finds them spelt as all others.
        vocabulary.tokens = [
            _SPACE * len(token) if token and not token.strip(" ") else token
            for token in vocabulary.tokens
        ]
        vocabulary.types = [
            1 if type_ == _USER_DEFINED and not token.strip(_SPACE) else type_
            for token, type_ in zip(vocabulary.tokens, vocabulary.types, strict=True)
        ]
    ids = vocabulary.ids()
    if "tokenizer.ggml.merges" in vocabulary.source.fields:
        merges = vocabulary.merges()
    elif gemma:
        merges = _merges(vocabulary, ids, [-i for i in range(len(ids))])
    else:
        scores = vocabulary.values("scores", float)
        if len(scores) != len(ids):
            raise vocabulary.damaged(f"{len(scores)} scores for {len(ids)} tokens")
        merges = _merges(vocabulary, ids, scores)
    unknown = vocabulary.special("unknown")
    if unknown is None and not all(f"<0x{byte:02X}>" in ids for byte in range(256)):
        raise vocabulary.damaged("neither a token for every byte nor one for unknown text")
    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = vocabulary.flag("add_space_prefix", not gemma)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=_SPACE, prepend_scheme="first" if prefix else "never", split=False
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, True


def _merges(
    vocabulary: _Vocabulary, ids: dict[str, int], scores: list[float]
) -> list[tuple[str, str]]:
    """Every way to make a token of two others, the best token first.

    SentencePiece stores no merges: it joins the two neighbours whose union has the highest score.
    """
    pairs = []
    unmerged = (_UNKNOWN, _CONTROL, _UNUSED, _BYTE)
    for token, type_, score in zip(vocabulary.tokens, vocabulary.types, scores, strict=True):
        if type_ in unmerged:
            continue
        if len(token) > _LONGEST_PIECE:
            raise vocabulary.damaged(f"a token of {len(token)} characters")
        for i in range(1, len(token)):
            if (left := token[:i]) in ids and (right := token[i:]) in ids:
                pairs.append((score, len(left), len(right), left, right))
    pairs.sort(key=lambda pair: pair[:3], reverse=True)
    return [pair[3:] for pair in pairs]


def _short(value: Any) -> str:
    """A value out of an untrusted file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
