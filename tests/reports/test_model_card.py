"""The model card: every figure comes from the run, and what it tells readers to run runs."""

import dataclasses
import json
import re

import numpy as np
import pytest

from calib_jax import load_model
from calib_jax.config import base
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig
from calib_jax.reports import model_card, reproduction
from tests.conftest import write_tiny_model

LORA = LoraConfig(2, 3.0, targets=("q_proj",))
ROW = {"n": 123, "domain": "in", "answer_counts": [60, 63], "num_options": [2, 2]}
METRICS = ("conf_ece", "cw_ece", "accuracy", "nll", "brier")


def row(shift):
    values = {name: 0.1111 * (i + 1) + shift for i, name in enumerate(METRICS)}
    intervals = {f"{name}_ci": [value - 0.05, value + 0.05] for name, value in values.items()}
    return {**ROW, **values, **intervals}


SUMMARY = {
    "before": {"quiz": row(0.2)},
    "after": {"quiz": row(0.0)},
    "training": {"questions": 456, "steps": 29},
    "data": {"n": {"train": 456, "quiz": 123}, "removed_overlap_total": 7},
    "versions": {"jax": "1.2.3"},
}


@pytest.fixture
def facts():
    config = base()
    config.data.train, config.data.eval = "offline:one/train", "quiz=quiz.jsonl"
    config.train.ece_weight = 0.625
    return model_card.Facts(
        name="owner/some-model",
        revision="step123",
        on_hub=True,
        fingerprint="0123abcd",
        adapter="",
        architecture="LlamaForCausalLM",
        format="merged",
        dtype="bfloat16",
        identity="feedbeef",
        lora=LORA,
        config=config.to_dict(),
        summary=SUMMARY,
        versions={"jax": "4.5.6"},
    )


def front_matter(card):
    start, metadata, _ = card.split("---\n", 2)
    assert start == ""
    lines = [line for line in metadata.splitlines() if ": " in line]
    return dict(line.split(": ", 1) for line in lines)


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_it_states_base_data_method_and_figures(facts):
    card = model_card.text(facts)
    metadata = front_matter(card)
    assert metadata["base_model"] == "owner/some-model"
    assert metadata["library_name"] == "transformers"
    assert model_card.identity_line("feedbeef") in card
    for stated in (
        "step123",
        "`0123abcd`",
        "0.625",
        "rank 2, alpha 3",
        "456 questions",
        "| 29 |",
        "bfloat16",
    ):
        assert stated in card, stated
    for stated in ("offline:one/train", "quiz: 123 questions", "jax 1.2.3", "jax 4.5.6"):
        assert stated in card, stated
    for shift in (0.2, 0.0):
        for name in METRICS:
            value = row(shift)[name]
            assert f"{value:.3f} [{value - 0.05:.3f}, {value + 0.05:.3f}]" in card


def test_a_conversion_invents_no_figures(facts):
    plain = dataclasses.replace(facts, config=None, summary=None, lora=None, on_hub=False)
    card = model_card.text(plain)
    assert "nothing was measured" in card
    assert "Method" not in card and "ECE" not in card and "base_model" not in front_matter(card)


def test_an_adapters_card(facts):
    card = model_card.text(dataclasses.replace(facts, format="adapter", adapter="x/start"))
    assert front_matter(card)["library_name"] == "peft"
    assert "x/start (training went on from it)" in card
    full = model_card.text(dataclasses.replace(facts, lora=None, adapter="x/start"))
    assert "x/start (merged into it first)" in full and "all parameters" in full


def changed(facts, changes, summary=None):
    """The card after changes of the config, field by field, and of the summary."""
    config = base()
    config.update(facts.config)
    config.update_from_flattened_dict(changes)
    return model_card.text(
        dataclasses.replace(facts, config=config.to_dict(), summary={**SUMMARY, **(summary or {})})
    )


def test_what_is_the_default_is_not_told(facts):
    card = model_card.text(facts)
    assert "closed on the right" in card and "(EM iterations)" in card
    for word in ("smoothing", "shrinkage", "anew", "early stopping", "quantised as", "Stages"):
        assert word not in card, word


@pytest.mark.parametrize(
    ("changes", "stated", "absent"),
    [
        ({"em.binning": "mass", "em.num_bins": 7}, "7, with as many questions in each", "closed"),
        ({"em.shrinkage": 2.5}, "as by 2.5 questions", "mass"),
        (
            {"em.refresh": "steps", "em.refresh_steps": 12},
            "| bins and targets made anew | every 12 steps |",
            "EM iterations",
        ),
        ({"em.refresh": "online"}, "no E-step", "EM iterations"),
        ({"train.label_smoothing": 0.2}, "0.2 over the vocabulary", "over the options"),
        (
            {"train.label_smoothing": 0.2, "train.smooth_over": "letters"},
            "0.2 over the options' letters",
            "over the vocabulary",
        ),
        ({"model.quantize": "nf4"}, "a base quantised as nf4. Other", "in its own precision"),
        (
            {"train.divergence": "kl", "train.sft": "sft2"},
            "Kullback-Leibler divergence of the targets and the model",
            "tokens, their mean",
        ),
        (
            {
                "train.objective": "released",
                "train.ece_weight": 0.0,
                "train.alpha": 0.875,
                "em.refresh": "once",
            },
            "| α | 0.875 |",
            "weight of the calibration term",
        ),
        (
            {"train.ece_weight": 0.0, "method": "sft"},
            "fine-tuned by SFT",
            "confidence bins",
        ),
    ],
)
def test_settings_that_are_not_the_default(facts, changes, stated, absent):
    card = changed(facts, changes)
    assert stated in card and absent not in card


def test_early_stopping_tells_what_was_trained(facts):
    stops = {
        "train.early_stopping": 2,
        "train.epochs": 9,
        "data.validation": "val.jsonl",
        "train.early_stopping_metric": "brier",
    }
    training = {"questions": 456, "epochs": 9, "epochs_trained": 5, "steps": 20, "best_epoch": 3}
    data = {"n": {"validation": 77}}
    card = changed(facts, stops, {"training": training, "data": data})
    for stated in (
        "| epochs (EM iterations) | 5 of 9 |",
        "| optimiser steps | 20 |",
        "after 2 epochs without a lower brier on val.jsonl",
        "that after epoch 3",
        "77 questions from: val.jsonl",
    ):
        assert stated in card, stated
    del training["epochs_trained"]  # of an older version: what was planned
    card = changed(facts, stops, {"training": training, "data": data})
    assert "| at most 9 |" in card and "| at most 20 |" in card


ALIGNED = {
    "training": {"examples": 31, "steps": 8, "epochs": 2},
    "data": {
        "align": {
            "train": {"left_out": {"identical_answers": 4}, "removed_overlap": 5, "n": 31},
        }
    },
    "preferences": {
        "held_out": {"pairs": {"before": {"accuracy": 0.25}, "after": {"n": 8, "accuracy": 0.75}}}
    },
}
NOT_ALIGNED = ("calibrated by", "calibration-aware", "bins", "SFT1", "EM iter", "offline:one/train")


def test_dpo_claims_no_calibration(facts):
    align = {"job": "align", "method": "dpo", "align.train": "p.jsonl", "align.beta": 0.07}
    held_out = {"align.eval": "held.jsonl", "align.label_smoothing": 0.125, "train.epochs": 2}
    stated = dataclasses.replace(facts, adapter="x/start")
    card = changed(stated, align | held_out, ALIGNED)
    for text in (
        "# some-model, trained by DPO",
        "31 preference pairs from: p.jsonl",
        "| β | 0.07 |",
        "| label smoothing (cDPO) | 0.125 |",
        "the model at the start (base with x/start)",
        "| epochs | 2 |",
        "| optimiser steps | 8 |",
        "rank 2, alpha 3",
        "5 (their prompts are among those that are measured), 4 (identical answers)",
        "8 from held.jsonl; the chosen answer is the likelier one in 25.0% of them before and in "
        "75.0% after",
        "quiz: 123 questions",
        f"{row(0.0)['conf_ece']:.3f}",
        "\n- dpo\n",
    ):
        assert text in card, text
    for text in NOT_ALIGNED:
        assert text not in card, text


def test_sft_claims_no_calibration(facts):
    sft = {"job": "align", "method": "sft", "align.method": "sft", "align.train": "demos.jsonl"}
    card = changed(facts, sft, {"training": {"examples": 12, "steps": 3, "epochs": 1}})
    assert "trained by SFT" in card and "12 demonstrations from: demos.jsonl" in card
    for text in (*NOT_ALIGNED, "β", "reference", "pairs"):
        assert text not in card, text


def test_the_stages_before(facts):
    config = base()
    config.job, config.align.method, config.align.train = "align", "sft", "demos.jsonl"
    stage = model_card.Stage("runs/1-sft", config.to_dict(), {"training": {"examples": 12}})
    card = model_card.text(dataclasses.replace(facts, adapter="a", earlier=(stage,)))
    assert "1. SFT on 12 demonstrations from: demos.jsonl (run runs/1-sft)" in card
    assert "2. CFT on 456 questions from: offline:one/train (this run" in card


@pytest.fixture
def exported(tmp_path):
    """A base, an adapter on it, and the snippets with the folders' names filled in."""
    folder, adapter = write_tiny_model(tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    config = load_model(folder).config
    from tests.models.test_peft import random_adapters

    tree = random_adapters(config, LORA)
    peft.write_adapter(adapter, tree, LORA, config, base=str(folder))

    def of(facts, format):
        name = str(folder)
        stated = dataclasses.replace(facts, name=name, revision="", on_hub=False, format=format)
        here = str(adapter if format == "adapter" else folder)
        return [s.replace(reproduction.HERE, here) for s in snippets(model_card.text(stated))]

    return of


@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_what_it_says_of_loading_runs(format, facts, exported):
    (ours,) = [text for text in exported(facts, format) if "calib_jax" in text]
    names = {}
    exec(ours, names)
    assert names["model"].logits(np.zeros((1, 3), np.int32)).shape == (1, 3, 320)
    assert (names["model"].lora is not None) == (format == "adapter")


@pytest.mark.parametrize("format", ["merged", "adapter"])
def test_what_it_says_of_loading_elsewhere_agrees(format, facts, exported):
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    (theirs,) = [text for text in exported(facts, format) if "transformers" in text]
    (ours,) = [text for text in exported(facts, format) if "calib_jax" in text]
    found, expected = {}, {}
    exec(ours, found)
    exec(theirs, expected)
    tokens = np.arange(12, dtype=np.int32).reshape(1, 12)
    with torch.no_grad():
        logits = expected["model"](torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(found["model"].logits(tokens), logits, rtol=0, atol=1e-4)


def test_a_base_that_peft_cannot_name_gets_a_way_to_make_it(facts):
    card = model_card.text(
        dataclasses.replace(
            facts, name="offline:x", on_hub=False, revision="", format="adapter", loadable=False
        )
    )
    assert "--config.model.name=offline:x --workdir=path/to/the/base" in card
    assert json.dumps("path/to/the/base") in card
