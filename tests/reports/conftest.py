"""Invented scores for the reports' tests, and published files."""

import json

import numpy as np
import pytest

from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue, measure, states
from calib_jax.reports.study import authors_csv


def build_scores(n=60, num_options=4, bias=0.0, seed=0, ragged=False):
    """Random scores; `bias` is added to option A's logit; `ragged` questions have 2..K options."""
    answers_rng, rng = np.random.default_rng(n), np.random.default_rng(seed)
    counts = np.full(n, num_options)
    if ragged:
        counts = answers_rng.integers(2, num_options + 1, n)
    mask = np.arange(num_options) < counts[:, None]
    logits = rng.normal(size=(n, num_options))
    logits[:, 0] += bias
    logits = np.where(mask, logits, -np.inf)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scores(
        log_scores=np.where(mask, logits - 3.0, -np.inf).astype(np.float32),
        probs=probs.astype(np.float32),
        mask=mask,
        answers=answers_rng.integers(0, counts).astype(np.int32),
        ids=tuple(f"q-{i}" for i in range(n)),
        tasks=tuple("invented" if i % 2 else None for i in range(n)),
        subjects=tuple(None if i % 3 else "physics" for i in range(n)),
    )


@pytest.fixture(scope="session")
def make_scores():
    return build_scores


# What the layouts that tests write out hold.
_LAID_OUT = (
    *("conf_ece", "conf_ece_null_q95", "cw_ece", "accuracy", "nll", "brier", "mean_confidence"),
    *("auroc", "overconfidence", "candidate_mass"),
)


@pytest.fixture
def laid_out(monkeypatch):
    """A catalogue that does not grow: a further metric must not fail a test of a layout."""
    kept = tuple(metric for metric in catalogue.METRICS if metric.key in _LAID_OUT)
    monkeypatch.setattr(catalogue, "METRICS", kept)


def invented_row(scores, domain="", seed=0, **more):
    """A measurement's figures as ``measure.measure`` names them: drawn, not computed."""
    rng = np.random.default_rng(seed)
    chosen = np.bincount(scores.predictions, minlength=scores.mask.shape[1])
    options = scores.mask.sum(axis=1)
    row = {"domain": domain, "method": scores.method, "n": len(scores)}
    for metric in catalogue.METRICS:
        value = round(float(rng.uniform(0.1, 0.8)), 3)
        row[metric.key] = value
        if metric.interval and metric.function:
            row[f"{metric.key}_ci"] = [round(value - 0.06, 3), round(value + 0.07, 3)]
    del row["candidate_mass"]
    row |= measure.uniform(options) | {
        "letter_counts": chosen.tolist(),
        "top_letter": "ABCD"[chosen.argmax()],
        "top_letter_share": float(chosen.max() / len(scores)),
        "answer_counts": np.bincount(scores.answers, minlength=scores.mask.shape[1]).tolist(),
    }
    return row | more


@pytest.fixture(scope="session")
def run():
    """(summary, scores) of a run: out-of-domain split listed first, so that order can be seen.

    The figures are invented: nothing is measured.
    """
    domains = {"far": "out", "near": "in"}
    scores = {
        state: {
            split: build_scores(60, bias=bias, seed=seed + i, ragged=split == "far")
            for i, split in enumerate(domains)
        }
        for state, bias, seed in (("before", 3.0, 0), ("after", 0.2, 9))
    }
    rows = {
        state: {
            split: invented_row(one, domains[split], seed=10 * i + j)
            for j, (split, one) in enumerate(by_split.items())
        }
        for i, (state, by_split) in enumerate(scores.items())
    }
    changes = {}
    for split in domains:
        changes[split] = {}
        for key in (metric.key for metric in catalogue.at(catalogue.CHANGE)):
            difference = rows["after"][split][key] - rows["before"][split][key]
            changes[split] |= {key: difference, f"{key}_ci": [difference - 0.1, difference + 0.1]}
    named = states.named(rows)
    result = {"schema": 2, "job": "finetune", "method": "cft", "model": "Tiny", **named}
    return result | {"change": changes}, scores


# --- Files as the authors of Oh and Hwang (2024) published them -----------------------------------

AUTHORS_FILES = {"choice": "choice", "sum": "contunuation_sum", "min": "contunuation_min"}
HEADER = (
    ",ece change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",sce change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
    ",acc change(IT-PT),change ratio((IT-PT/)PT),ratio rank"
)


def file_text(published, name):
    """A file as the authors published it; written without the code under test."""
    blocks = []
    for task, rows in published[name].items():
        lines = [f"{task},{AUTHORS_FILES[name]},,,,,,,,", HEADER]
        for i, model in enumerate(published["models"]):
            if i >= len(rows):  # the two largest, by continuation_min
                lines.append(model + "," * 9)
                continue
            (a, b, c), (d, e, f), (g, h, j) = (rows[i][k : k + 3] for k in (0, 3, 6))
            lines.append(f"{model},{a:.3f},{b:.2f}%,{c},{d:.3f},{e:.2f}%,{f},{g:.2f}%,{h:.2f}%,{j}")
        blocks.append("\r\n".join(lines))
    return "\r\n,,,,,,,,,\r\n".join(blocks)


@pytest.fixture(scope="session")
def published(golden):
    return json.loads((golden / "paper2" / "published.json").read_text())


@pytest.fixture(scope="session")
def author_files(published, tmp_path_factory):
    """choice, sum and min -> path."""
    folder = tmp_path_factory.mktemp("authors")
    paths = {}
    for name in AUTHORS_FILES:
        paths[name] = folder / f"{name}.csv"
        paths[name].write_bytes(file_text(published, name).encode())
    return paths


@pytest.fixture(scope="session")
def published_cells(author_files):
    return authors_csv.merged({str(p): authors_csv.read(p) for p in author_files.values()})
