"""The job ``regimes``: accuracy and calibration error of finished runs, or in a known world.

Source: Xiao et al. 2025: the calibratable and the non-calibratable regime, relative to the target
generative model, which is known of a synthetic world.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from calib_jax import metrics
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.grammar import numbers
from calib_jax.reports.regimes.plane import Point, advice, boundaries
from calib_jax.reports.result import Measured, Result
from calib_jax.reports.views import regimes
from calib_jax.runs import plane_points
from calib_jax.runs.run import Run
from calib_jax.training import synthetic

POPULATION = "the population"
# Draws behind a limit of chance: that of 2,000 questions moves by about 0.001 from seed to seed.
_DRAWS = 400


def main(run: Run) -> None:
    """Reads finished runs, or fine-tunes networks in a known world, and writes plane and page.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same command begins anew.
    """
    check_config(run.config)
    found = _of_runs(run) if run.config.regimes.runs.strip() else _in_a_world(run)
    if jax.process_index() == 0:
        run.finish(found, regimes.view)


def _of_runs(run: Run) -> Result:
    """Every method, seed, stage and logged epoch of finished runs."""
    points, left_out = plane_points.read(run.config.regimes.runs)
    run.claim()
    own = {"method": run.config.method, "left_out": left_out, **_own(points)}
    return Result(own, tuple(map(_measured, points)))


def _own(points: Sequence[Point]) -> dict[str, Any]:
    edges = boundaries(points)
    return {
        "points": [dataclasses.asdict(point) for point in points],
        "boundaries": {
            questions: None if edge is None else dataclasses.asdict(edge)
            for questions, edge in edges.items()
        },
        "advice": [advice(point, points) for point in points if point.subject],
    }


def _in_a_world(run: Run) -> Result:
    """SFT and CFT with ever more epochs in a world whose target generative model is known."""
    config, asked = run.config, run.config.regimes
    held_out = round(asked.held_out * asked.train_size)
    if asked.held_out and not 0 < held_out < asked.train_size:
        raise UserError(
            f"config.regimes.held_out is {asked.held_out:g}, which holds {held_out} of "
            f"{asked.train_size} questions out: one part would be empty. Set it to 0 for the "
            "accuracies of the questions that are learnt, or to a share such as 0.25."
        )
    if asked.batch_size > asked.train_size - held_out:
        kept = f", of which {held_out} are held out" if held_out else ""
        raise UserError(
            f"config.regimes.batch_size is {asked.batch_size}, and config.regimes.train_size "
            f"{asked.train_size}{kept}: no batch would be full. Set it to "
            f"{asked.train_size - held_out} at most, ask for more questions, or hold fewer out."
        )
    rates = numbers(asked.learning_rates, "config.regimes.learning_rates", float)
    weights = numbers(asked.ece_weight, "config.regimes.ece_weight", float)
    seeds = numbers(asked.seeds, "config.regimes.seeds")
    run.claim()
    there = synthetic.world(config.seed, asked.sharpness)
    sizes = (asked.train_size, asked.sample_size, asked.population_size)
    learnt, sample, everyone = (
        synthetic.draw(there, size, (config.seed, 1 + i)) for i, size in enumerate(sizes)
    )
    judge = _Judge(sample, everyone, asked.num_bins)
    points, errors = [], {}
    for rate in rates:
        for weight in dict.fromkeys((0.0, *weights)):
            for seed in seeds:
                method = f"CFT λ = {weight:g}" if weight else "SFT"
                apart = held_out if weight else 0
                path = f"{method}, learning rate {rate:g}"
                path += f", seed {seed}" if len(seeds) > 1 else ""
                course = synthetic.fine_tuned(
                    learnt,
                    {"sample": sample.features, POPULATION: everyone.features},
                    epochs=asked.epochs,
                    learning_rate=rate,
                    ece_weight=weight,
                    seed=seed,
                    batch_size=asked.batch_size,
                    num_bins=asked.num_bins,
                    held_out=apart,
                )
                for epoch, probs in course.items():
                    own = {"path": path, "method": method, "seed": seed, "epoch": epoch}
                    # Advice on one network of every learning rate; the others would say the same.
                    own["subject"] = not weight and epoch == asked.epochs and seed == seeds[0]
                    points.append(judge.point(probs["sample"], probs[POPULATION], own))
                errors[path] = {
                    "last": synthetic.exact(probs[POPULATION], everyone.target, asked.num_bins),
                    "recalibrated": synthetic.recalibrated(
                        probs[POPULATION], everyone.target, asked.num_bins
                    ),
                }
                run.stop.check()
    target = judge.point(sample.target, everyone.target, {"path": "target", "method": "target"})
    own = {
        "method": config.method,
        "target": dataclasses.asdict(target),
        "target_seen": judge.seen(sample.target),
        **_own(points),
        "ends": errors,
        "world": {key: asked[key] for key in _WORLD} | {"seed": config.seed},
    }
    return Result(own, tuple(_measured(point) for point in (target, *points)))


_WORLD = (
    *("train_size", "sample_size", "population_size", "sharpness"),
    *("batch_size", "num_bins", "held_out"),
)


def _measured(point: Point) -> Measured:
    figures: dict[str, Any] = {"accuracy": point.accuracy, "conf_ece": point.conf_ece}
    figures |= {"n": point.n, "conf_ece_null_q95": point.chance}
    if point.accuracy_ci:
        figures["accuracy_ci"] = list(point.accuracy_ci)
    return Measured(point.label, point.questions, figures, seed=point.seed)


class _Judge:
    """Points of option probabilities: exact figures, and whether chance explains a sample's."""

    def __init__(self, sample: synthetic.Drawn, everyone: synthetic.Drawn, num_bins: int):
        self.sample, self.everyone, self.num_bins = sample, everyone, num_bins
        # One function for all calls: a new one would be compiled anew.
        self._conf_ece = _conf_ece(num_bins)

    def point(self, seen: np.ndarray, probs: np.ndarray, own: Mapping[str, Any]) -> Point:
        """A point.

        Args:
          seen: [N, 4] of the sample's questions.
          probs: [N', 4] of the population's.
          own: path, method, seed, epoch.
        """
        exact = synthetic.exact(probs, self.everyone.target, self.num_bins)
        limit = metrics.null_quantile(self._conf_ece, seen, num_draws=_DRAWS)
        return Point(
            questions=POPULATION,
            n=len(seen),
            accuracy=exact["accuracy"],
            conf_ece=exact["conf_ece"],
            chance=limit,
            accuracy_ci=(exact["accuracy"], exact["accuracy"]),
            **own,
        )

    def seen(self, probs: np.ndarray) -> float:
        """conf-ECE of the sample's answers, of its option probabilities [N, 4]."""
        return float(self._conf_ece(probs, self.sample.answers))


def _conf_ece(num_bins: int) -> Any:
    def conf_ece(probs, answers, mask=None, weights=None):
        return metrics.conf_ece(probs, answers, mask, num_bins=num_bins, weights=weights)

    return conf_ece
