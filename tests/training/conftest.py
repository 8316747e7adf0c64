"""A tiny training run that takes seconds."""

import numpy as np
import pytest

from calib_jax.api import load_model, make_mesh
from calib_jax.config import base
from calib_jax.questions.encoder import Encoder
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.em import EmTraining
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener
from tests.conftest import make_questions


def tiny_config(**train):
    config = base()
    config.train.update({"learning_rate": 1e-3, "batch_size": 8, "epochs": 2, "remat": False})
    config.train.packing = False
    config.train.warmup_ratio = 0.0
    config.checkpoint.every_steps = 0
    config.batch.token_budget, config.batch.max_buckets = 1024, 1
    for key, value in train.items():
        node, _, name = key.rpartition("__")
        (config.train[node] if node else config.train)[name] = value
    return config


class Run:
    """One training run on the tiny model, with everything it told."""

    def __init__(self, folder, tmp_path, config=None, mesh=(1, 1, 1), count=20):
        self.config = config or tiny_config()
        devices = None if np.prod(mesh) == 8 else [__import__("jax").devices()[0]]
        model = load_model(str(folder), mesh=make_mesh(mesh, devices))
        encoder = Encoder(model.tokenizer, num_options=5)
        encoded = encoder.encode(make_questions(count))
        self.fingerprint = model.fingerprint
        self.folder = tmp_path / "checkpoints"
        self.training = EmTraining(self.config, model, encoded)
        self.scores, self.e_steps, self.terms = [], [], []
        self.stop = StopRequest()

    def listener(self, stop_at=None):
        def on_step(epoch, step, count, done, terms):
            self.terms.append((step, terms))
            if step == stop_at:
                self.stop.requested = True

        def on_e_step(epoch, step, scores, estep):
            self.scores.append(scores)
            self.e_steps.append(estep)

        return Listener(on_e_step=on_e_step, on_step=on_step)

    def run(self, stop_at=None):
        checkpoints = Checkpoints(self.folder, keep=2, fingerprint=self.fingerprint)
        try:
            self.training.run(checkpoints, self.stop, self.listener(stop_at))
        finally:
            checkpoints.close()
        return self


@pytest.fixture
def start(tiny_model, tmp_path):
    def make(config=None, name="run", **options):
        return Run(tiny_model, tmp_path / name, config, **options)

    return make
