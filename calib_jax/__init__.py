"""calib_jax: measure and restore the calibration of aligned language models, in JAX/Flax."""

import importlib
import os

# transformers serves its tokenizers here; it need not advise everybody to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Loaded when first used: whoever wants the metrics alone does not wait for the models' libraries.
_HOMES = {
    "Question": "calib_jax.questions.record",
    "Scores": "calib_jax.confidence.scores",
    "UserError": "calib_jax.errors",
    "load_model": "calib_jax.api",
    "make_mesh": "calib_jax.api",
    "score": "calib_jax.confidence.api",
}
_PACKAGES = ("metrics", "posthoc")

__all__ = [*sorted(_HOMES), *_PACKAGES]

__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _PACKAGES:
        return importlib.import_module(f"calib_jax.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'calib_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
