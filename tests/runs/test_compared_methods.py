"""Settings of one method alone: what cannot be is refused before anything is trained."""

import importlib
import importlib.util
import re

import pytest

from calib_jax import presets
from calib_jax.config import base, check_config
from calib_jax.errors import UserError, UserNotice
from calib_jax.jobs import compare
from calib_jax.runs import compared_methods
from calib_jax.runs.run import Run, as_json, check_workdir
from calib_jax.training import terms
from calib_jax.training.interrupt import StopRequest
from configs import compare as compare_module
from configs import finetune
from configs.compare import get_config
from tests.jobs.series.conftest import fill


@pytest.fixture
def config(tmp_path, tiny_model):
    config = fill(get_config("debug"), tmp_path, tiny_model)
    config.compare.methods = "before,temperature,cft,ece_only"
    config.mesh.shape = (1, 1, -1)
    return config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("cft.train.epochs=2", "write method:field=value, such as"),
        ("cft:train.epochs", "write method:field=value"),
        ("ctf:train.epochs=2", "names 'ctf'; .* Did you mean 'cft'"),
        ("rcft:train.epochs=2", r"to a method that config.compare.methods \(.*\) does not name"),
        ("before:train.epochs=2", "before, which trains nothing"),
        ("temperature:em.num_bins=5", "temperature, which trains nothing"),
        ("cft:train.epochs=2,cft:train.epochs=3", "cft:train.epochs appears twice"),
        ("cft:train.epoch=2", "cft: there is no field 'train.epoch'. Did you mean 'train.epochs'"),
        ("cft:train.epochs=1.5", "train.epochs=1.5 is not valid; expected a whole number"),
        ("cft:train.packing=yes", "train.packing=yes is not valid; expected True or False"),
        ("cft:train.epochs=0", "config.compare.settings, cft: config.train.epochs is 0"),
        ("cft:train.learning_rate=nan", "config.compare.settings, cft: .*learning_rate is nan"),
        ("cft:train.ece_weight=inf", "cft: config.train.ece_weight is inf"),
        ("cft:data.shots=2", "data.shots is the same for every method"),
        ("cft:seed=2", "seed is the same for every method"),
        ("cft:train.sft=sft2", "cft needs 'sft1'. The methods are cft, rcft"),
        ("cft:train.objective=released", "cft needs 'paper'"),
        ("cft:train.ece_weight=0", "it would learn no calibration"),
        ("cft:train.label_smoothing=0.1", "its labels are not smoothed"),
        ("cft:train.alpha=0.1", "weighs the terms of the released objective"),
        ("ece_only:train.microbatches=3", "ece_only: .*not a multiple of microbatches"),
        ("ece_only:train.lora.targets=x_proj", "ece_only: .*names 'x_proj'; this model's"),
        ("ece_only:train.early_stopping=1", "ece_only: .*config.data.validation, which is empty"),
        ("ece_only:em.refresh=sometimes", "ece_only: config.em.refresh is 'sometimes'"),
    ],
)
def test_settings_that_cannot_be(config, tmp_path, settings, message):
    config.compare.settings = settings
    with pytest.raises(UserError, match=message):
        compare.main(Run(config, tmp_path / "run", StopRequest()))
    assert not (tmp_path / "run").exists()


def test_the_old_name_of_the_model_as_it_is(config, tmp_path):
    """Accepted with a notice; and a folder that was made under it is the same run's."""
    config.compare.methods = "dpo,temperature,cft"
    check_workdir(tmp_path / "new", config)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(as_json(config))
    with pytest.warns(UserNotice, match="names 'dpo', which is now called 'before'"):
        methods = compared_methods.methods_of(config)
    assert methods == ["before", "temperature", "cft"]
    assert compared_methods.label(config, "before") == "DPO, as it is"
    config.compare.methods = "before,temperature,cft"
    check_workdir(tmp_path / "run", config)
    config.compare.methods = "before,cft"
    with pytest.raises(UserError, match="another config"):
        check_workdir(tmp_path / "run", config)
    config.compare.methods = "dpo,before"
    with pytest.raises(UserError, match="names 'before' twice"):
        check_config(config)


def test_what_is_minimised_in_signs():
    train = base().train
    assert terms.formula(train) == "SFT1 + 1 · ECE"
    train.sft, train.divergence, train.ece_weight = "sft2", "kl", 0.3
    assert terms.formula(train) == "SFT2 + 0.3 · ECE by KL"
    train.sft2_reduction, train.ece_weight = "mean", 0.0
    assert terms.formula(train) == "SFT2 (mean over tokens)"
    train.sft, train.ece_weight, train.divergence = "none", 2.0, "cross_entropy"
    assert terms.formula(train) == "2 · ECE by cross-entropy"


def test_the_config_file_names_the_methods():
    """Every calibrator, and of the trained ones those with a config file of their own."""
    words = set(re.split(r"[^a-z_0-9]+", compare_module.__doc__))
    own = {name for name in presets.METHODS if importlib.util.find_spec(f"configs.{name}")}
    assert {*compared_methods.known_methods()} - {*presets.METHODS} | own <= words
    assert len(own) >= 7 and "calib_jax.presets.METHODS" in compare_module.__doc__


def test_every_method_has_a_config():
    for name in presets.METHODS:
        configs = [finetune.get_config(name), finetune.get_config(f"{name}@debug")]
        if importlib.util.find_spec(f"configs.{name}"):
            configs.append(importlib.import_module(f"configs.{name}").get_config())
            assert configs[-1].to_dict() == configs[0].to_dict()
        for config in configs:
            assert config.method == name and config.job == "finetune"
            presets.check_method(config)
    with pytest.raises(UserError, match="no method 'ctf'; choose from: cft, rcft"):
        finetune.get_config("ctf")
