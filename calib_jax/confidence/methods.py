"""The methods by name: token log-probabilities in, every option's score and probability out."""

import functools
from collections.abc import Callable, Sequence

import jax

from calib_jax.confidence import choice as letters
from calib_jax.confidence import continuation as texts
from calib_jax.errors import UserError

METHODS = (
    "choice",
    "choice_permuted",
    "choice_permuted_arithmetic",
    "choice_contextual",
    "continuation_sum",
    "continuation_min",
    "continuation_token",
    "continuation_char",
    "continuation_byte",
    "continuation_pmi",
)

# What a model can be trained on: one score an option, from one forward pass.
TRAINED = ("choice", *(method for method in METHODS if method.startswith("continuation")))

# Where the options' probabilities can be added up: method -> the one whose scores add up to it.
_SUMMED = {
    "choice": "choice",
    "choice_permuted": "choice_permuted_arithmetic",
    "choice_permuted_arithmetic": "choice_permuted_arithmetic",
    "continuation_sum": "continuation_sum",
}


def check_methods(methods: Sequence[str]) -> None:
    """Raises UserError for an unknown method."""
    for method in methods:
        if method not in METHODS:
            raise UserError(f"method {method!r} is not known; choose from: {', '.join(METHODS)}.")


@functools.partial(jax.jit, static_argnums=0)
def confidences(methods: tuple[str, ...], arrays: dict[str, jax.Array]) -> dict[str, dict]:
    """Log-scores, probabilities and mass of every method, from one set of token scores.

    Args:
      methods: of ``METHODS``.
      arrays: "mask" [N, K], and for the methods that need them: "letters" [N, S, K], the letters'
        log-probabilities under every shift that is read (-inf beyond a question's own);
        "content_free" [N, C, K], those after prompts without content; "log_probs", "tokens"
        [N, K, T], the tokens' log-probabilities and which there are; "prior_log_probs",
        "prior_tokens", those without context; "characters", "bytes" [N, K], options' lengths.

    Returns:
      method -> "log_scores", "probs" [N, K] float32 and "mass" [N] float32 or None.
    """
    mask = arrays["mask"]

    def choice():
        return arrays["letters"][:, 0]

    def tokens() -> tuple[jax.Array, jax.Array]:
        return arrays["log_probs"], arrays["tokens"]

    scores: dict[str, Callable] = {
        "choice": choice,
        "choice_permuted": lambda: letters.permuted_log_scores(arrays["letters"], mask),
        "choice_permuted_arithmetic": lambda: letters.permuted_log_scores(
            arrays["letters"], mask, "arithmetic"
        ),
        "choice_contextual": lambda: letters.contextual_log_scores(
            choice(), letters.content_free_prior(arrays["content_free"], mask), mask
        ),
        "continuation_sum": lambda: texts.sum_log_probs(*tokens()),
        "continuation_min": lambda: texts.min_log_probs(*tokens()),
        "continuation_token": lambda: texts.mean_log_probs(*tokens()),
        "continuation_char": lambda: texts.log_probs_per_length(*tokens(), arrays["characters"]),
        "continuation_byte": lambda: texts.log_probs_per_length(*tokens(), arrays["bytes"]),
        "continuation_pmi": lambda: texts.pmi(
            *tokens(), arrays["prior_log_probs"], arrays["prior_tokens"]
        ),
    }
    result = {}
    for method in methods:
        log_scores = scores[method]()
        # Geometric means do not add up to the letters' probability; arithmetic ones do.
        summed = _SUMMED.get(method)
        result[method] = {
            "log_scores": log_scores,
            "probs": letters.renormalise(log_scores, mask),
            "mass": letters.option_mass(scores[summed]()) if summed else None,
        }
    return result
