"""A loss that nobody knew: one term and one method, and every job and report has it."""

import jax.numpy as jnp
import pytest

from calib_jax import presets
from calib_jax.jobs import finetune
from calib_jax.models.lora import LoraConfig
from calib_jax.reports import card_method, model_card, read_metrics
from calib_jax.reports.figures import training_log
from calib_jax.runs import compared_methods, split_scores
from calib_jax.runs.run import Run
from calib_jax.training import terms
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.terms import Term
from configs.compare import get_config as compare_config
from configs.finetune import get_config
from tests.jobs.series.conftest import fill


def entropy(answers, settings):
    """−H of the letters, to be minimised: the confidence penalty (Pereyra et al. 2017)."""
    probs = answers.probs_NxK
    log_probs = jnp.log(jnp.where(answers.mask_NxK, probs, 1.0))
    return answers.mean(jnp.sum(probs * log_probs, axis=-1))


@pytest.fixture
def added(monkeypatch):
    """What a stranger adds to the two files: a term, and a method."""
    words = "the negative entropy of the letters' probabilities"
    monkeypatch.setitem(terms.TERMS, "penalty", Term("penalty", entropy, "(−H)", words))
    method = presets.Method("Confidence penalty", "sft1", terms="penalty=0.5")
    monkeypatch.setitem(presets.METHODS, "penalised", method)


def test_a_new_term_and_method_are_everywhere(
    added, tmp_path, tiny_model, one_device, capsys, monkeypatch
):
    workdir, trained = tmp_path / "run", {}
    # What was measured and how it is drawn has tests of its own.
    monkeypatch.setattr(split_scores, "finish", lambda *given: trained.update(given[-1]))
    config = fill(get_config("penalised@debug"), tmp_path, tiny_model)
    config.data.validation = ""
    finetune.main(Run(config, workdir, StopRequest()))

    lines = read_metrics(workdir / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    for line in steps:
        assert {"loss", "sft", "penalty"} <= set(line) and "ece" not in line
        assert line["penalty"] < 0
        assert line["loss"] == pytest.approx(line["sft"] + 0.5 * line["penalty"], rel=1e-5)
    assert not any(line["kind"] == "estep" for line in lines)  # nothing would read it
    assert "penalty" in capsys.readouterr().out
    labels = [line.get_label() for line in training_log.draw(lines).axes[-1].lines]
    assert labels == ["loss", "SFT term", "penalty term"]

    facts = model_card.Facts(
        name="tiny",
        revision="",
        on_hub=False,
        fingerprint="f",
        adapter="",
        architecture="A",
        format="merged",
        dtype="float32",
        identity="i",
        lora=LoraConfig(2, 4.0),
        versions={},
        config=config.to_dict(),
        summary=trained,
    )
    rows = card_method.rows(facts)
    assert rows["weight of the negative entropy of the letters' probabilities"] == 0.5
    assert rows["supervised term"] == "SFT1 (the answer's token)"
    assert "confidence bins" not in rows

    whole = fill(compare_config("debug"), tmp_path, tiny_model)
    whole.compare.methods = "before,penalised"
    own = {"penalised": {"train.terms": "penalty=0.25"}}
    derived = whole.copy_and_resolve_references()
    trained = {"penalised": compared_methods.with_method(derived, "penalised", own["penalised"])}
    rows = compared_methods.settings_rows(whole, compared_methods.methods_of(whole), trained, own)
    assert rows["penalised"]["method"] == "SFT1 + 0.25 · (−H)"
    assert compared_methods.label(whole, "penalised") == "Confidence penalty"


def test_a_method_keeps_its_further_terms(added):
    config = get_config("penalised")
    assert config.train.terms == "penalty=0.5"
    config.train.terms = "brier=1"
    with pytest.raises(ValueError, match=r"penalised needs weights of the terms in 'penalty=0\.5'"):
        presets.check_method(config)
    presets.set_method(config, "cft")
    config.train.ece_weight = 1.0
    assert config.train.terms == ""
    presets.check_method(config)
    config.train.terms = "penalty=0.5"
    with pytest.raises(ValueError, match="cft needs '': it has no further terms"):
        presets.check_method(config)
