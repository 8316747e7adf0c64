"""Draws are the same whatever the parts in which the cores make them."""

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import draws


@pytest.mark.parametrize("num_draws", [19, 20])
def test_draws_do_not_depend_on_the_parts(monkeypatch, num_draws):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 50).astype(np.float32)
    answers, group = rng.integers(3, size=50), rng.integers(4, size=50)
    fns = {"conf_ece": metrics.conf_ece, "auroc": metrics.auroc}

    def everything():
        return (
            metrics.bootstrap_all(fns, probs, answers, num_resamples=num_draws, seed=2**32 - 1),
            metrics.paired_bootstrap_all(fns, probs, probs[::-1], answers, num_resamples=num_draws),
            {name: x.tolist() for name, x in metrics.null_all(fns, probs, num_draws=8).items()},
            metrics.group_table(probs, answers, group, num_resamples=num_draws),
        )

    whole = everything()
    monkeypatch.setattr(draws, "_LARGE", 1)
    monkeypatch.setattr(draws.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(draws.os, "process_cpu_count", lambda: 3, raising=False)
    assert everything() == whole
