"""An invented series of three models, measured on text and facts."""

import numpy as np
import pytest

from calib_jax.confidence.next_token import NextTokens
from calib_jax.reports.lifecycle import figures
from calib_jax.reports.lifecycle.measure import measure


def build_tokens(documents=40, each=3, lift=0.0, seed=0, relations=("",)):
    """Predictions whose accuracy lies ``lift`` below their confidence."""
    rng = np.random.default_rng(seed)
    n = documents * each
    confidences = rng.uniform(0.05, 0.95, n).astype(np.float32)
    correct = rng.random(n) < confidences - lift
    gold = rng.integers(0, 300, n).astype(np.int32)
    names = tuple(f"doc-{i // each}" for i in range(n))
    log_probs = np.where(correct, np.log(confidences), np.log(confidences) - 3)
    return NextTokens(
        confidences=confidences,
        correct=correct,
        log_probs=log_probs.astype(np.float32),
        predictions=np.where(correct, gold, gold + 1).astype(np.int32),
        gold=gold,
        positions=np.arange(1, n + 1, dtype=np.int32),
        ids=names,
        documents=names,
        relations=tuple(relations[i % len(relations)] for i in range(n)),
        counts={"used": documents, "skipped_too_short": 2},
    )


def rows_of(result):
    """label -> part -> figures of a summary."""
    return {label: result[label] for label in result["models"]}


@pytest.fixture(scope="session")
def make_tokens():
    return build_tokens


@pytest.fixture(scope="session")
def run():
    """(summary, part -> label -> panel) of models of 70m, 1b and 12b parameters."""
    lifts = {"70m": 0.3, "1b": 0.1, "12b": 0.0}
    read = {
        label: {
            "text": build_tokens(lift=lift),
            "facts": build_tokens(30, 1, lift, seed=1, relations=("P1", "P2 <b>")),
        }
        for label, lift in lifts.items()
    }
    rows = {
        label: {
            part: measure(one, figures.unit(part), num_resamples=50)
            for part, one in by_part.items()
        }
        for label, by_part in read.items()
    }
    places = {"70m": 70e6, "1b": 1e9, "12b": 12e9}
    result = {
        "job": "lifecycle",
        "axis": "scale",
        "models": {label: {"model": f"x/{label}", "place": places[label]} for label in rows},
        **rows,
        "data": {"text": {"source": "text.txt", "skipped_empty": 3}},
    }
    panels = {
        part: {
            label: figures.panel(rows[label][part], read[label][part], 10, "right")
            for label in rows
        }
        for part in ("text", "facts")
    }
    return result, panels
