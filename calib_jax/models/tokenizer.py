"""Tokenizers: a Hugging Face folder's own, or one rebuilt from a GGUF file's vocabulary."""

from pathlib import Path

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from calib_jax.errors import UserError
from calib_jax.models.formats.gguf import GgufSource

# llama.cpp's names of the pre-tokenizers of byte-level BPE, and what each one does.
_PRE_TOKENIZERS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
}

# llama.cpp's token types.
_CONTROL, _USER_DEFINED = 3, 4

_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def from_folder(folder: Path) -> transformers.PreTrainedTokenizerBase | None:
    """The folder's tokenizer; None when it has no tokenizer files."""
    if not any((folder / name).exists() for name in _FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the library raises whatever its parsers raise
        raise UserError(
            f"{folder}: the tokenizer files cannot be read ({type(error).__name__}: {error})."
        ) from None


def from_gguf(source: GgufSource) -> transformers.PreTrainedTokenizerFast | None:
    """A byte-level BPE tokenizer from the file's vocabulary, merges and pre-tokenizer name.

    None when the file holds no tokenizer.

    Raises:
      UserError: another kind of tokenizer, or a pre-tokenizer that is not known here.
    """
    kind = source.field("tokenizer.ggml.model")
    if kind in (None, "no_vocab"):
        return None
    if kind != "gpt2":
        raise UserError(
            f"{source.path}: tokenizer model {kind!r} is not read from GGUF (only 'gpt2', "
            "byte-level BPE, is); use the Hugging Face folder of this model."
        )
    # A file without the name predates it, and then nothing says how its model splits text.
    pre = source.field("tokenizer.ggml.pre")
    if pre not in _PRE_TOKENIZERS:
        raise UserError(
            f"{source.path}: pre-tokenizer {pre!r} is not known "
            f"({', '.join(_PRE_TOKENIZERS)} are); text would be split wrongly."
        )
    for mark, place in (("bos", "before"), ("eos", "after")):
        if source.field(f"tokenizer.ggml.add_{mark}_token", False):
            raise UserError(
                f"{source.path}: asks for a {mark.upper()} token {place} every text, which is not "
                "rebuilt from GGUF; use the Hugging Face folder of this model."
            )
    for key in ("tokens", "merges"):
        if f"tokenizer.ggml.{key}" not in source.fields:
            raise UserError(f"{source.path}: metadata key 'tokenizer.ggml.{key}' is missing.")
    try:
        tokens = source.field("tokenizer.ggml.tokens")
        types = source.field("tokenizer.ggml.token_type", [1] * len(tokens))
        merges = [tuple(merge.split(" ", 1)) for merge in source.field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    except Exception as error:  # the library raises whatever its parsers raise
        raise UserError(
            f"{source.path}: the tokenizer's metadata are damaged ({str(error).splitlines()[0]}). "
            "Download the file again."
        ) from None
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_added(tokens, types, _CONTROL, special=True))
    tokenizer.add_tokens(_added(tokens, types, _USER_DEFINED, special=False))

    def token(key: str) -> str | None:
        i = source.field(f"tokenizer.ggml.{key}_token_id")
        return None if i is None else tokens[i]

    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=token("bos"),
        eos_token=token("eos"),
        pad_token=token("padding"),
        unk_token=token("unknown"),
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = source.field("tokenizer.chat_template")
    return fast


def _added(tokens: list[str], types: list[int], wanted: int, special: bool) -> list[AddedToken]:
    return [
        AddedToken(token, special=special, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
    ]
