"""The job ``evaluate``: measure a model's calibration, change nothing."""

import time
from pathlib import Path

import jax
import ml_collections

from calib_jax.confidence.scoring import score_encoded
from calib_jax.jobs import measuring, quantization
from calib_jax.jobs.run import claim
from calib_jax.reports import table
from calib_jax.training.interrupt import StopRequest


def run(config: ml_collections.ConfigDict, workdir: Path, stop: StopRequest) -> None:
    """Scores every evaluation split and writes predictions, figures, report and summary."""
    started = time.monotonic()
    setting = measuring.prepare_setting(config)
    claim(workdir, config)

    def score(split, on_batch):
        model = setting.model
        return score_encoded(
            model.decoder(),
            model.variables,
            split,
            mesh=model.mesh,
            buckets=setting.buckets,
            token_budget=config.batch.token_budget,
            on_batch=on_batch,
        )

    folder, unquantized = workdir / "predictions", {}
    if measuring.measures_quantization(config):
        unquantized = measuring.measure_splits(
            setting.evals, folder, "unquantized", score, stop.check
        )
        # Freed first: both at once would take the memory that quantisation is to save.
        setting.model = setting.model.without_params()
        setting.model = measuring.load(config, config.model.quantize)
    scores = measuring.measure_splits(setting.evals, folder, "measured", score, stop.check)
    if jax.process_index() == 0:
        states = {"measured": scores}
        extra = quantization.shift(config, unquantized, scores)
        result = measuring.write_results(workdir, config, setting, states, started, extra)
        table.show_summary(result)
