"""Answers to prompts: a cache for every row, greedy or sampled, into the judges' answer files."""

from calib_jax.generation.generator import Answer, Generator
from calib_jax.generation.prompts import Prompt, encode_prompts, load_prompts
from calib_jax.generation.sampler import Sampling
from calib_jax.generation.stops import stop_tokens

__all__ = [
    "Answer",
    "Generator",
    "Prompt",
    "Sampling",
    "encode_prompts",
    "load_prompts",
    "stop_tokens",
]
