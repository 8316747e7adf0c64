"""The job "stages" on a tiny model: a chain that is stopped and continued, and bad input."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.api import load_model
from calib_jax.errors import UserError
from calib_jax.jobs import stages
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.questions.preferences import encode_preferences, load_preferences
from calib_jax.reports import result as results
from calib_jax.reports.pairs import predictions as stored
from calib_jax.runs import base_model
from calib_jax.runs.run import Run, show_if_finished
from calib_jax.runs.stages_chain import chain_of
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import TrainState
from configs.stages import get_config
from tests.conftest import make_questions, write_questions
from tests.jobs.conftest import StopWhen


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    questions = make_questions(24, options=(4, 4))
    for name, part in (("align", questions[:8]), ("tune", questions[8:16])):
        write_questions(folder / f"{name}.jsonl", part)
    write_questions(folder / "exam.jsonl", questions[16:])
    return folder


@pytest.fixture
def config(inputs, tiny_model, one_device):
    config = get_config("debug")
    config.model.name = str(tiny_model)
    config.prompt.max_length = config.align.max_length = 512
    config.align.train = f"questions:{inputs / 'align.jsonl'}@0.8"
    config.align.eval = f"questions:{inputs / 'exam.jsonl'}@0.8"
    config.data.train = str(inputs / "tune.jsonl")
    config.data.eval = str(inputs / "exam.jsonl")
    for section in ("align", "data"):
        config[section].train_size = config[section].eval_size = 0
    config.stages.chain = "dpo,cft"
    config.stages.settings = "dpo:train.learning_rate=0.1,dpo:train.epochs=3"
    config.train.batch_size = 4
    config.train.lora.rank = 2
    config.batch.token_budget = 256
    config.batch.max_buckets = 1
    config.report.num_resamples = 20
    return config


@pytest.fixture
def trained(monkeypatch):
    """Stages train in no time: each shifts what it starts from; its folder, in order."""
    done = []

    def train(run):
        config, workdir = run.config, run.workdir
        model = base_model.load(config, "")
        lora = LoraConfig(config.train.lora.rank, config.train.lora.alpha)
        shapes = lora_shapes(model.config, lora)
        start = model.adapters or jax.tree.map(
            lambda shape: jnp.zeros(shape[0]), shapes, is_leaf=lambda x: isinstance(x, tuple)
        )
        rng = np.random.default_rng(len(done))
        state = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), start)
        run.claim()
        checkpoints = Checkpoints(workdir / "checkpoints", keep=1, fingerprint=model.fingerprint)
        optimizer = OptimizerConfig(1e-3, 1, 0.1, 0.0, 1.0).transformation()
        whole = TrainState(jnp.int32(1), state, optimizer.init(state))
        checkpoints.save(1, whole, {"targets": jnp.zeros(1)}, {"epoch": 1, "batch": 0})
        checkpoints.close()
        row = {"n": 8, "domain": "in", "accuracy": 0.5, "conf_ece": 0.1}
        row["answer_counts"] = [4, 4]
        result = {"before": {"exam": row}, "after": {"exam": row}, "versions": {}}
        results.write(workdir / "summary.json", result)
        done.append((workdir.name, model.adapters, state))

    monkeypatch.setattr(stages.align, "main", train)
    monkeypatch.setattr(stages.finetune, "main", train)
    return done


@pytest.fixture
def light(undrawn, monkeypatch):
    """Measures that have tests of their own and compile for long; nothing is drawn."""

    def measured(scores, domain, **options):
        figures = {
            "accuracy": float((scores.predictions == scores.answers).mean()),
            "mean_confidence": float(scores.confidences.mean()),
            "conf_ece": float(metrics.conf_ece(scores.probs, scores.answers, scores.mask)),
        }
        ends = {f"{name}_ci": [value, value] for name, value in figures.items()}
        top = {"top_letter_share": 1.0, "top_letter": "A"}
        return {"n": len(scores), "domain": domain, **figures, **ends, **top}

    def changed(before, after, **options):
        moved = float(after.confidences.mean() - before.confidences.mean())
        return {"mean_confidence": moved, "mean_confidence_ci": [moved, moved]}

    monkeypatch.setattr(stages.measure, "measure", measured)
    monkeypatch.setattr(stages.measure, "change", changed)
    return undrawn


@pytest.mark.slow
def test_a_chain_goes_on_where_it_was_stopped(config, trained, light, tmp_path, capsys):
    workdir = tmp_path / "run"
    exported = workdir / "1-dpo" / "adapter" / "adapter_model.safetensors"
    with pytest.raises(Stopped):
        stages.main(Run(config, workdir, StopWhen(exported)))
    written = exported.read_bytes()
    assert not (workdir / "2-cft").exists() and not (workdir / "summary.json").exists()
    stages.main(Run(config, workdir, StopRequest()))
    assert exported.read_bytes() == written
    assert [name for name, _, _ in trained] == ["1-dpo", "2-cft"]  # each once

    # Every stage goes on from what the one before has trained, with settings of its own.
    (_, nothing, after_dpo), (_, start, after_cft) = trained
    assert nothing is None
    chex.assert_trees_all_close(start, after_dpo)
    first, second = (
        json.loads((workdir / name / "config.json").read_text()) for name in ("1-dpo", "2-cft")
    )
    assert first["job"] == "align" and first["align"]["method"] == "dpo"
    assert first["train"]["learning_rate"] == 0.1 and first["train"]["epochs"] == 3
    assert second["job"] == "finetune" and second["train"]["ece_weight"] > 0
    assert second["train"]["learning_rate"] == config.train.learning_rate

    # What is measured is the model with the last adapter.
    result = results.read(workdir / "summary.json")
    assert list(result["stages"]) == list(result["letters"]) == ["instruct", "dpo", "cft"]
    model = load_model(config.model.name)
    lora = LoraConfig(config.train.lora.rank, config.train.lora.alpha)
    model = dataclasses.replace(model, lora=lora, adapters=after_cft)
    items = load_preferences(config.align.eval, 0, config.seed).items
    _, groups, _ = encode_preferences(model.tokenizer, items, 512)
    side = groups[0][0]
    logits = np.asarray(model.logits(side.tokens[None]))[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    place = workdir / "models" / "cft" / "predictions" / "pairs.parquet"
    assert side.num_targets == 1
    own = logs[-2, side.tokens[-1]]
    assert stored.read_pairs(place).chosen[0] == pytest.approx(own, abs=1e-3)
    pairs, change = result["pairs"]["pairs"], result["change"]
    for key in ("mean_ratio", "share_above_rate"):
        moved = pairs["dpo"][key] - pairs["instruct"][key]
        assert change["dpo"]["pairs"][key] == pytest.approx(moved, abs=1e-6)
    assert set(change["cft"]) == {"exam", "pairs", "pairs_trained"}
    # Among the pairs that were learnt is none of a question that is measured.
    learnt = stored.read_pairs(place.with_name("pairs_trained.parquet"))
    assert len(learnt) == 8 and not set(learnt.ids) & set(stored.read_pairs(place).ids)
    moved = {(row["a"], row["b"], row["probe"]) for row in result["contrasts"]}
    assert ("dpo", "cft", "exam") in moved and ("instruct", "dpo", "pairs_trained") in moved
    assert light == ["figures/stages"]
    assert (workdir / "report.html").read_text() == "Calibration after every stage"
    assert "pairs,cft,mean_ratio," in (workdir / "tables" / "stages.csv").read_text()
    capsys.readouterr()
    assert show_if_finished(workdir)
    assert "policy ratio" in capsys.readouterr().out


def test_models_that_went_through_the_stages_elsewhere(config, tiny_model, light, tmp_path):
    config.stages.models = f"base={tiny_model},dpo={tiny_model}"
    config.stages.settings = ""
    stages.main(Run(config, tmp_path / "run", StopRequest()))
    result = results.read(tmp_path / "run" / "summary.json")
    assert list(result["letters"]) == ["base", "dpo"]
    # The same model twice: nothing changes.
    assert result["change"]["dpo"]["exam"]["mean_confidence"] == 0
    assert result["change"]["dpo"]["pairs"]["mean_margin_ci"] == [0, 0]
    assert not list((tmp_path / "run").glob("[0-9]-*"))


def test_the_out_of_domain_split_is_drawn_however_many_there_are(
    config, inputs, tiny_model, light, tmp_path, monkeypatch
):
    shown = []
    view = stages.stages.view
    monkeypatch.setattr(stages.stages, "view", lambda *given: shown.append(given) or view(*given))
    config.stages.models = f"base={tiny_model}"
    config.stages.settings = config.align.eval = ""
    names = ["a", "b", "c", "d"]
    questions = make_questions(16, seed=3, options=(4, 4))
    # Their texts are nobody else's: what decides is the name.
    questions = [dataclasses.replace(q, question=f"Elsewhere: {q.question}") for q in questions]
    for i, name in enumerate(names):
        write_questions(tmp_path / f"{name}.jsonl", questions[4 * i : 4 * i + 4])
    config.data.train = ",".join(f"{name}={inputs / 'tune.jsonl'}" for name in "abc")
    config.data.eval = ",".join(f"{name}={tmp_path / name}.jsonl" for name in names)
    # One name is one task: a, b and c are learnt from, d is not.
    stages.main(Run(config, tmp_path / "run", StopRequest()))
    result = results.read(tmp_path / "run" / "summary.json")
    assert result["drawn"] == {
        "in-domain (pooled)": {"domain": "in", "splits": ["a", "b", "c"]},
        "d": {"domain": "out", "splits": ["d"]},
    }
    rows = result["letters"]["base"]
    assert list(rows) == ["in-domain (pooled)", *names]
    assert rows["in-domain (pooled)"]["n"] == 12
    accuracy = sum(rows[name]["accuracy"] * 4 for name in "abc") / 12
    assert rows["in-domain (pooled)"]["accuracy"] == pytest.approx(accuracy)
    ((_, panels),) = shown
    assert list(panels) == list(result["drawn"])
    assert panels["in-domain (pooled)"]["base"].bins.counts.sum() == 12
    tables = (tmp_path / "run" / "tables" / "stages.md").read_text()
    assert "in-domain (pooled): a + b + c (12 questions)" in tables


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages.chain": ""}, "config.stages.chain names nothing; choose from: sft, dpo"),
        ({"stages.chain": "sft,dop"}, "Did you mean 'dpo'"),
        ({"train.method": "full"}, "Set --config.train.method=lora"),
        ({"stages.settings": "dpo:train.method=full"}, "dpo: config.train.method is 'full'"),
        ({"stages.settings": "dpo.train.epochs=2"}, "write stage:field=value"),
        ({"stages.settings": "sft:train.epochs=2"}, "a stage that config.stages.chain"),
        ({"stages.settings": "dpo:train.epoch=2"}, "Did you mean 'train.epochs'"),
        (
            {"stages.settings": "dpo:train.epochs=two"},
            "train.epochs=two is not valid; expected a whole number",
        ),
        ({"stages.settings": "dpo:train.epochs=0"}, "config.train.epochs is 0"),
        ({"stages.settings": "cft:em.binning=even"}, "config.em.binning is 'even'"),
        ({"stages.settings": "dpo:model.name=x"}, "the chain's own"),
        ({"stages.settings": "dpo:seed=1,dpo:seed=2"}, "dpo:seed appears twice"),
        ({"stages.settings": "cft:train.ece_weight=0"}, "it would learn no calibration"),
        ({"stages.start": "dpo"}, "config.stages.start is 'dpo'"),
        ({"stages.models": "a=nowhere", "stages.settings": ""}, "no such file or folder"),
        (
            {"stages.models": "a=run:nowhere", "stages.settings": ""},
            "config.stages.models, a: nowhere/config.json: no such",
        ),
        ({"align.eval": "train:3"}, "every model of the job stages is asked the same"),
        ({"data.train": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"align.train": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(config, tmp_path, changes, said):
    for field, value in changes.items():
        section, key = field.split(".")
        config[section][key] = value
    with pytest.raises(UserError) as caught:
        stages.main(Run(config, tmp_path / "run", StopRequest()))
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_stage_twice_has_a_name_of_its_own(config, tmp_path):
    config.stages.chain = "cft,dpo,cft"
    chain = chain_of(config, tmp_path)
    assert [stage.label for stage in chain] == ["cft", "dpo", "cft-2"]
    assert [stage.folder.name for stage in chain] == ["1-cft", "2-dpo", "3-cft"]
    rates = [stage.config.train.learning_rate for stage in chain]
    np.testing.assert_allclose(rates, [1e-3, 0.1, 1e-3])
