"""Token ids of GGUF vocabularies as transformers and sentencepiece give them; see the README."""

import io
import json
import sys
import tempfile
from pathlib import Path

import regex
import sentencepiece
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))
from tests.models.formats.gguf_files import write_vocabulary  # noqa: E402

# Invented, to train SentencePiece on.
TEXT = [
    "The answer is A. The answer is B. The answers aren't C, D or E; they're 12 and 2024!",
    "Question: What's the year?\n\nOptions:\nA. 1969\nB. 1984\nC. 2001\n\nAnswer: A",
    "  indented = value  # a comment\n\tif x == 10:\n\t\treturn [1, 2, 3]\r\n",
    "naïve café, Ångström, straße; 北京 你好 世界; I'll, we've, you'd, IT'S, THEY'RE",
    "camelCase HTTPServer x=1;y+=2//z 3.14159 1,000,000 ---- ==== ####     end   of   line",
] * 8
TEXTS = [
    "Answer: A",
    " leading space",
    "  two leading",
    "trailing space ",
    "a  b   c    d",
    "line\nbreak\n\n\nmany\r\n\r\nx",
    "\ttab\t\ttabs\n\t x",
    "1969 12345678 3.14 1,000,000",
    "naïve café ñandú ÅÄÖ straße",
    "e\u0301 composed n\u0303",
    "😀😀 👩\u200d👧 🇩🇪",
    "北京 你好，世界。日本語 한국어",
    "العربية हिन्दी",
    "It's they'll WE'RE I'D you've don'T",
    "x=1;y+=2//z#!/usr/bin/env",
    "\x00\x01\x7f control",
    "<s>hi</s> <unk>",
    "<|im_start|>user\nhi<|im_end|>",
    "A B C D E Z",
    "Question: What?\n\nOptions:\nA. yes\nB. no\n\nAnswer: B",
    " A",
    "",
    " ",
    "\n",
    "   \n  ",
    "camelCaseHTTPServer theAnswersInPAParTsaTree ǅ ʰx",
    "a  \n  b \n\n \t\n a\t\tb",
    "./a //b --a=='t ''re 'St 'RE 'tea",
    "0 00 000 0000 00000 a0 0a 0.0,0 0\n0",
    "ＦＵＬＬ ① ½ ²",
    "----====####",
    "aaaaaaaaaaaaaaaa",
    "\u00a0nbsp\u2003em\u200bzw",
    "<0x0A> literal",
    "x▁y ▁▁z",
    "[INST] hi [/INST] [INST]",
    "don’t ‘curly’",
]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_level() -> dict:
    """Every pair of these characters is a token: where two do not merge, the text was split."""
    encode = dict(zip("\t\n\r ", "ĉĊčĠ", strict=True))
    some = [encode.get(c, c) for c in "aeinorstABHSTPC0129 \n\r\t'.,/-="]
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a in some for b in some]
    return {
        "model": "gpt2",
        "tokens": tokens + SPECIAL,
        "token_type": [1] * len(tokens) + [3] * len(SPECIAL),
        "merges": [f"{a} {b}" for a in some for b in some],
        "bos_token_id": len(tokens) + 2,
        "eos_token_id": len(tokens) + 3,
    }


def pieces(prefix: bool, **settings) -> tuple[sentencepiece.SentencePieceProcessor, dict, bytes]:
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXT for line in text.split("\n") if line),
        model_writer=stream,
        vocab_size=460,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        minloglevel=2,
        **settings,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())
    user = settings.get("user_defined_symbols", [])

    def kind(i: int) -> int:
        tests = (model.is_unknown, model.is_control, model.is_unused, model.is_byte)
        found = [number for test, number in zip(tests, (2, 3, 5, 6), strict=True) if test(i)]
        return found[0] if found else 4 if model.id_to_piece(i) in user else 1

    ids = range(model.vocab_size())
    types = [kind(i) for i in ids]
    # The converter spells the spaces of user-defined pieces as such.
    tokens = [model.id_to_piece(i) for i in ids]
    tokens = [t.replace("▁", " ") if k == 4 else t for t, k in zip(tokens, types, strict=True)]
    fields = {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [model.get_score(i) for i in ids],
        "token_type": types,
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "unknown_token_id": model.unk_id(),
        "add_space_prefix": prefix,
    }
    return model, fields, stream.getvalue()


def opened(fields: dict, architecture: str) -> list[list[int]]:
    """Ids that transformers gives after it opened a file with these fields."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(Path(folder, "x.gguf"), fields, architecture)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file="x.gguf")
    return [tokenizer(text).input_ids for text in TEXTS]


def digits_alone(fields: dict) -> list[list[int]]:
    """SmolLM's: every digit alone, then GPT-2's pieces. transformers does not split the digits."""
    plain = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(fields["tokens"])},
            [tuple(merge.split(" ")) for merge in fields["merges"]],
        )
    )
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    special = {token: len(fields["tokens"]) - 4 + i for i, token in enumerate(SPECIAL)}
    split = regex.compile("(" + "|".join(map(regex.escape, SPECIAL)) + ")")

    def ids(text: str) -> list[int]:
        found = []
        for part in split.split(text):
            if part in special:
                found.append(special[part])
                continue
            for run in regex.findall(r"\p{N}|[^\p{N}]+", part):
                for piece in regex.findall(GPT2, run):
                    found += plain.encode(piece).ids
        return found

    return [ids(text) for text in TEXTS]


if __name__ == "__main__":
    bpe = byte_level()
    llama, llama_fields, proto = pieces(True)
    user = ["\n", "\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<table>"]
    gemma, gemma_fields, _ = pieces(
        False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=user
    )
    cases = {"gpt-2": "llama", "llama-bpe": "llama", "qwen2": "qwen2", "tekken": "llama"}
    cases["deepseek-r1-qwen"] = "qwen2"
    ids = {
        pre: opened({**bpe, "pre": pre, "add_bos_token": pre != "qwen2"}, architecture)
        for pre, architecture in cases.items()
    }
    qwen2 = transformers.Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(bpe["tokens"])},
        merges=[tuple(merge.split(" ")) for merge in bpe["merges"]],
    )
    qwen2.add_special_tokens({"additional_special_tokens": SPECIAL})
    ids["qwen2-folder"] = [qwen2.backend_tokenizer.encode(text).ids for text in TEXTS]
    ids["smollm"] = digits_alone(bpe)
    ids["llama"] = opened(llama_fields, "llama")
    ids["gemma3"] = opened(gemma_fields, "gemma3")
    ids["llama-sentencepiece"] = [[llama.bos_id(), *llama.encode(text)] for text in TEXTS]
    ids["gemma3-sentencepiece"] = [[gemma.bos_id(), *gemma.encode(text)] for text in TEXTS]
    vocabularies = {"bpe": bpe, "llama": llama_fields, "gemma3": gemma_fields}
    golden = {"texts": TEXTS, "vocabularies": vocabularies, "ids": ids}
    (HERE / "tokenizers.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    (HERE / "tokenizer.model").write_bytes(proto)
