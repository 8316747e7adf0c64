"""The series of models as text: labels, places on the axis, and what is refused."""

import pytest

from calib_jax.config import base, check_config
from calib_jax.errors import UserError
from calib_jax.runs.series import series
from configs import lifecycle as configs


def parsed(models, axis="scale", **model):
    config = base()
    config.job = "lifecycle"
    config.lifecycle.models, config.lifecycle.axis = models, axis
    for name, value in model.items():
        config.model[name] = value
    check_config(config)
    return series(config)


def test_labels_have_places_on_the_axes_of_numbers():
    def places(text, axis):
        return [e.place for e in parsed(",".join(f"{x}=a/b" for x in text.split()), axis)]

    assert places("70m pythia-1.4b 12B big_8b", "scale") == [70e6, 1.4e9, 12e9, 8e9]
    assert places("0 step512 step-1000 143k", "step") == [0, 512, 1000, 143_000]
    assert places("epoch0 ep1 e-2.5 3", "epoch") == [0, 1, 2.5, 3]
    assert places("base tuned", "setting") == [None, None]


def test_what_a_label_says_beside_its_place_is_its_setting():
    def settings(text, axis):
        return [
            (e.place, e.setting) for e in parsed(",".join(f"{x}=a/b" for x in text.split()), axis)
        ]

    assert settings("epoch0 alpaca-full-epoch1 lora_r8_epoch1 oa-ep-2", "epoch") == [
        (0, ""),
        (1, "alpaca-full"),
        (1, "lora-r8"),
        (2, "oa"),
    ]
    assert settings("pythia-70m llama-7b 7b", "scale") == [
        (70e6, "pythia"),
        (7e9, "llama"),
        (7e9, ""),
    ]
    assert settings("1.4b-step0 1.4b-step1000", "step") == [(0, "1.4b"), (1000, "1.4b")]
    with pytest.raises(UserError, match="'1b' and '1000m' are two models at one scale"):
        parsed("1b=a/b,1000m=c/d")


def key(subject):
    return subject.name, subject.revision, subject.adapter


def test_models_revisions_and_adapters(tmp_path):
    odd = tmp_path / "a@b+c"
    odd.mkdir()
    found = parsed(f"1b=owner/name@step4, 2b = {odd} ,3b=owner/name@x+other/adapter,4b=a/b+{odd}")
    assert [(e.label, *key(e.subject)) for e in found] == [
        ("1b", "owner/name", "step4", ""),
        ("2b", str(odd), "", ""),
        ("3b", "owner/name", "x", "other/adapter"),
        ("4b", "a/b", "", str(odd)),
    ]


def test_without_a_series_the_configs_model_stands_alone():
    (entry,) = parsed("", name="offline:smollm2-135m-instruct")
    assert entry.label == "smollm2-135m-instruct"
    assert key(entry.subject) == ("offline:smollm2-135m-instruct", "", "")
    (entry,) = parsed("", name="own/model!", revision="r", adapter="x")
    assert entry.label == "model_" and key(entry.subject) == ("own/model!", "r", "x")


@pytest.mark.parametrize(
    ("models", "axis", "message"),
    [
        ("70m=a/b,70M=c/d", "scale", "label '70M' appears twice"),
        ("70m", "scale", "'70m' is not understood"),
        ("70m=", "scale", "is not understood"),
        ("a/b=c/d", "setting", "is not understood"),
        ("base=a/b", "scale", "'base' states no scale (such as 70m"),
        ("1b-2b=a/b", "scale", "states no scale"),
        ("1b=a/b", "step", "states no step"),
        ("models=a/b", "setting", "no model can be called 'models'"),
        ("70m=a/b", " ", "axis is empty"),
        ("70m=a/b", "Steps", "did you mean 'step'"),
        ("70m=a/b", "scales", "did you mean 'scale'"),
    ],
)
def test_what_is_not_understood_is_refused(models, axis, message):
    with pytest.raises(UserError) as error:
        parsed(models, axis)
    assert message in str(error.value)


def test_a_revision_of_config_model_has_no_place_in_a_series():
    with pytest.raises(UserError, match=r"with config.lifecycle.models write label=model"):
        parsed("70m=a/b", revision="main")


@pytest.mark.parametrize(
    ("preset", "count", "first", "last"),
    [
        ("pythia_scale", 8, 70e6, 12e9),
        ("pythia_steps", 18, 0, 143_000),
        ("llama_alignment", 3, None, None),
        ("", 1, None, None),
        ("debug", 1, None, None),
    ],
)
def test_every_preset_names_a_series(preset, count, first, last):
    config = configs.get_config(preset)
    entries = series(config)
    assert len(entries) == count and (entries[0].place, entries[-1].place) == (first, last)
    large = preset not in ("", "debug")
    assert bool(config.lifecycle.facts) == bool(config.lifecycle.text) == large
    assert config.job == "lifecycle" and config.data.shots == 5 and config.prompt.max_length == 0
    with pytest.raises(UserError, match="no preset 'x'"):
        configs.get_config("x")
