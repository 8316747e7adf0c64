"""Places in text and facts, and what is read there; on the tiny model and by plain computation."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from calib_jax.api import load_model
from calib_jax.confidence import next_token
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.errors import UserError
from calib_jax.questions.facts import Fact, fill
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.text import Document
from tests.confidence.plain_engine import PlainEngine
from tests.conftest import tiny_tokenizer

DOCUMENTS = [
    Document(f"d{i}", "A quick Zebra jumps. " * (i + 1) + "Größe " * (i % 3)) for i in range(12)
]


def tokenizer(front=(), back=()):
    """The tiny one: 256 bytes and " A" to " Z"; with special tokens around every text."""
    bare = tiny_tokenizer()
    special = [*front, *back]
    if special:
        bare.add_special_tokens(special)
        bare.post_processor = TemplateProcessing(
            single=" ".join([*front, "$A", *back]),
            special_tokens=[(name, bare.token_to_id(name)) for name in special],
        )
    names = {"bos_token": front[0]} if front else {}
    return PreTrainedTokenizerFast(tokenizer_object=bare, **names)


def test_a_place_is_one_token_after_what_stands_before_it():
    plain = tokenizer()
    places = next_token.text_places(DOCUMENTS, plain, positions=3, context_length=1000, seed=4)
    assert len(places) == 36 and len(places.groups) == 12
    assert places.keys == [d.id for d in DOCUMENTS]  # in the source's order
    pairs = [pair for group in places.groups for pair in group]
    for name, place, gold, pair in zip(
        places.ids, places.positions, places.gold, pairs, strict=True
    ):
        ids = plain(DOCUMENTS[int(name[1:])].text).input_ids
        assert 1 <= place < len(ids) and pair.num_targets == 1 and pair.num_cut == 0
        assert pair.tokens.tolist() == ids[: place + 1] and gold == ids[place]
    assert places.documents == places.ids and set(places.relations) == {""}
    for i in range(0, 36, 3):  # different ones, in order
        assert (np.diff(places.positions[i : i + 3]) > 0).all()


@pytest.mark.parametrize("back", [(), ("</s>",)])
def test_contexts_are_cut_at_the_left_behind_what_begins_every_text(back):
    """BOS is kept and does not count; an EOS that the tokenizer adds is nowhere."""
    bos, plain = tokenizer(("<s>",), back), tokenizer()
    places = next_token.text_places(DOCUMENTS, bos, context_length=7, seed=1)
    without = next_token.text_places(DOCUMENTS, plain, context_length=7, seed=1)
    np.testing.assert_array_equal(places.positions, without.positions)
    pairs = [pair for group in places.groups for pair in group]
    assert places.counts["cut_contexts"] == sum(p > 7 for p in places.positions) > 5
    # What begins in the middle of its document is a group of its own, with a name of its own.
    assert len(set(places.keys)) == len(places.groups) == len(places)
    assert f"{places.ids[-1]}@{places.positions[-1]}" == places.keys[-1]
    for name, place, pair in zip(places.ids, places.positions, pairs, strict=True):
        ids = plain(DOCUMENTS[int(name[1:])].text).input_ids
        first = max(0, place - 7)
        assert pair.num_cut == first
        assert pair.tokens.tolist() == [bos.bos_token_id, *ids[first : place + 1]]


@pytest.mark.parametrize("front", [(), ("<s>",)])
def test_uncut_contexts_begin_as_those_of_pairs_do(front):
    """A fact as (context, continuation) by the harness's rules: the same tokens up to its first."""
    chosen = tokenizer(front)
    text, start, end = fill("[X] lives in [Y] now.", "Bo", "Zanzibar")
    (group,) = next_token.fact_places([Fact("f", text, start, end)], chosen).groups
    (pair,) = PairEncoder(chosen, 512).encode([(text[: start - 1], text[start - 1 : end])])
    kept = len(pair.tokens) - pair.num_targets + 1
    assert group[0].tokens.tolist() == pair.tokens[:kept].tolist()


def test_positions_depend_on_seed_and_document_alone_and_are_spread_evenly():
    def of(documents, **options):
        found = next_token.text_places(documents, tokenizer(), **options)
        return dict(zip(found.ids, found.positions.tolist(), strict=True))

    every = of(DOCUMENTS, seed=3)
    assert every == of(DOCUMENTS[::-1], seed=3) and every != of(DOCUMENTS, seed=4)
    some = of(DOCUMENTS, seed=3, size=5)
    assert len(some) == 5 and some.items() <= every.items()
    assert some.items() < of(DOCUMENTS, seed=3, size=8).items()
    # Of 21 tokens, 1 to 20 can be drawn, each about as often.
    many = [Document(f"x{i}", "a" * 21) for i in range(2000)]
    counts = np.bincount(list(of(many).values()), minlength=21)
    assert counts[0] == 0 and len(counts) == 21 and 60 < counts[1:].min() <= counts.max() < 145


def test_short_documents_are_counted_and_all_places_may_be_taken():
    documents = [Document("a", "xy"), Document("b", "wxyz"), Document("c", "z")]
    places = next_token.text_places(documents, tokenizer(), positions=3)
    assert places.ids == ("b", "b", "b") and places.positions.tolist() == [1, 2, 3]
    assert places.counts == {
        "documents": 3,
        "used": 1,
        "skipped_too_short": 2,
        "cut_contexts": 0,
    }
    with pytest.raises(UserError, match="5 tokens, and the longest of 3 has 4"):
        next_token.text_places(documents, tokenizer(), positions=4)


def test_the_target_of_a_fact_is_its_first_token_with_its_space():
    """ " Zanzibar" begins with the one token " Z", which a separate tokenisation never gives."""
    chosen = tokenizer()
    text, start, end = fill("[X] lives in [Y] .", "Bo", "Zanzibar")
    places = next_token.fact_places([Fact("f", text, start, end, "P1", "doc")], chosen)
    assert chosen.convert_ids_to_tokens(places.gold.tolist()) == ["ĠZ"]
    context = places.groups[0][0].tokens[:-1].tolist()
    assert chosen.decode(context) == "Bo lives in" and context == chosen("Bo lives in").input_ids
    assert places.documents == ("doc",) and places.relations == ("P1",)
    assert places.counts["several_tokens"] == 1


def test_a_space_that_is_a_token_of_its_own_belongs_to_the_context():
    chosen = tokenizer()
    text = "Bo lives in oslo."
    places = next_token.fact_places([Fact("f", text, 12, 16)], chosen)
    assert chosen.convert_ids_to_tokens(places.gold.tolist()) == ["o"]
    assert chosen.decode(places.groups[0][0].tokens[:-1]) == "Bo lives in "


def test_letters_of_several_bytes_and_spans_inside_a_token():
    chosen = tokenizer()
    text = "Wo? Österreich A"
    facts = [
        Fact("bytes", text, 4, 14),  # its first letter is two tokens
        Fact("one", text, 15, 16),  # one token alone
        Fact("space", text, 14, 16),  # with its space
    ]
    places = next_token.fact_places(facts, chosen)
    assert places.gold.tolist() == [
        chosen.convert_tokens_to_ids("Ã"),
        *[chosen.convert_tokens_to_ids("ĠA")] * 2,
    ]
    assert places.counts["several_tokens"] == 1
    # "(" merged with the letter after it: the span begins inside that token.
    vocab = {"x": 0, "(": 1, "(a": 2, "a": 3, "b": 4}
    merged = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [("(", "a")])))
    found = next_token.fact_places([Fact("in", "x(ab", 2, 4), Fact("b", "x(ab", 3, 4)], merged)
    assert found.ids == ("b",) and found.counts["skipped_inside_token"] == 1
    with pytest.raises(UserError, match="none of 1 facts"):
        next_token.fact_places([Fact("in", "x(ab", 2, 4)], merged)


def test_reading_what_the_engine_returns():
    places = next_token.text_places(DOCUMENTS[:3], tokenizer(), seed=2)
    gold = places.gold
    top = np.array([gold[0], gold[1] + 1, gold[2]], np.int32)
    log_probs = np.log(np.array([0.6, 0.1, 1.0], np.float32))
    top_logs = np.array([np.log(0.6), np.log(0.3), 1e-7], np.float32)  # rounding above 0
    scores = [
        [TokenScores(log_probs[i : i + 1], top_logs[i : i + 1], top[i : i + 1])] for i in range(3)
    ]
    read = next_token.read(places, scores)
    np.testing.assert_allclose(read.confidences, [0.6, 0.3, 1.0], rtol=1e-6)
    assert read.confidences.dtype == np.float32 and read.confidences.max() == 1
    assert read.correct.tolist() == [True, False, True]
    np.testing.assert_array_equal(read.log_probs, log_probs)
    scores[1] = [TokenScores(log_probs[:1], np.array([np.nan], np.float32), top[:1])]
    with pytest.raises(UserError, match="no number at 1 of 3 places"):
        next_token.read(places, scores)


def test_on_a_model_confidence_and_correctness_are_those_of_its_logits(tiny_model):
    """The engine, the plain engine and a softmax by hand agree at every place."""
    model = load_model(tiny_model)
    places = next_token.text_places(
        DOCUMENTS[:4], model.tokenizer, positions=3, context_length=15, seed=7
    )
    read = next_token.read(places, Engine(model, top_tokens=True).score(places.groups))
    plain = next_token.read(places, PlainEngine(model).score(places.groups))
    np.testing.assert_allclose(read.confidences, plain.confidences, rtol=1e-4)
    np.testing.assert_allclose(read.log_probs, plain.log_probs, rtol=1e-4)
    np.testing.assert_array_equal(read.correct, plain.correct)
    pairs = [pair for group in places.groups for pair in group]
    for i in (0, 5, 11):
        context = pairs[i].tokens[:-1]
        padded = np.zeros((1, 64), np.int32)  # the shape that the plain engine has compiled
        padded[0, : len(context)] = context
        logits = np.asarray(model.logits(padded), np.float64)[0, len(context) - 1]
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        assert read.confidences[i] == pytest.approx(probs.max(), rel=1e-4)
        assert read.predictions[i] == probs.argmax()
        assert read.log_probs[i] == pytest.approx(np.log(probs[pairs[i].tokens[-1]]), rel=1e-4)


def test_bad_settings_are_refused():
    for options, message in (
        ({"positions": 0}, "positions is 0"),
        ({"size": -1}, "text_size -1"),
        ({"context_length": 0}, "context_length is 0"),
    ):
        with pytest.raises(UserError, match=message):
            next_token.text_places(DOCUMENTS, tokenizer(), **options)
    with pytest.raises(UserError, match="has no tokenizer files"):
        next_token.fact_places([Fact("f", "a b", 2, 3)], None)
