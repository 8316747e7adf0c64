"""Pairs as tokens: lm-evaluation-harness's rules, on goldens of its own and as properties."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from calib_jax.errors import UserError
from calib_jax.questions import control
from calib_jax.questions.pairs import PairEncoder
from tests.confidence.lm_eval_cases import MAX_LENGTH, PAIRS, TOKENIZERS, byte_level

BUILT = {name: build() for name, build in TOKENIZERS.items()}
some = settings(max_examples=40, deadline=None)
TEXT = st.text(alphabet="Answer hillsABcork\n(é北<s>", max_size=12)


@pytest.fixture(params=TOKENIZERS)
def name(request):
    return request.param


@pytest.fixture
def tokenizer(name):
    return BUILT[name]


def split(pair):
    """Context and continuation of a pair, as lists."""
    place = len(pair.tokens) - pair.num_targets
    return pair.tokens[:place].tolist(), pair.tokens[place:].tolist()


def test_tokens_are_the_harnesses(golden, name, tokenizer):
    rows = json.loads((golden / "lm_eval" / "tiny.json").read_text())[name]
    pairs = PairEncoder(tokenizer, MAX_LENGTH).encode(PAIRS)
    assert len(rows) == len(pairs) == len(PAIRS)
    for texts, row, pair in zip(PAIRS, rows, pairs, strict=True):
        context, continuation = row["context"], row["continuation"]
        if not context:  # it fails where white space is all there is; ours is an empty context
            context = [PairEncoder(tokenizer, MAX_LENGTH).prefix_id]
        whole = context + continuation
        assert pair.tokens.dtype == np.int32
        assert pair.num_targets == len(continuation), texts
        assert pair.num_cut == max(0, len(whole) - MAX_LENGTH - 1), texts
        # The harness cuts the BOS token with the rest; here it stays.
        start = int(whole[0] == tokenizer.bos_token_id)
        assert pair.tokens.tolist() == whole[:start] + whole[start + pair.num_cut :], texts


def test_goldens_hold_the_awkward_cases(golden):
    rows = json.loads((golden / "lm_eval" / "tiny.json").read_text())
    every = [row for some in rows.values() for row in some]
    assert any(not row["continuation"] for row in every)
    assert any(len(row["context"] + row["continuation"]) > MAX_LENGTH + 1 for row in every)
    firsts = {row["context"][0] for row in rows["words with BOS"] if row["context"]}
    assert firsts == {BUILT["words with BOS"].bos_token_id}
    doubled = [row["context"][:2] for row in rows["words with BOS"]]
    assert not any(len(set(two)) < len(two) for two in doubled)


@some
@given(context=TEXT, continuation=TEXT)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_model_is_fed_the_context_and_what_the_whole_has_more(name, context, continuation):
    tokenizer = BUILT[name]
    (pair,) = PairEncoder(tokenizer, 100).encode([(context, continuation)])
    head, targets = split(pair)
    kept = context.rstrip()
    special = not (context + continuation).startswith(tokenizer.bos_token or "</s>")
    whole = tokenizer.encode(context + continuation, add_special_tokens=special)
    if kept:
        alone = tokenizer.encode(kept, add_special_tokens=special)
        assert (head, targets) == (alone, whole[len(alone) :])
    else:
        bare = tokenizer.encode(context + continuation, add_special_tokens=False)
        prefix = PairEncoder(tokenizer, 100).prefix_id
        assert head == [prefix]
        assert targets == (bare[1:] if bare[:1] == [prefix] else bare)
    assert pair.num_cut == 0


@some
@given(context=TEXT.filter(str.strip), continuation=TEXT, limit=st.integers(1, 20))
def test_the_continuation_is_never_cut(context, continuation, limit):
    tokenizer = BUILT["words with BOS"]
    (free,) = PairEncoder(tokenizer, 1000).encode([(context, continuation)])
    encoder = PairEncoder(tokenizer, limit)
    if free.num_targets > limit:
        with pytest.raises(UserError, match=f"the continuation has {free.num_targets} tokens"):
            encoder.encode([(context, continuation)])
        return
    (pair,) = encoder.encode([(context, continuation)])
    assert pair.num_targets == free.num_targets
    assert len(pair.tokens) <= limit + 1  # the last is not fed
    whole = free.tokens.tolist()
    assert whole[0] == tokenizer.bos_token_id
    assert pair.tokens.tolist() == whole[:1] + whole[1 + pair.num_cut :]
    assert pair.num_cut == max(0, len(free.tokens) - limit - 1)


@some
@given(pairs=st.lists(st.tuples(TEXT, TEXT), max_size=6))
@pytest.mark.parametrize("name", ["words with BOS", "metaspace"])
def test_together_as_alone(name, pairs):
    encoder = PairEncoder(BUILT[name], 100)
    for pair, texts in zip(encoder.encode(pairs * 2), pairs * 2, strict=True):
        (alone,) = encoder.encode([texts])
        assert split(pair) == split(alone)


def test_equal_texts_are_tokenised_once(monkeypatch):
    encoder, seen = PairEncoder(BUILT["words"], 100), []
    encode = control.encode
    monkeypatch.setattr(
        control, "encode", lambda tok, texts, s: seen.extend(texts) or encode(tok, texts, s)
    )
    encoder.encode([("same", f" {end}") for end in "aabb"] * 3)
    assert sorted(seen) == ["same", "same a", "same b"]


def test_messages_name_the_pair():
    with pytest.raises(UserError, match="^question 'x7': the continuation has 5 tokens"):
        PairEncoder(BUILT["bytes"], 3).encode([("a", "b"), ("a", " long")], ["-", "question 'x7'"])


def test_no_tokenizer():
    with pytest.raises(UserError, match="no tokenizer files"):
        PairEncoder(None, 8)


def test_a_token_after_every_text_is_refused():
    tokenizer = TOKENIZERS["words"]()
    special = [("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=special
    )
    with pytest.raises(UserError, match="puts a token, .</s>., after every text.*add_eos_token"):
        PairEncoder(tokenizer, 8)


def test_nothing_can_stand_before_an_empty_context():
    tokenizer = TOKENIZERS["words"]()
    tokenizer.eos_token = None
    encoder = PairEncoder(tokenizer, 8)
    encoder.encode([("a", "b")])
    with pytest.raises(UserError, match="neither a BOS nor an EOS.*continuation_pmi"):
        encoder.encode([("", "b")])


@pytest.mark.parametrize("context", ["Which?\nAnswer:", "Which?\nAnswer: ", "<s>assistant\n"])
def test_letters_are_the_harnesses_last_tokens(name, tokenizer, context):
    """The same tokens as ``encode``; but after a line break that moved, one target."""
    encoder = PairEncoder(tokenizer, 100)
    delimiter = " " if context.endswith(":") else ""
    try:
        ((*letters,),) = encoder.encode_letters([context], [4], delimiter)
    except UserError as error:
        assert "not one more token" in str(error) and "A" in str(error)
        targets = [encoder.encode([(context, delimiter + a)])[0].num_targets for a in "ABCD"]
        assert max(targets) > 1
        return
    for pair, letter in zip(letters, "ABCD", strict=True):
        (whole,) = encoder.encode([(context, delimiter + letter)])
        if "\n" not in context[-1]:
            assert whole.num_targets == 1
            assert pair.tokens.tolist() == whole.tokens.tolist()
        assert tokenizer.decode(pair.tokens[-1:]).strip() == letter
        text = tokenizer.decode(pair.tokens, skip_special_tokens=False)
        assert text.endswith((context + delimiter + letter)[-8:])
    assert len({pair.tokens[-1] for pair in letters}) == 4
    assert {pair.num_targets for pair in letters} == {1}


def test_a_line_break_that_merges_with_the_header_is_not_lost():
    """The harness would feed the header without it: c is no beginning of the whole."""
    tokenizer = byte_level(["hello", ">\n"], bos=False, split=False)
    (group,) = PairEncoder(tokenizer, 100).encode_letters(["hello>\n"], [2], "")
    for pair, letter in zip(group, "AB", strict=True):
        assert tokenizer.decode(pair.tokens) == f"hello>\n{letter}" and len(pair.tokens) == 3
    (theirs,) = PairEncoder(tokenizer, 100).encode([("hello>\n", "A")])
    assert tokenizer.decode(theirs.tokens) == "hello>A"


def test_every_question_has_its_own_number_of_letters():
    encoder = PairEncoder(BUILT["words"], 100)
    groups = encoder.encode_letters(["one:", "two:"], [2, 4])
    assert [len(group) for group in groups] == [2, 4]
    assert [pair.tokens[-1] for pair in groups[0]] == [pair.tokens[-1] for pair in groups[1][:2]]
    assert encoder.encode_letters([], []) == []


def test_letters_that_merge_with_a_questions_end_are_found():
    """All ends are checked where they are not the template's; else a last token that differs."""
    encoder = PairEncoder(TOKENIZERS["joined"](), 100)
    assert len(encoder.encode_letters(["one:", "two:"], [2, 2], "")) == 2
    for fixed in (True, False):
        with pytest.raises(UserError, match="not one more token"):
            encoder.encode_letters(["one:", "two("], [2, 2], "", fixed_end=fixed)


def test_long_prompts_with_letters_are_cut_at_the_left():
    encoder = PairEncoder(BUILT["bytes"], 5)
    ((pair,),) = encoder.encode_letters(["a long prompt:"], [1])
    assert BUILT["bytes"].decode(pair.tokens) == "ompt: A" and pair.num_cut == 9


@pytest.mark.parametrize("context", ["one two three four five", "<s>one two three four five"])
def test_the_beginning_of_a_text_stays_where_its_prompt_is_cut(context):
    """As the tokenizer puts it, and as a chat template writes it."""
    tokenizer = BUILT["words with BOS"]
    ((free,),) = PairEncoder(tokenizer, 100).encode_letters([context], [1])
    ((pair,),) = PairEncoder(tokenizer, 5).encode_letters([context], [1])
    assert free.tokens.tolist()[0] == tokenizer.bos_token_id != free.tokens.tolist()[1]
    assert pair.num_cut == len(free.tokens) - 6 > 0
    assert pair.tokens.tolist() == [tokenizer.bos_token_id, *free.tokens.tolist()[-5:]]


@pytest.fixture(scope="module")
def harness():
    """The harness's tokenisation: pairs to (context, continuation) of each."""
    pytest.importorskip("torch")
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    instance = pytest.importorskip("lm_eval.api.instance").Instance

    def encode(tokenizer, pairs):
        model = huggingface.HFLM.__new__(huggingface.HFLM)
        model.tokenizer, model.backend = tokenizer, "causal"
        model.add_bos_token = model.custom_prefix_token_id = model.enable_thinking = None
        model._loglikelihood_tokens = lambda requests, **_: requests
        requests = [instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [(c, k) for _, c, k in model.loglikelihood(requests, disable_tqdm=True)]

    return encode


@some
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_against_the_harness_itself(harness, pairs):
    # It fails on a context of white space alone, and on nothing after nothing.
    usable = [(c, k) for c, k in pairs if c.strip() or (not c and k)]
    for tokenizer in BUILT.values():
        ours = PairEncoder(tokenizer, 1000).encode(usable)
        assert [split(pair) for pair in ours] == harness(tokenizer, usable)
