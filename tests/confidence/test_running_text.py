"""Whole texts in windows, against one pass over the text."""

import numpy as np
import pytest

from calib_jax import UserError, load_model
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.running_text import _windows, read, text_windows
from calib_jax.questions.text import Document


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("length", [2, 7, 9, 10, 13, 40])
@pytest.mark.parametrize("window", [2, 3, 8, 100])
def test_every_token_is_predicted_once_after_enough_others(length, window, front):
    tokens = np.arange(100, 100 + length, dtype=np.int32)  # a token is its place
    seen = []
    for i, pair in enumerate(_windows(tokens, front, window)):
        T, fed = pair.num_targets, pair.tokens[:-1]
        assert len(fed) <= window
        seen += pair.tokens[-T:].tolist()
        if front:
            assert pair.tokens[0] == 100
        # What is read is one stretch of the text, and enough of it stands before its first target.
        np.testing.assert_array_equal(np.diff(pair.tokens[front:]), 1)
        if i:
            assert len(pair.tokens) - T >= window - window // 2
    assert seen == list(range(101, 100 + length))


def test_losses_of_documents(model):
    texts = ["One two three.", "x", "A longer text, which needs windows of its own. " * 2]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    found = text_windows(documents, model.tokenizer, window=512)
    # This tokenizer has neither BOS nor EOS: a text of one token has nothing to predict.
    assert found.ids == ("d0", "d2")
    assert found.counts == {
        "documents": 3,
        "used": 2,
        "skipped_too_short": 1,
        "first_tokens_unread": 2,
        "windows": 2,
    }
    losses = read(found, Engine(model, token_budget=128).score(found.groups))
    for i, text in enumerate((texts[0], texts[2])):
        ids = np.array(model.tokenizer(text).input_ids)
        logits = np.asarray(model.logits(ids[None]))[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        own = -sum(logs[t - 1, ids[t]] for t in range(1, len(ids)))
        assert losses.nll[i] == pytest.approx(own, rel=1e-5)
        assert losses.tokens[i] == len(ids) - 1
        assert losses.words[i] == len(text.split()) and losses.bytes[i] == len(text.encode())


def test_windows_add_up_and_the_sample_nests(model):
    documents = [Document(f"d{i}", f"text {i} " * (i + 1)) for i in range(9)]
    some = text_windows(documents, model.tokenizer, window=16, size=3, seed=1)
    more = text_windows(documents, model.tokenizer, window=16, size=5, seed=1)
    assert set(some.ids) < set(more.ids) and len(more.ids) == 5
    fake = [[TokenScores(-np.ones(g[0].num_targets, np.float32), None, None)] for g in some.groups]
    losses = read(some, fake)
    np.testing.assert_array_equal(losses.nll, losses.tokens)
    lengths = [len(model.tokenizer(d.text).input_ids) for d in documents if d.id in some.ids]
    np.testing.assert_array_equal(losses.tokens, np.array(lengths) - 1)


def test_nothing_to_predict_is_refused(model):
    with pytest.raises(UserError, match="no document has a token"):
        text_windows([Document("d", "x")], model.tokenizer)
    with pytest.raises(ValueError, match="window of 1"):
        text_windows([], model.tokenizer, window=1)
