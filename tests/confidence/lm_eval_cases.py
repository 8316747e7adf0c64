"""What lm-evaluation-harness is compared on: invented texts, tokenizers, tasks. Read by the
generator of the golden values, too."""

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task

MAX_LENGTH = 40
LONG = "One hill, two hills, three hills and a river that nobody has named yet. "

PAIRS = [
    ("Question: What floats?\nAnswer:", " a cork"),
    ("Question: What floats?\nAnswer:", " a stone"),
    ("Question: What floats? \n\n", "a cork"),
    ("trailing spaces   ", "and more"),
    ("trailing\t\n ", " and more"),
    ("Ans", "wer"),  # one token spans the join: nothing is left
    ("the An", "swer is"),  # one token spans the join, and more follows
    ("hello", "hello"),
    ("", " a cork"),
    ("", "Answer"),
    ("", "<s>marked"),
    ("  ", "only spaces before"),
    ("<s>user\nhi\n", "A"),
    ("<s>", " A"),
    ("naïve café", " 北京 ok"),
    ("x", " A"),
    ("x", "\nA"),
    ("x(", "A"),
    (LONG * 3, "end"),
    (LONG, LONG[:38]),
]

# A system's turn is taken by the one and refused by the other.
CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[{{ m['content'] | trim }}]{% endfor %}"
)


def byte_level(
    words: list[str], bos: bool, split: bool = True
) -> transformers.PreTrainedTokenizerBase:
    """Byte-level BPE in which every beginning of these words is a token.

    Without ``split``, tokens may hold letters and what stands before them.
    """
    tokens, merges = sorted(pre_tokenizers.ByteLevel.alphabet()), []
    for word in words:
        word = word.replace(" ", "Ġ").replace("\n", "Ċ")
        for end in range(2, len(word) + 1):
            merge = (word[: end - 1], word[end - 1])
            if merge not in merges:
                merges.append(merge)
                tokens.append(word[:end])
    tokens = list(dict.fromkeys(tokens))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrap(tokenizer, bos)


def _metaspace(bos: bool) -> transformers.PreTrainedTokenizerBase:
    """In the manner of SentencePiece: a mark for every space and one in front, else bytes."""
    letters = [chr(c) for c in range(33, 127)]
    tokens = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁", *letters]
    merges = [("▁", c) for c in "ABCDEahm"] + [("▁", "▁"), ("e", "r")]
    tokens += ["".join(merge) for merge in merges]
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _wrap(tokenizer, bos)


def _wrap(tokenizer: Tokenizer, bos: bool) -> transformers.PreTrainedTokenizerBase:
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if bos:
        special = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=special
        )
    names = {"bos_token": "<s>"} if bos else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", **names
    )


WORDS = ["Answer", " A", " B", " C", " D", " E", " hills", " cork", "hello", "\nA", "(A", "  "]
TOKENIZERS = {
    "bytes": lambda: byte_level([f" {c}" for c in "ABCDE"], bos=False),
    "words": lambda: byte_level(WORDS, bos=False),
    "words with BOS": lambda: byte_level(WORDS, bos=True),
    "joined": lambda: byte_level(WORDS, bos=True, split=False),
    "metaspace with BOS": lambda: _metaspace(bos=True),
    "metaspace": lambda: _metaspace(bos=False),
}

# In the layout of MMLU; the text of the second has braces.
DOCS = [
    {"question": "Which is a fruit?", "choices": ["stone", "pear", "rope", "ink"], "answer": 1},
    {"question": "What is {x} plus 1?", "choices": ["{x}", "x1", "1", "2 {0}"], "answer": 0},
    {"question": "Who sings?", "choices": ["birds", "tables", "chairs", "roads"], "answer": 0},
]
SHOT_DOCS = [
    {"question": "Is ice warm?", "choices": ["yes", "no", "both", "neither"], "answer": 1},
    {"question": "Which is blue?", "choices": ["sky", "grass", "coal", "snow"], "answer": 0},
    {"question": "Who barks?", "choices": ["cats", "cows", "dogs", "hens"], "answer": 2},
]
GAPS = [
    {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea"},
    {"sentence": "The cup did not fit the box, for the _ was big.", "option1": "cup"}
    | {"option2": "box"},
]
GAP_SHOTS = [
    {"sentence": "Cy beat Dan, so _ was glad .", "option1": "Cy", "option2": "Dan"},
    {"sentence": "_ won.", "option1": "Eve", "option2": "Flo"},
]

DESCRIPTION = "These are questions about {subject}.\n\n"
CHOICE = Task(
    "invented",
    choice="{question}\n{options}\nAnswer:",
    continuation="Question: {question}\nAnswer:",
    description=DESCRIPTION,
    continuation_description=DESCRIPTION,
    shots_pick="first",
    groups={"odd_things": "all"},
)
CONTEXTS = Task("gaps", continuation="{question}", form="contexts", shots_pick="first")


def questions(docs: list[dict]) -> list[Question]:
    """The documents as our records."""
    if "sentence" in docs[0]:
        return [
            Question(f"g{i}", d["sentence"], [d["option1"], d["option2"]], i % 2)
            for i, d in enumerate(docs)
        ]
    return [
        Question(f"q{i}", d["question"], d["choices"], d["answer"], subject="odd_things")
        for i, d in enumerate(docs)
    ]
