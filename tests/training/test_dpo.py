"""DPO and SFT on the tiny model: the loss, what a step sees, microbatches, meshes, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.api import load_model, make_mesh
from calib_jax.errors import UserError
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.dpo import DpoTraining, dpo_loss
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.loop import Listener
from calib_jax.training.sft import SftTraining
from tests.training.conftest import tiny_config
from tests.training.test_answers import make_groups, plain_log_probs

MARGINS = np.array([-50.0, -2.0, -0.3, 0.0, 0.4, 3.0, 60.0], np.float32)


def numpy_loss(m, smoothing=0.0):
    m = np.asarray(m, np.float64)
    agree, differ = np.logaddexp(0, -m), np.logaddexp(0, m)
    return (1 - smoothing) * agree + smoothing * differ


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_its_gradient(smoothing):
    np.testing.assert_allclose(
        dpo_loss(MARGINS, smoothing), numpy_loss(MARGINS, smoothing), rtol=1e-6
    )
    gradient = jax.grad(lambda m: dpo_loss(m, smoothing).sum())(jnp.asarray(MARGINS))
    sigmoid = 1 / (1 + np.exp(-MARGINS.astype(np.float64)))
    np.testing.assert_allclose(gradient, sigmoid - 1 + smoothing, rtol=1e-5, atol=1e-6)


def test_smoothed_loss_is_least_where_the_odds_are_those_of_the_labels():
    margins = jnp.linspace(-4, 4, 801)
    least = margins[jnp.argmin(dpo_loss(margins, 0.2))]
    np.testing.assert_allclose(least, np.log(0.8 / 0.2), atol=0.01)


def make_config(**train):
    config = tiny_config(**{"method": "lora", "learning_rate": 1e-2, **train})
    config.job, config.align.beta = "align", 0.5
    config.batch.max_buckets = 1
    return config


class Run:
    def __init__(self, folder, config=None, kind=DpoTraining, mesh=(1, 1, 1), count=12):
        devices = None if np.prod(mesh) == 8 else [jax.devices()[0]]
        model = load_model(str(folder), mesh=make_mesh(mesh, devices))
        self.groups = make_groups(count, 2 if kind is DpoTraining else 1, seed=3)
        self.terms, self.fingerprint = [], model.fingerprint
        names = [f"g{i}" for i in range(len(self.groups))]
        self.training = kind(config or make_config(), model, self.groups, names)
        self.stop = StopRequest()

    def run(self, folder, stop_at=None):
        def on_step(epoch, step, count, done, terms):
            self.terms.append(terms)
            self.stop.requested = step == stop_at

        checkpoints = Checkpoints(folder, keep=1, fingerprint=self.fingerprint)
        try:
            self.training.run(checkpoints, self.stop, Listener(on_step=on_step))
        finally:
            checkpoints.close()
        return self

    def plain(self):
        """log π of every answer by the decoder at hand, each a sequence of its own."""
        return np.asarray(plain_logs(self.training.decoder, self.training.variables, self.groups))

    @property
    def trained(self):
        return jax.tree.map(np.asarray, self.training.state.trainable)


def plain_logs(decoder, variables, groups):
    return jax.jit(lambda v: plain_log_probs(decoder, v, groups))(variables)


def same(one, other, **tolerance):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_steps_against_whole_sequences_and_against_parts_over_a_mesh(tiny_model):
    """Each step's figures from its parameters and the references of the start; then the same
    steps in two microbatches of packed rows over eight devices."""
    one = Run(tiny_model, make_config(batch_size=16), count=24)
    config = make_config(batch_size=16, microbatches=2, packing=True)
    parts = Run(tiny_model, config, mesh=(2, 2, 2), count=24)
    assert parts.training.num_rows == 8 and one.training.slots == 1 < parts.training.slots
    reference = one.plain()
    runs = [(run, run.training.prepare(0, StopRequest(), Listener())) for run in (one, parts)]
    for _, aux in runs:
        np.testing.assert_allclose(aux["reference"], reference, rtol=1e-5, atol=1e-4)
    margins = []
    for rows in one.training.batch_rows(0) + one.training.batch_rows(1):
        ratios = 0.5 * (one.plain() - reference)[rows]
        margins.append(ratios[:, 0] - ratios[:, 1])
        for run, aux in runs:
            run.training._step(rows, aux)
        for run, _ in runs:
            found = {key: float(value) for key, value in run.training.terms.items()}
            close = {"rel": 2e-3, "abs": 2e-4}
            assert found["loss"] == pytest.approx(numpy_loss(margins[-1]).mean(), **close)
            assert found["reward_margin"] == pytest.approx(margins[-1].mean(), **close)
            assert found["chosen_reward"] == pytest.approx(ratios[:, 0].mean(), **close)
            if len(margins) > 1:  # at first all margins are 0 up to rounding
                assert found["reward_accuracy"] == pytest.approx((margins[-1] > 0).mean())
    assert np.abs(margins[0]).max() < 1e-3 and margins[-1].mean() > 0.1
    same(one.trained, parts.trained, rtol=2e-2, atol=2e-4)


def test_sft_loss_is_the_mean_over_answer_tokens(tiny_model):
    run = Run(tiny_model, make_config(microbatches=2, packing=True), kind=SftTraining)
    assert run.training.num_rows < 8
    for rows in run.training.batch_rows(0):
        tokens = sum(run.groups[i][0].num_targets for i in rows)
        expected = -run.plain()[rows].sum() / tokens
        run.training._step(rows, run.training.empty_aux())
        np.testing.assert_allclose(run.training.terms["loss"], expected, rtol=1e-5)


def test_resumed_run_takes_the_same_steps_with_the_same_reference(tiny_model, tmp_path):
    """Full fine-tuning: what is trained is no reference any more when the run goes on."""
    config = make_config(method="full", learning_rate=1e-3, batch_size=4)
    whole = Run(tiny_model, config).run(tmp_path / "whole")
    parts = []
    for stop_at in (1, 3, None):  # within the first epoch, and at its end
        run = Run(tiny_model, config)
        if parts:
            run.training.prepare = lambda *_: pytest.fail("the reference was computed again")
        try:
            run.run(tmp_path / "parts", stop_at)
            assert stop_at is None
        except Stopped:
            assert stop_at is not None
        parts.append(run)
    terms = [terms for run in parts for terms in run.terms]
    assert len(whole.terms) == 6 and whole.terms == terms
    assert terms[-1]["reward_margin"] > terms[0]["reward_margin"] + 0.01
    same(whole.trained, parts[-1].trained, rtol=0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("beta", 0.0, "beta is 0.0; expected more than 0"),
        ("label_smoothing", 0.5, "label_smoothing is 0.5"),
    ],
)
def test_settings_that_cannot_be(tiny_model, key, value, message):
    config = make_config()
    config.align[key] = value
    with pytest.raises(UserError, match=message):
        Run(tiny_model, config)


def test_nothing_to_learn(tiny_model):
    with pytest.raises(UserError, match=r"align\.train leaves nothing"):
        SftTraining(make_config(), load_model(str(tiny_model)), [], [])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_against_trl(smoothing):
    """DPOTrainer's own loss on the same log-probabilities."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl")
    from tests.training.trl_dpo import trl_loss_and_gradient

    policy, reference = np.random.default_rng(0).normal(-30, 8, (2, 6, 2)).astype(np.float32)
    theirs, gradient = trl_loss_and_gradient(torch, policy, reference, 0.3, smoothing)

    def ours(policy):
        difference = policy - reference
        return dpo_loss(0.3 * (difference[:, 0] - difference[:, 1]), smoothing).mean()

    np.testing.assert_allclose(ours(policy), theirs, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(policy), gradient, rtol=1e-4, atol=1e-7)
