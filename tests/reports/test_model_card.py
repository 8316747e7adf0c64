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
from calib_jax.reports import model_card
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
    assert "x/start (the adapter that went in)" in card
    full = model_card.text(dataclasses.replace(facts, lora=None, adapter="x/start"))
    assert "x/start (merged into it first)" in full and "all parameters" in full


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
        return [s.replace(model_card.HERE, here) for s in snippets(model_card.text(stated))]

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
        dataclasses.replace(facts, name="offline:x", on_hub=False, revision="", format="adapter")
    )
    assert "--config.model.name=offline:x --workdir=path/to/the/base" in card
    assert json.dumps("path/to/the/base") in card
