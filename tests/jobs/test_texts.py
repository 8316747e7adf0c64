"""Training that reads options' texts, from the config to the comparison and the model card."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.jobs import compare, finetune
from calib_jax.models.lora import LoraConfig
from calib_jax.reports import card_method, model_card, predictions, read_metrics
from calib_jax.runs import prompt_file
from calib_jax.runs.run import Run
from calib_jax.training.interrupt import StopRequest
from configs.compare import get_config as compare_config
from configs.finetune import get_config
from tests.jobs.series.conftest import fill

METHOD = "continuation_token"


@pytest.fixture
def config(tmp_path, tiny_model):
    config = fill(get_config("cft@debug"), tmp_path, tiny_model)
    config.data.validation = ""
    config.train.reading, config.prompt.continuation = METHOD, "Q: {question} A:"
    return config


def test_a_run_on_texts_is_measured_by_texts(config, tmp_path, one_device, undrawn):
    workdir = tmp_path / "run"
    finetune.main(Run(config, workdir, StopRequest()))
    summary = json.loads((workdir / "summary.json").read_text())
    for state in ("before", "after"):
        for split, count in (("exam", 12), ("other", 10)):
            row = summary[state][split]
            assert row["method"] == METHOD and row["n"] == count
            scores = predictions.read(workdir / "predictions" / f"{state}-{split}.parquet")
            assert scores.method == METHOD
            # A mean over tokens: no sum of some thirty of them.
            assert scores.log_scores[scores.mask].min() > -15
    assert {row["reading"] for row in summary["rows"]} == {METHOD}
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [line["kind"] for line in lines].count("estep") == 1

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
        summary=summary,
    )
    rows = card_method.rows(facts)
    assert rows["confidence read"] == f"by the options' texts ({METHOD})"
    assert rows["supervised term"] == "SFT1 (the answer's text, all of its tokens)"
    with pytest.raises(UserError, match="the run reads options' texts"):
        prompt_file.describe(config, None, summary)


def test_methods_are_compared_by_texts(tmp_path, tiny_model, one_device, undrawn):
    config = fill(compare_config("debug"), tmp_path, tiny_model)
    config.compare.methods, config.train.reading = "before,temperature,cft", METHOD
    workdir = tmp_path / "run"
    compare.main(Run(config, workdir, StopRequest()))
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["comparisons"][0]["reading"] == METHOD
    assert {row["reading"] for row in summary["rows"]} == {METHOD}
    folder = workdir / "before-seed0" / "predictions"
    assert {predictions.read(path).method for path in folder.glob("*.parquet")} == {METHOD}
    assert len(list(folder.glob("*.parquet"))) == 3
