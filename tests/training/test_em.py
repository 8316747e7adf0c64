"""The EM loop: its steps, its mesh, its interruptions."""

import jax
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.training.checkpoints import Checkpoints, kept_epochs
from calib_jax.training.inputs import Settings
from calib_jax.training.interrupt import Stopped
from calib_jax.training.objective import EmObjective, weighted
from calib_jax.training.step import variables_of
from calib_jax.training.targets import EStep
from tests.training.conftest import tiny_config


def leaves(training):
    return [np.asarray(x) for x in jax.tree.leaves(training.state.trainable)]


def assert_same(ours, expected, tolerance=0.0):
    for x, y in zip(leaves(ours), leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "mesh"),
    [("full", (2, 2, 2)), ("lora", (8, 1, 1)), ("lora", (2, 2, 2))],
)
def test_sharded_equals_single_device(start, method, mesh):
    """Three steps: E-step probabilities within 1e-6, parameters within 2e-5 (they move by 3e-3).

    Sharded rows are packed where the mesh leaves room for that.
    """
    settings = {"method": method, "epochs": 1, "sft": "sft2"}
    single = start(tiny_config(**settings), "single").run()
    config = tiny_config(**settings)
    if mesh == (2, 2, 2):
        config.train.packing = True
    sharded = start(config, "sharded", mesh=mesh).run()
    assert sharded.training.packed == (mesh == (2, 2, 2))
    assert int(single.training.state.step) == 3
    np.testing.assert_allclose(sharded.scores[0].probs, single.scores[0].probs, atol=1e-6)
    assert_same(sharded.training, single.training, tolerance=2e-5)
    if mesh != (8, 1, 1):
        embed = sharded.training.variables["params"]["embed"]
        assert embed.addressable_shards[0].data.size == embed.size // (mesh[1] * mesh[2])


@pytest.mark.slow
def test_every_loss_goes_down(start):
    for sft, weight in (("sft1", 1.0), ("sft2", 1.0), ("sft1", 0.0), ("none", 1.0)):
        config = tiny_config(sft=sft, ece_weight=weight, epochs=6)
        run = start(config, f"{sft}{weight}").run()
        first, last = run.terms[0][1]["loss"], run.terms[-1][1]["loss"]
        assert last < first, (sft, weight, first, last)
        # A term that has no part in the loss is neither computed nor logged, and needs no E-step.
        weights = {"sft": float(sft != "none"), "ece": weight}
        assert len(run.e_steps) == (6 if weight else 0)
        for _, terms in run.terms:
            assert [name in terms for name in weights] == [bool(w) for w in weights.values()]
            expected = sum(w * terms[name] for name, w in weights.items() if w)
            assert terms["loss"] == pytest.approx(expected, rel=1e-5)


def test_e_step_is_done_again_every_epoch(start):
    run = start(tiny_config(epochs=3, learning_rate=5e-3)).run()
    assert len(run.e_steps) == 3
    assert not np.array_equal(run.scores[0].probs, run.scores[1].probs)
    assert not np.array_equal(run.e_steps[0].targets, run.e_steps[1].targets)
    # What the loop hands on is the E-step of the probabilities that it hands on.
    best = run.scores[1].probs.argmax(1)
    right = best == run.scores[1].answers
    for m in range(10):
        members = run.e_steps[1].bins == m
        if members.any():
            assert run.e_steps[1].bin_accuracy[m] == pytest.approx(right[members].mean())


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("sft", ["sft1", "sft2"])
def test_microbatches_equal_the_whole_batch(start, method, sft):
    whole = start(tiny_config(method=method, sft=sft, epochs=1), "whole").run()
    parts = start(tiny_config(method=method, sft=sft, epochs=1, microbatches=4), "parts").run()
    for (_, a), (_, b) in zip(whole.terms, parts.terms, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    assert_same(parts.training, whole.training, tolerance=2e-5)


def test_remat_changes_nothing(start):
    plain = start(tiny_config(epochs=1), "plain").run()
    remat = start(tiny_config(epochs=1, remat=True), "remat").run()
    assert_same(remat.training, plain.training, tolerance=1e-5)


def test_fresh_adapters_score_like_the_base(start):
    base = start(tiny_config(), "full").training
    lora = start(tiny_config(method="lora"), "lora").training
    np.testing.assert_array_equal(lora.score(lora.encoded).probs, base.score(base.encoded).probs)


def test_lora_leaves_the_base_alone_and_dropout_has_its_own_stream(start):
    config = tiny_config(method="lora", epochs=1, lora__dropout=0.5)
    first, second = start(config, "a"), start(config, "b")
    before = [np.asarray(x) for x in jax.tree.leaves(first.training.base)]
    first.run(), second.run()
    for x, y in zip(before, jax.tree.leaves(first.training.base), strict=True):
        np.testing.assert_array_equal(x, y)
    assert_same(first.training, second.training)
    undropped = start(tiny_config(method="lora", epochs=1), "c").run()
    assert first.terms[0][1]["loss"] == pytest.approx(undropped.terms[0][1]["loss"], rel=1e-6)
    assert first.terms[1][1]["loss"] != undropped.terms[1][1]["loss"]


def test_the_answer_weighs_in_rcft_what_it_weighs_in_cft(start):
    """Summed, RCFT's gradient is CFT's plus the question tokens'; the mean divides by their number.

    Per question: whatever their lengths, an answer's token has the same share of the batch.
    """
    training = start(tiny_config(method="full"), count=8).training
    aux = EStep(*training.empty_aux().values())._asdict()
    N, K = training.encoded.mask.shape
    mask = training.encoded.mask
    aux["targets"] = np.where(mask, 1 / mask.sum(axis=1, keepdims=True), 0).astype(np.float32)
    training.objective = EmObjective(weighted(sft2=1.0, ece=1.0))  # whose batches have labels
    batch = training.make_batch(training.batch_rows(0)[0], aux)
    batch = {name: x[0] for name, x in batch["rows"].items()} | batch["whole"]
    questions_alone = batch["labels"].copy()
    np.put_along_axis(questions_alone, batch["last"], -1, axis=1)

    def gradient(objective, labels=batch["labels"]):
        def loss(trainable, batch):
            variables = variables_of(training.decoder, trainable, training.base)
            return objective.terms(training.decoder, variables, batch)["loss"]

        found = jax.jit(jax.grad(loss))(training.state.trainable, batch | {"labels": labels})
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(found)])

    cft = gradient(EmObjective(weighted(sft1=1.0, ece=1.0)))
    ece = gradient(EmObjective(weighted(ece=1.0)))
    rcft = gradient(EmObjective(weighted(sft2=1.0, ece=1.0)))
    tokens = gradient(EmObjective(weighted(sft2=1.0)), questions_alone)
    scale = np.abs(rcft).max()
    np.testing.assert_allclose(rcft, cft + tokens, atol=2e-5 * scale)
    settings = Settings(sft2_reduction="mean")
    mean = gradient(EmObjective(weighted(sft2=1.0, ece=1.0), settings))
    length = batch["num_tokens"] / batch["num_rows"]
    assert length > 10
    np.testing.assert_allclose(mean, ece + (cft - ece + tokens) / length, atol=2e-5 * scale)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_resumed_equals_uninterrupted(start, method, stop_at):
    """Stopped within an epoch, at its end, in the next one: every loss and array is the same."""
    config = tiny_config(method=method, lora__dropout=0.3)
    whole = start(config, "whole").run()
    stopped = start(config, "stopped")
    with pytest.raises(Stopped):
        stopped.run(stop_at=stop_at)
    resumed = start(config, "stopped").run()
    told = dict(stopped.terms) | dict(resumed.terms)
    assert told == dict(whole.terms)
    assert_same(resumed.training, whole.training)


def test_every_epoch_is_kept_whatever_was_interrupted(start):
    """Two epochs, stopped within the second: each holds what it had trained, bit for bit."""
    config = tiny_config(epochs=2, method="lora")
    config.checkpoint.keep_epochs = True
    trained = {}

    def go(run, stop_at=None):
        listener = run.listener(stop_at)

        def on_epoch_end(epoch, step):
            trained[epoch + 1] = leaves(run.training)

        listener.on_epoch_end = on_epoch_end
        checkpoints = Checkpoints(run.folder, keep=1, fingerprint=run.fingerprint)
        epochs = kept_epochs(config, run.folder.parent, run.fingerprint)
        try:
            run.training.run(checkpoints, run.stop, listener, epochs=epochs)
        finally:
            checkpoints.close()
            epochs.close()

    with pytest.raises(Stopped):
        go(start(config), stop_at=4)
    run = start(config)
    go(run)
    folder = run.folder / "epochs"
    assert sorted(p.name for p in folder.iterdir() if p.name.isdigit()) == ["1", "2"]
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        run.training.state.trainable,
    )
    for epoch, expected in trained.items():
        kept = Checkpoints(
            folder, keep=None, fingerprint=run.fingerprint, read_only=True, step=epoch
        )
        found = jax.tree.leaves(kept.restore_trainable(abstract))
        kept.close()
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert np.abs(trained[1][0] - trained[2][0]).max() > 0
    config.checkpoint.keep_epochs = False
    assert kept_epochs(config, run.folder.parent, run.fingerprint) is None


def test_a_finished_run_has_nothing_to_do(start):
    done = start(name="same").run()
    again = start(name="same").run()
    assert again.terms == []
    assert_same(again.training, done.training)


def test_checkpoint_of_another_base_is_refused(start):
    run = start().run()
    other = Checkpoints(run.folder, keep=1, fingerprint="another")
    with pytest.raises(UserError, match="another base model"):
        run.training.run(other, run.stop, run.listener())
    other.close()


def test_loss_that_is_not_finite_stops_with_step_and_questions(start):
    run = start(tiny_config(learning_rate=1e38, clip_norm=0.0, epochs=4))
    with pytest.raises(FloatingPointError, match=r"step \d+ \(epoch \d+, questions q\d+"):
        run.run()
    # Whatever was saved is from before the broken step.
    checkpoints = Checkpoints(run.folder, keep=1, fingerprint=run.fingerprint)
    assert (checkpoints.latest_step() or 0) < len(run.terms) + 2
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "qlora"}, "config.train.method"),
        ({"sft": "sft3"}, "config.train.sft"),
        ({"sft": "none", "ece_weight": 0.0}, "no loss"),
        ({"batch_size": 6, "microbatches": 4}, "not a multiple"),
        ({"epochs": 0}, "config.train.epochs"),
        ({"sft2_reduction": "max"}, "sft2_reduction"),
        ({"warmup_ratio": 2.0}, "warmup_ratio"),
        ({"method": "lora", "lora__targets": "qq_proj"}, "qq_proj"),
        ({"method": "lora", "lora__rank": 0}, "rank"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": 0.1, "sft": "sft2"}, "smooths SFT1"),
        ({"smooth_over": "words"}, "smooth_over"),
        ({"early_stopping_metric": "accuracy"}, "early_stopping_metric"),
        ({"divergence": "js"}, "choose from: squared, kl, cross_entropy"),
        ({"objective": "printed"}, "config.train.objective"),
        ({"alpha": 0.3}, "whose weight is config.train.ece_weight"),
        ({"objective": "released"}, "config.train.alpha takes its place"),
        (
            {"objective": "released", "ece_weight": 0.0, "alpha": 1.5},
            "config.train.alpha is 1.5; expected 0 to 1",
        ),
        ({"objective": "released", "ece_weight": 0.0, "divergence": "kl"}, "squared error alone"),
        (
            {"objective": "released", "ece_weight": 0.0, "alpha": 0.0, "sft": "none"},
            "config.train.alpha is 0: no loss",
        ),
    ],
)
def test_bad_settings_are_named(start, change, message):
    with pytest.raises(UserError, match=message):
        start(tiny_config(**change))


def test_batch_that_does_not_divide_over_the_mesh_is_refused(start):
    with pytest.raises(UserError, match="data × fsdp"):
        start(tiny_config(batch_size=4), mesh=(2, 4, 1))


@pytest.mark.parametrize("sft", ["sft1", "sft2"])
def test_packed_rows_compute_what_separate_rows_do(start, sft):
    settings = {"sft": sft, "method": "lora", "epochs": 1}
    separate = start(tiny_config(**settings), "separate").run()
    packed = start(tiny_config(**settings, packing=True), "packed").run()
    assert packed.training.num_rows < separate.training.num_rows
    for (_, ours), (_, expected) in zip(packed.terms, separate.terms, strict=True):
        for name in ("loss", "sft", "ece", "grad_norm"):
            np.testing.assert_allclose(ours[name], expected[name], rtol=2e-5)
    assert_same(packed.training, separate.training, 2e-5)


def test_early_stopping_ends_with_the_best_epoch(start, tmp_path):
    """Epochs as good as 3, 1, 2, 4, ... with a patience of 2: the second is taken after four."""
    config = tiny_config(epochs=8, early_stopping=2)
    config.data.validation = "held_out.jsonl"
    values = [3.0, 1.0, 2.0, 4.0]
    kept = []

    def go(run, stop_at=None):
        listener = run.listener(stop_at)

        def on_epoch_end(epoch, step):
            if epoch == 1:
                kept[:] = [leaves(run.training)]
            return values[epoch]

        listener.on_epoch_end = on_epoch_end
        folders = run.folder, run.folder.with_name("best")
        checkpoints, best = (Checkpoints(f, keep=1, fingerprint=run.fingerprint) for f in folders)
        try:
            run.training.run(checkpoints, run.stop, listener, best)
        finally:
            checkpoints.close()
            best.close()
        return run

    run = go(start(config))
    assert len(run.e_steps) == 4 and run.training.best_epoch == 2
    for ours, expected in zip(leaves(run.training), kept[0], strict=True):
        np.testing.assert_array_equal(ours, expected)
    again = go(start(config))  # a finished run: nothing is trained, the best is in force
    assert not again.e_steps
    assert_same(again.training, run.training)
    with pytest.raises(Stopped):
        go(start(config, "parts"), stop_at=10)
    resumed = go(start(config, "parts"))
    assert resumed.training.best_epoch == 2
    assert_same(resumed.training, run.training)
