"""The encoder: one token a letter, checked for the tokenizer at hand; nothing cut, nothing lost."""

import dataclasses
import json

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from calib_jax.confidence.readout import plan_reading
from calib_jax.errors import UserError
from calib_jax.models.tokenizer import from_folder
from calib_jax.questions.chat import Chat
from calib_jax.questions.encoder import Encoder
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.prompts import DEFAULT_PROMPT, letter_template, render
from calib_jax.questions.record import LETTERS, Question
from calib_jax.questions.tasks import get_task, task_names
from tests.confidence import lm_eval_cases as cases
from tests.conftest import make_questions, tiny_tokenizer

QUESTION = Question("q", "Which is a fruit?", ["stone", "pear", "rope"], 1)


def wrap(tokenizer, **special):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def marked(place):
    """The tiny tokenizer with a mark before or after every text."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["<s>"])
    single = "<s> $A" if place == "before" else "$A <s>"
    special = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return wrap(tokenizer, bos_token="<s>")


def without_letters():
    """Byte-level without merges: a space and a letter are two tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrap(tokenizer)


@pytest.fixture(scope="module")
def tokenizer():
    return wrap(tiny_tokenizer())


def test_default_prompt():
    assert render(QUESTION) == (
        "Question: Which is a fruit?\n\nOptions:\nA. stone\nB. pear\nC. rope\n\nAnswer:"
    )


def test_a_field_may_stand_twice_and_other_braces_are_text():
    text = render(QUESTION, "{question} {x} {question}\n{options}{}")
    assert text == "Which is a fruit? {x} Which is a fruit?\nA. stone\nB. pear\nC. rope{}"


def test_a_passage_that_the_prompt_does_not_show_is_told(tokenizer, caplog):
    encoder, shown = Encoder(tokenizer), Encoder(tokenizer, "{context}\n{question}\n{options}\nA:")
    passage = dataclasses.replace(QUESTION, context="Pears grow on trees.")
    encoder.encode([QUESTION])
    shown.encode([passage])
    assert not caplog.text
    encoder.encode([QUESTION, passage], "mine")
    assert "mine: the prompt lacks {context}, and 1 questions have one" in caplog.text


def test_encoded(tokenizer):
    questions = make_questions(9)
    encoded = Encoder(tokenizer, num_options=6).encode(questions)
    assert len(encoded) == 9 and encoded.questions == tuple(questions)
    for i, question in enumerate(questions):
        assert encoded.tokens[i].dtype == np.int32
        assert tokenizer.decode(encoded.tokens[i]) == render(question)  # whole, nothing added
        assert encoded.mask[i].tolist() == [k < len(question.choices) for k in range(6)]
        assert encoded.answers[i] == question.answer
    assert encoded.lengths.tolist() == [len(t) for t in encoded.tokens]
    letters = [tokenizer.decode([i]) for i in encoded.letter_ids]
    assert letters == [f" {letter}" for letter in LETTERS[:6]]


def test_the_letter_follows_the_answer_position(tokenizer):
    """tok(prompt + " B") is tok(prompt) and the letter's token, for every question."""
    encoder = Encoder(tokenizer)
    encoded = encoder.encode(make_questions(5))
    for question, tokens in zip(encoded.questions, encoded.tokens, strict=True):
        for k, letter in enumerate(LETTERS):
            ids = tokenizer(f"{render(question)} {letter}").input_ids
            assert ids == [*tokens, encoded.letter_ids[k]]


def test_bos_once_at_the_front_and_never_among_the_letters(tokenizer):
    encoder, plain = Encoder(marked("before")), Encoder(tokenizer)
    bos = encoder.tokenizer.bos_token_id
    questions = make_questions(4)
    both = zip(encoder.encode(questions).tokens, plain.encode(questions).tokens, strict=True)
    for tokens, bare in both:
        assert tokens.tolist() == [bos, *bare]
    np.testing.assert_array_equal(encoder.letter_ids, plain.letter_ids)


def test_a_mark_after_every_text_is_refused():
    """The model would be read after its end-of-text token."""
    with pytest.raises(UserError, match="puts a token, '<s>', after every text.*post_processor"):
        Encoder(marked("after"))


def test_the_remedy_for_a_mark_after_every_text_helps(tmp_path):
    marked("after").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    raw = json.loads(path.read_text())
    single = raw["post_processor"]["single"]
    raw["post_processor"]["single"] = [part for part in single if "SpecialToken" not in part]
    path.write_text(json.dumps(raw))
    assert len(Encoder(from_folder(tmp_path)).encode([QUESTION])) == 1


def test_letters_of_several_tokens_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"letter 'A' .*config.prompt.template.*letter_prefix"):
        Encoder(without_letters())
    Encoder(without_letters(), letter_prefix="")  # a bare letter is one token


def test_only_the_letters_in_use_are_asked_for():
    tokenizer = tiny_tokenizer()
    merges = [("Ġ", letter) for letter in "ABCD"]
    vocab = {t: i for t, i in tokenizer.get_vocab().items() if len(t) == 1}
    vocab |= {f"Ġ{letter}": len(vocab) + i for i, letter in enumerate("ABCD")}
    tokenizer.model = models.BPE(vocab, merges)
    assert len(Encoder(wrap(tokenizer), num_options=4).letter_ids) == 4
    with pytest.raises(UserError, match="letter 'E'"):
        Encoder(wrap(tokenizer), num_options=5)


def test_a_template_that_ends_in_a_space_is_read_as_one_without(tokenizer):
    """ " A" is one token and takes the space, whether it stands in the template or after it."""
    template = "{question}\n{options}\nAnswer:"
    spaced, plain = (
        Encoder(tokenizer, template + " ", letter_prefix=""),
        Encoder(tokenizer, template),
    )
    np.testing.assert_array_equal(spaced.letter_ids, plain.letter_ids)
    for one, other in zip(*(e.encode([QUESTION]).tokens for e in (spaced, plain)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_question_that_ends_its_prompt_and_merges_with_the_letter(tokenizer):
    """ "? " and a bare letter: " A" is one token, which no prompt without letters contains."""
    encoder = Encoder(tokenizer, "{options}\n{question}", letter_prefix="")
    encoder.encode([QUESTION])
    spaced = dataclasses.replace(QUESTION, id="spaced", question="Which? ")
    with pytest.raises(UserError, match="my-split.*'spaced'.*config.prompt.template"):
        encoder.encode([QUESTION, spaced], "my-split")
    Encoder(tokenizer, "{question}\n{options}:", letter_prefix="").encode([spaced])


def test_equal_letter_tokens_are_refused():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "A": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match="same token"):
        Encoder(wrap(tokenizer, unk_token="[UNK]"), num_options=3)


def test_no_tokenizer():
    with pytest.raises(UserError, match="no tokenizer files"):
        Encoder(None)


@pytest.mark.parametrize("field", ["{question}", "{options}"])
def test_template_without_a_field(tokenizer, field):
    with pytest.raises(UserError, match=f"lacks the field {field}"):
        Encoder(tokenizer, DEFAULT_PROMPT.replace(field, ""))


def test_too_long_a_prompt_is_named_and_not_cut(tokenizer):
    length = len(Encoder(tokenizer).encode([QUESTION]).tokens[0])
    assert len(Encoder(tokenizer, max_length=length).encode([QUESTION]).tokens[0]) == length
    long = dataclasses.replace(QUESTION, id="long-7", question=QUESTION.question + "?")
    with pytest.raises(UserError) as error:
        Encoder(tokenizer, max_length=length).encode([QUESTION, long], "my-split")
    message = str(error.value)
    assert "my-split" in message and "'long-7'" in message
    assert f"{length + 1} tokens" in message and f"limit is {length}" in message


def test_more_options_than_letters_read(tokenizer):
    with pytest.raises(UserError, match=r"'q' has 3 options, and this run reads 2"):
        Encoder(tokenizer, num_options=2).encode([QUESTION])


def test_no_questions(tokenizer):
    encoded = Encoder(tokenizer, num_options=3).encode([])
    assert len(encoded) == 0 and encoded.mask.shape == (0, 3) and encoded.lengths.shape == (0,)


# --- Fine-tuning and evaluation -------------------------------------------------------------------

TEMPLATES = {name: get_task(name).choice for name in task_names()} | {
    "default": DEFAULT_PROMPT,
    "ends in a field": "{question}\n{options}",
    "ends in a line break": "{subject}: {question}\n{options_inline}\nAnswer:\n\n",
}


def learnt(tokenizer, template, prefix, chat):
    """The pairs (prompt's tokens, letter's token) that fine-tuning learns; None: it is refused."""
    try:
        encoded = Encoder(tokenizer, template, prefix, num_options=4, chat=chat).encode(ASKED)
    except UserError:
        return None
    return [
        [[*tokens.tolist(), int(letter)] for letter in encoded.letter_ids[: mask.sum()]]
        for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)
    ]


def read(tokenizer, template, prefix, chat, task=None):
    """Those that an evaluation reads."""
    encoder = PairEncoder(tokenizer, 2048)
    settings = {"choice": template, "letter_prefix": prefix, "chat": chat}
    try:
        reading = plan_reading(ASKED, task, ("choice",), encoder, **settings)
    except UserError:
        return None
    return [[pair.tokens.tolist() for pair in group] for group in reading.groups]


ASKED = [
    dataclasses.replace(q, subject="odd_things", context=["Some stand.\n", None][i % 2])
    for i, q in enumerate([QUESTION, *make_questions(5, options=(2, 4))])
]


@pytest.mark.parametrize("chat", ["", "CHATML", "NO_SYSTEM"])
@pytest.mark.parametrize("name", [*cases.TOKENIZERS, "tiny"])
def test_what_is_learnt_is_what_is_read(name, chat):
    """For every packaged task's template, with and without a chat: the same tokens, or none."""
    make = cases.TOKENIZERS.get(name, lambda: wrap(tiny_tokenizer()))
    tokenizer, same = make(), 0
    if chat:
        tokenizer.chat_template = getattr(cases, chat)
    for place, template in TEMPLATES.items():
        for prefix in (" ", ""):
            asked = (tokenizer, template, prefix, Chat(tokenizer) if chat else None)
            found = learnt(*asked)
            if found is None and place == "ends in a field":
                continue  # fine-tuning needs one token of a letter after all prompts
            assert found == read(*asked), (place, prefix)
            same += found is not None
            if place in task_names() and not get_task(place).description:
                default = (tokenizer, "", prefix, asked[-1], get_task(place))
                assert found == read(*default), (place, prefix)
    assert same or (chat and name == "joined")


def test_the_older_name_of_the_template():
    assert letter_template({"template": "", "choice": "x"}) == "x"
    assert letter_template({"template": "y", "choice": ""}) == "y"
    assert letter_template({"template": "", "choice": ""}) == ""
    with pytest.raises(UserError, match="are both templates for letters; set one of them"):
        letter_template({"template": "y", "choice": "x"})
