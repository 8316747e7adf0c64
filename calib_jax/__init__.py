"""calib_jax: measure and restore the calibration of aligned language models, in JAX/Flax."""

import os

# transformers serves its tokenizers here; it need not advise everybody to install torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from calib_jax import metrics
from calib_jax.api import load_model, make_mesh
from calib_jax.confidence.scores import Scores
from calib_jax.confidence.scoring import score
from calib_jax.errors import UserError
from calib_jax.questions.record import Question

__all__ = ["Question", "Scores", "UserError", "load_model", "make_mesh", "metrics", "score"]

__version__ = "0.1.0"
