"""The model that a run begins with: loaded onto its mesh, with a bar for its weights."""

import contextlib
from collections.abc import Callable, Iterator

import ml_collections

from calib_jax.api import load_model, make_mesh
from calib_jax.models.model import Model
from calib_jax.reports import Progress
from calib_jax.runs.run import say


@contextlib.contextmanager
def loading_bar() -> Iterator[Callable[[int, int], None]]:
    """``on_bytes`` of ``load_model`` as a progress bar in MiB; none for a model that is small."""
    bar, done = None, 0
    with contextlib.ExitStack() as stack:

        def on_bytes(count: int, total: int) -> None:
            nonlocal bar, done
            if bar is None and total >= 64 << 20:
                bar = stack.enter_context(Progress(total >> 20, "Weights", unit="MiB"))
            before, done = done >> 20, done + count
            if bar is not None:
                bar.update((done >> 20) - before)

        yield on_bytes


def measures_quantization(config: ml_collections.ConfigDict) -> bool:
    """Whether the evaluation splits are scored without quantisation too."""
    return bool(config.model.quantize and config.model.measure_quantization)


def load(config: ml_collections.ConfigDict, quantize: str) -> Model:
    """The run's model on its mesh, quantised as asked ("" for not at all)."""
    mesh = make_mesh(config.mesh.shape)
    how = f" in {quantize}" if quantize else ""
    say(f"Loading {config.model.name}{how} onto {mesh.size} {mesh.devices.flat[0].device_kind}")
    # Parameters that train are kept in float32, whatever the computation.
    trained = config.job in ("finetune", "align") and config.train.method == "full"
    with loading_bar() as on_bytes:
        return load_model(
            config.model.name,
            None if config.model.dtype == "auto" else config.model.dtype,
            mesh,
            on_bytes=on_bytes,
            param_dtype="float32" if trained else None,
            revision=config.model.revision or None,
            attention=config.model.attention,
            adapter=config.model.adapter or None,
            quantize=quantize or None,
        )
