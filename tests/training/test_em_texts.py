"""Algorithm 1 on options' texts: its scores, its gradients, its rows and its interruptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.api import load_model, make_mesh
from calib_jax.confidence.choice import renormalise
from calib_jax.confidence.methods import TRAINED
from calib_jax.confidence.text_scores import TextEncoder
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.models.decoder import head_logits
from calib_jax.training.em_texts import training_of
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.step import variables_of
from tests.conftest import make_questions
from tests.training.conftest import Run, tiny_config
from tests.training.test_em import assert_same

PMI = "continuation_pmi"


def texts_config(reading="continuation_sum", **train):
    settings = {"method": "lora", "epochs": 1, "divergence": "kl", "terms": "nll=0.5"}
    return tiny_config(**settings | {"reading": reading} | train)


class TextRun(Run):
    """``Run`` of options' texts."""

    def __init__(self, folder, tmp_path, config, mesh=(1, 1, 1), count=12):
        self.config, self.folder = config, tmp_path / "checkpoints"
        devices = None if np.prod(mesh) == 8 else [jax.devices()[0]]
        model = load_model(str(folder), mesh=make_mesh(mesh, devices))
        encoder = TextEncoder(
            model.tokenizer, config.train.reading, num_options=5, model_length=512
        )
        self.fingerprint = model.fingerprint
        self.training = training_of(config, model, encoder.encode(make_questions(count)))
        self.scores, self.e_steps, self.terms = [], [], []
        self.stop = StopRequest()


@pytest.fixture
def begin(bos_model, tmp_path):
    def make(config, name="run", **options):
        return TextRun(bos_model, tmp_path / name, config, **options)

    return make


def batch_of(training):
    """The first batch with invented targets, without its axis of microbatches; and its rows."""
    N, K = training.encoded.mask.shape
    aux = training.empty_aux()
    draws = np.random.default_rng(0).random((N, K)) * training.encoded.mask
    aux["targets"] = (draws / draws.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = training.batch_rows(0)[0]
    batch = training.make_batch(rows, aux)
    placed = training._place(rows)
    return {k: v[0] for k, v in batch["rows"].items()} | batch["whole"], placed, aux["targets"]


def scores_in_the_loss(training):
    """Question -> the log-scores [K] that the loss reads, of the first batch."""
    batch, placed, _ = batch_of(training)

    @jax.jit
    def read(variables, batch):
        return training.objective.answers(
            training.decoder, variables, batch, None, 1
        ).log_scores_NxK

    scores = np.asarray(read(training.variables, batch)).reshape(len(placed), training.slots, -1)
    return {n: scores[b, q] for b, row in enumerate(placed) for q, n in enumerate(row)}


@pytest.mark.parametrize("method", TRAINED[1:])
def test_the_loss_reads_what_the_e_step_reads(begin, method):
    """Log-scores within 1e-5 of the engine's, in separate rows and in packed ones."""
    for packing in (False, True):
        config = texts_config(method, packing=packing)
        training = begin(config, str(packing), count=8).training
        assert training.packed == packing
        scores = training.score(training.encoded)
        found = scores_in_the_loss(training)
        assert len(found) == 8
        for n, row in found.items():
            np.testing.assert_allclose(row, scores.log_scores[n], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("method", ["continuation_sum", "continuation_token", PMI])
def test_gradient_is_that_of_plain_sequences(begin, method):
    """Of every option alone in a row, by all its logits: no trees, no chunks, no packing."""
    config = texts_config(method, method="full", packing=True, ece_weight=0.7)
    training = begin(config, count=6).training
    batch, placed, targets = batch_of(training)
    encoded = training.encoded
    longest = max(len(pair.tokens) for group in encoded.reading.groups for pair in group)

    @jax.jit
    def next_log_probs(params, tokens_L):
        hidden = training.decoder.apply({"params": params}, tokens_L[None, :-1])
        logits = head_logits(training.decoder.config, params, hidden[0])
        return jax.nn.log_softmax(logits)[jnp.arange(len(tokens_L) - 1), tokens_L[1:]]

    def log_probs(params, pair):
        L = len(pair.tokens)
        padded = np.pad(pair.tokens, (0, longest - L))
        here = (np.arange(longest - 1) >= L - 1 - pair.num_targets) & (
            np.arange(longest - 1) < L - 1
        )
        return jnp.sum(next_log_probs(params, padded) * here), pair.num_targets

    def plain(params):
        losses = []
        for n in (n for row in placed for n in row):
            K = len(encoded.options[n])
            texts = [log_probs(params, pair) for pair in encoded.options[n]]
            token = method == "continuation_token"
            scores = jnp.stack([total / count if token else total for total, count in texts])
            if method == PMI:
                scores -= jnp.stack([log_probs(params, pair)[0] for pair in encoded.priors[n]])
            log_pi, p = jax.nn.log_softmax(scores), targets[n, :K]
            right = encoded.answers[n]
            kl = jnp.sum(p * (np.log(np.maximum(p, 1e-30)) - log_pi))
            losses.append(-texts[right][0] + 0.7 * kl - 0.5 * log_pi[right])
        return sum(losses) / len(losses)

    @jax.jit
    def ours(params):
        variables = variables_of(training.decoder, params, None)
        return training.objective.terms(training.decoder, variables, batch)["loss"]

    params = training.state.trainable
    (value, grads), (expected, wanted) = (
        jax.value_and_grad(function)(params) for function in (ours, plain)
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-5 * float(jnp.abs(y).max()) + 1e-6)
    # And of the loss itself, along one random direction.
    keys = iter(jax.random.split(jax.random.key(1), 99))
    way = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, grads, way)))
    step = 1e-3
    ahead, behind = (
        float(ours(jax.tree.map(lambda x, d, s=sign: x + s * step * d, params, way)))
        for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(float(slope), rel=2e-2)


@pytest.mark.parametrize("method", ["continuation_token", PMI])
def test_rows_microbatches_and_mesh_change_nothing(begin, method):
    whole = begin(texts_config(method), "whole").run()
    packed = begin(texts_config(method, packing=True), "packed").run()
    parts = begin(texts_config(method, microbatches=2), "parts").run()
    sharded = begin(texts_config(method, packing=True), "sharded", mesh=(2, 2, 2)).run()
    assert packed.training.packed and len(whole.terms) == 2
    # Log-scores are sums of some -40 nats, of which a float32 knows 4e-6.
    np.testing.assert_allclose(sharded.scores[0].probs, whole.scores[0].probs, atol=5e-6)
    for other in (packed, parts, sharded):
        assert_same(other.training, whole.training, 2e-5)
        for (_, ours), (_, expected) in zip(other.terms, whole.terms, strict=True):
            assert ours["loss"] == pytest.approx(expected["loss"], rel=2e-5)


def test_rows_of_whole_sequences_compute_what_trees_do(begin):
    """As the kernel of TPUs, which knows no trees, is given them."""
    config = texts_config("continuation_sum", packing=True)
    trees, rows = begin(config, "trees").training, begin(config, "rows").training
    found = []
    for training, attention in ((trees, "xla"), (rows, "splash")):
        training.lengths = training._lengths(_Attention(attention))
        training._plan_shapes()
        assert ("segments" in batch_of(training)[0]) == (attention == "splash")
        found.append(scores_in_the_loss(training))
    assert rows.lengths.sum() > trees.lengths.sum()
    for n, expected in found[0].items():
        np.testing.assert_allclose(found[1][n], expected, atol=1e-5)


class _Attention:
    def __init__(self, attention):
        self.attention = attention


@pytest.mark.parametrize("refresh", ["epoch", "online"])
def test_resumed_equals_uninterrupted(begin, refresh):
    config = texts_config("continuation_token", epochs=2)
    config.em.refresh = refresh
    whole = begin(config, "whole").run()
    for stop_at in (1, 3):
        stopped = begin(config, f"parts{stop_at}")
        with pytest.raises(Stopped):
            stopped.run(stop_at)
        resumed = begin(config, f"parts{stop_at}").run()
        assert dict(stopped.terms) | dict(resumed.terms) == dict(whole.terms)
        assert_same(resumed.training, whole.training)


def test_targets_are_those_of_the_texts(begin):
    """True EM: every epoch's bins are of the model of the moment, read by its texts."""
    run = begin(texts_config("continuation_sum", epochs=2, learning_rate=5e-3)).run()
    first, second = run.scores
    assert first.method == "continuation_sum" and not np.array_equal(first.probs, second.probs)
    for scores, estep in zip(run.scores, run.e_steps, strict=True):
        np.testing.assert_allclose(
            scores.probs, renormalise(scores.log_scores, scores.mask), atol=1e-7
        )
        right = scores.predictions == scores.answers
        for m in set(estep.bins.tolist()):
            assert estep.bin_accuracy[m] == pytest.approx(right[estep.bins == m].mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reading": "choice_permuted"}, "config.train.reading.*choose from: choice, continuation"),
        ({"sft": "sft2"}, "config.train.sft is 'sft2'.*a letter ends"),
        ({"label_smoothing": 0.1}, "config.train.label_smoothing is 0.1.*as many as it has tokens"),
        ({"objective": "released", "ece_weight": 0.0, "terms": ""}, "of letters.*objective=paper"),
    ],
)
def test_what_texts_cannot_have_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        check_config(texts_config(**change))


@pytest.mark.parametrize(
    ("path", "reading", "message"),
    [
        ("prompt.template", "continuation_sum", "only under --config.train.reading=choice"),
        ("prompt.letter_prefix", PMI, "only under --config.train.reading=choice"),
        ("prompt.continuation", "choice", "only where config.train.reading reads options' texts"),
    ],
)
def test_prompts_of_the_other_reading_are_refused(path, reading, message):
    config = tiny_config(reading=reading)
    section, key = path.split(".")
    config[section][key] = "" if key == "letter_prefix" else "{question} {options} Answer:"
    with pytest.raises(UserError, match=f"config.{path}.*{message}"):
        check_config(config, asked=[path])
