"""Every field × every job: obeyed, or refused by name."""

import importlib
import re
from pathlib import Path

import pytest

from calib_jax import UserError, fields
from calib_jax.config import base
from calib_jax.jobs import JOBS
from calib_jax.main import main

PATHS = fields.paths(base())
OTHER = {
    "mesh.shape": (1, 2, 1),
    "plan.dimensions": {"hidden_size": 8},
    "confidence.methods": "next_token",
}


def other(path):
    """A value of the field that is not its default."""
    value = PATHS[path]
    if path in OTHER:
        return OTHER[path]
    if isinstance(value, bool):
        return not value
    return f"{value}x" if isinstance(value, str) else value + 1


def with_field(job, path, value):
    config = base()
    config.job = job
    *sections, key = path.split(".")
    node = config
    for name in sections:
        node = node[name]
    if path != "job":
        node[key] = value
    return config


def test_every_field_has_a_line_and_every_line_a_field():
    for path in PATHS:
        assert set(fields.jobs_of(path)) <= set(JOBS)
    lines = {line for line in fields.OBEYED if not line.endswith(".*")}
    assert lines <= set(PATHS)
    sections = {path.rpartition(".")[0] for path in set(PATHS) - lines}
    assert {line[:-2] for line in fields.OBEYED if line.endswith(".*")} == sections
    for need in fields.NEEDS:
        for name in need.fields:
            assert name in PATHS or name.removesuffix(".*") in sections | {"train"}
            assert set(need.jobs) <= set(JOBS)
    for path, job in fields._INSTEAD:
        assert path in PATHS and job not in fields.jobs_of(path)


@pytest.mark.parametrize("job", JOBS)
def test_a_field_is_obeyed_or_refused(job):
    for path in PATHS:
        if path == "job":
            continue
        config = with_field(job, path, other(path))
        if job in fields.jobs_of(path):
            fields.check(config, [], [path])  # as a config file sets it
            continue
        for asked, written in (([path], []), ([], [path])):
            if written == ["method"]:
                continue
            with pytest.raises(UserError, match=f"config.{path} is .* no effect in the job"):
                fields.check(config, asked, written)
    # The default asks for nothing.
    fields.check(with_field(job, "seed", 0), PATHS, PATHS)


@pytest.mark.parametrize(
    ("job", "path", "value", "more"),
    [
        ("finetune", "train.lora.rank", 8, {"train.method": "lora"}),
        ("finetune", "train.smooth_over", "letters", {"train.label_smoothing": 0.1}),
        ("finetune", "em.refresh_steps", 9, {"em.refresh": "steps"}),
        ("finetune", "em.shrinkage", 3.0, {"train.ece_weight": 2.0}),
        ("finetune", "data.validation_size", 9, {"data.validation": "x.jsonl"}),
        ("evaluate", "prompt.continuation", "Q: {question}", {
            "confidence.methods": "continuation_sum"}),
        ("evaluate", "prompt.choice", "{question}{options}", {"confidence.methods": "choice"}),
        ("evaluate", "model.measure_quantization", False, {"model.quantize": "int8"}),
        ("align", "align.beta", 0.3, {"align.method": "dpo"}),
        ("generate", "generate.top_k", 5, {"generate.temperature": 1.0}),
        ("lifecycle", "lifecycle.facts_size", 5, {"lifecycle.facts": "facts"}),
        ("alignment", "alignment.pairs_size", 5, {"alignment.pairs": "p.jsonl"}),
        ("report", "posthoc.folds", 3, {"posthoc.methods": "temperature"}),
        ("compare", "posthoc.folds", 3, {"compare.calibration": "cross"}),
    ],
)  # fmt: skip
def test_a_field_without_effect_in_these_settings_is_refused(job, path, value, more):
    config = with_field(job, path, value)
    for name, setting in more.items():
        section, _, key = name.partition(".")
        config[section][key] = setting
    fields.check(config, [path, *more], [])
    if job == "alignment":
        config.alignment.text = "t.txt"
    if job == "lifecycle":
        config.lifecycle.text = "t.txt"
    for name in more:
        section, _, key = name.partition(".")
        opposite = {
            "train.method": "full", "train.ece_weight": 0.0, "align.method": "sft",
            "confidence.methods": "next_token",
        }.get(name, base()[section][key])  # fmt: skip
        config[section][key] = opposite
    with pytest.raises(UserError, match=f"config.{path} is .*no effect here"):
        fields.check(config, [path], [])
    fields.check(config, [], [path])  # what a config file holds ready is no request


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("data.shots=2", "measure with examples by the job evaluate"),
        ("confidence.methods=continuation_sum", "fine-tuning reads letters"),
    ],
)
def test_what_finetune_would_ignore_is_refused(flag, message, tmp_path, capsys):
    command = ["x", "--config=configs/cft.py", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, f"--config.{flag}"]) == 1
    err = capsys.readouterr().err
    assert f"config.{flag.partition('=')[0]} is" in err and message in err
    assert not (tmp_path / "run").exists()


def test_no_packaged_config_sets_what_its_job_does_not_obey():
    seen = 0
    for path in sorted(Path(__file__).parents[1].glob("configs/[a-z]*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        text = path.read_text()
        found = {"", *re.findall(r"^  :?([a-z]\w+) ", text, re.M)}
        found |= set(re.findall(r'preset == "(\w+)"', text))
        for preset in found | {"debug", "tulu3_8b", "paper", "openbookqa", "smollm2@cpu-1gib"}:
            try:
                config = module.get_config(preset)
            except (ValueError, KeyError):  # no such preset
                continue
            fields.check(config, [], fields.paths(config))
            seen += 1
    assert seen > 50
