"""Every field × every job: obeyed, or refused by name; and all errors of a config at once."""

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from calib_jax import UserError, api, jobs
from calib_jax.config import FIELDS, base, check_config, conflicts, page, paths, set_field
from calib_jax.config.check import problems, refused, without_effect
from calib_jax.config.field import JOBS, TRAINS, Field, section
from calib_jax.main import main
from calib_jax.questions.answers import BASES
from calib_jax.runs import preference_setting
from configs import cft

# What a job cannot do without, beside the defaults.
VALID = {
    "alignment": {"alignment.models": "cft=run:runs/cft", "alignment.pairs": "p.jsonl"},
    "generate": {"generate.prompts": "p.jsonl"},
    "study": {"study.pairs": "m=owner/base->owner/aligned"},
    "winrate": {"winrate.judgements": "annotations.json"},
}
OTHER = {"mesh.shape": (1, 2, 1), "confidence.methods": "next_token"}
NUMBERS = [path for path, field in FIELDS.items() if type(field.default) in (int, float)]
CHOICES = [path for path, field in FIELDS.items() if field.choices]


def other(path):
    """A value of the field that is not its default."""
    value = FIELDS[path].default
    if path in OTHER:
        return OTHER[path]
    if path == "plan.dimensions":
        return ml_collections.ConfigDict({"hidden_size": 8})
    if isinstance(value, bool):
        return not value
    return f"{value}x" if isinstance(value, str) else value + 1


def with_fields(job, /, **settings):
    config = base()
    for path, value in {"job": job, **VALID.get(job, {}), **settings}.items():
        set_field(config, path, value)
    return config


def refusal(*arguments, **options):
    with pytest.raises(UserError) as error:
        check_config(*arguments, **options)
    return str(error.value)


# --- The table ------------------------------------------------------------------------------------


def test_the_table_says_of_every_field_what_it_is():
    for path, field in FIELDS.items():
        assert field.path == path and field.kind
        assert field.jobs and set(field.jobs) <= set(JOBS)
        assert (
            field.meaning.endswith(".")
            and field.meaning[0].isupper()
            or field.meaning[0] in "κλεαβD"
        )
        assert not field.problem(field.default)
        if field.check and field.default:
            field.check(field.default, f"config.{path}")
        for need in field.needs:
            assert set(need.jobs) <= set(JOBS)
        assert not set(field.instead) & set(field.jobs)


def test_conditions_name_fields_that_there_are():
    said = Path(conflicts.__file__).read_text()
    said += "".join(need.text for field in FIELDS.values() for need in field.needs)
    sections = "|".join({path.split(".")[0] for path in FIELDS if "." in path})
    for path in re.findall(rf"config\.((?:{sections})(?:\.[a-z_]+)+)\b(?!\()", said):
        assert path.removesuffix(".strip") in FIELDS, path


def test_choices_are_those_of_the_code_that_reads_them():
    assert set(JOBS) == set(jobs.JOBS)
    assert FIELDS["model.dtype"].choices == ("auto", *api.DTYPES)
    assert FIELDS["model.attention"].choices == api.ATTENTIONS
    assert FIELDS["data.answer_base"].choices == BASES
    assert set(FIELDS["align.method"].choices) == set(preference_setting.METHODS)


def test_the_config_can_be_read_without_jax():
    command = "import sys, calib_jax.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0


def test_a_new_field_is_one_entry(monkeypatch):
    entry = section(
        "train", TRAINS, momentum=Field(0.9, least=0, below=1).means("How much of it is kept.")
    )
    monkeypatch.setitem(FIELDS, "train.momentum", entry["train.momentum"])
    config = base()
    assert config.train.momentum == 0.9
    config.train.momentum = 1.0
    expected = "config.train.momentum is 1.0; expected 0 or more and less than 1."
    assert refusal(config) == expected
    config = with_fields("evaluate", **{"train.momentum": 0.5})
    assert "no effect in the job 'evaluate'" in refusal(config, ["train.momentum"])
    assert "--config.train.momentum=0.9" in page.as_text("train")
    assert "| `train.momentum` | `0.9` |" in page.as_markdown()


# --- One field ------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", JOBS)
def test_a_field_is_obeyed_or_refused(job):
    check_config(with_fields(job), FIELDS, FIELDS)  # the defaults ask for nothing
    for path, field in FIELDS.items():
        if path == "job":
            continue
        config = with_fields(job, **{path: other(path)})
        if job in field.jobs:
            assert not [*refused(config, [path])]
            continue
        for asked, written in (([path], []), ([], [path])):
            if path != "method":
                said = refusal(config, asked, written)
                assert re.search(rf"config\.{path} is .* no effect in the job", said)


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_beyond_its_limits_is_refused(path):
    field = FIELDS[path]
    beyond = [None, "1"]
    step = 1 if isinstance(field.default, int) else 1e-6
    beyond += [] if field.least is None else [field.least - step]
    beyond += [] if field.most is None else [field.most + step]
    beyond += [float(limit) for limit in (field.above, field.below) if limit is not None]
    beyond += [math.nan, math.inf, -math.inf] if isinstance(field.default, float) else [1.5, True]
    assert len(beyond) > 4, "the field has a limit"
    for value in beyond:
        for job in field.jobs:
            said = refusal(with_fields(job, **{path: value}))
            assert f"config.{path} is {value!r}; expected " in said, (job, value)


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_at_its_limits_is_taken(path):
    field = FIELDS[path]
    for value in (field.least, field.most):
        if value is not None:
            assert not field.problem(type(field.default)(value))


@pytest.mark.parametrize("path", CHOICES)
def test_what_is_no_choice_is_refused_and_the_nearest_is_offered(path):
    known = tuple(FIELDS[path].choices)
    for job in FIELDS[path].jobs:
        said = refusal(with_fields(job, **{path: f"{known[-1]}q"}))
        assert f"config.{path} is '{known[-1]}q'; choose from: " in said
        assert all(choice in said for choice in known)
        assert path.endswith("answer_base") or f"Did you mean {known[-1]!r}?" in said


@pytest.mark.parametrize(
    ("job", "path", "value", "message"),
    [
        ("evaluate", "confidence.methods", "choice,continuation_sun", "mean 'continuation_sum'?"),
        ("evaluate", "confidence.methods", "choice,choice", "names 'choice' twice"),
        ("evaluate", "confidence.methods", " ,", "names nothing; choose from: choice, "),
        ("evaluate", "posthoc.methods", "daca", "needs the pre-trained model's log-scores"),
        ("evaluate", "prompt.choice", "{question}", "lacks the field {options}"),
        ("evaluate", "prompt.template_arguments", "[1]", "expected a JSON object"),
        ("evaluate", "prompt.date", "tomorrow", "expected a date such as"),
        ("evaluate", "mesh.shape", (1, 1), "expected three positive sizes"),
        ("evaluate", "mesh.shape", ("abc",), "expected three whole numbers"),
        ("finetune", "report.writers", "tensorbord", "choose from: tensorboard, wandb"),
        ("stages", "stages.chain", "sft,dop", "Did you mean 'dpo'?"),
        ("compare", "compare.methods", "cft,temprature", "Did you mean 'temperature'?"),
        ("compare", "compare.methods", "daca", "needs the pre-trained model's log-scores"),
        ("compare", "compare.seeds", "0,one", "holds 'one'; expected whole numbers"),
        ("compare", "compare.seeds", "1,1", "holds 1 twice"),
        ("sweep", "sweep.num_bins", "0", "expected whole numbers of at least 1"),
        ("sweep", "sweep.ece_weight", "", "is empty; expected numbers"),
        ("plan", "plan.topology", "v9-8", "v5e-8, v5e-16"),
        ("generate", "generate.name", "a/b", "must not begin with a dot or hold a slash"),
        ("lifecycle", "lifecycle.axis", "stpe", "did you mean 'step'?"),
        ("winrate", "winrate.judgements", "a.json,a.json", "names a.json twice"),
    ],
)
def test_a_value_that_no_limit_expresses_is_refused(job, path, value, message):
    said = refusal(with_fields(job, **{path: value}))
    assert f"config.{path}" in said and message in said


@pytest.mark.parametrize(
    ("job", "fields", "message"),
    [
        ("report", {}, "'ridge_head', which reads hidden states, and a report has the scores"),
        ("finetune", {}, "'ridge_head', which reads hidden states, and the job 'finetune' keeps"),
        ("align", {}, "'ridge_head', which reads hidden states, and the job 'align' keeps none"),
        ("evaluate", {"confidence.methods": "continuation_sum"}, "confidence.methods=choice"),
        ("evaluate", {"confidence.methods": "choice,choice_permuted"}, "confidence.methods=choice"),
    ],
)
def test_what_reads_states_is_asked_for_where_they_are(job, fields, message):
    said = refusal(with_fields(job, **{"posthoc.methods": "temperature,ridge_head"}, **fields))
    assert "config.posthoc.methods" in said and message in said


# --- Several fields -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "settings", "message"),
    [
        ("finetune", {"data.eval": ""}, "config.data.eval names no source"),
        ("finetune", {"data.train": " ,"}, "config.data.train names no source"),
        ("finetune", {"data.validation": "a.csv,b.csv"}, "names 2 sources; it takes one"),
        ("finetune", {"batch.token_budget": 0}, "config.batch.token_budget is 0; expected 1"),
        ("align", {"prompt.max_length": 0}, "config.prompt.max_length is 0; expected 1"),
        ("align", {"model.quantize": "int8"}, "Set --config.train.method=lora"),
        ("align", {"prompt.chat": True, "align.chat": False}, "Set both alike"),
        ("align", {"align.train": ""}, "config.align.train names no source; write "),
        ("align", {"align.method": "sft", "align.eval": "train:9"}, "holds demonstrations"),
        ("align", {"train.early_stopping": 1}, "config.train.early_stopping belongs to"),
        ("stages", {"stages.models": "a=o/a", "stages.settings": "cft:em.num_bins=3"}, "Leave out"),
        ("stages", {"align.eval": "train:9"}, "config.align.eval is 'train:9'"),
        ("stages", {"confidence.methods": "choice,continuation_sum"}, "by one"),
        ("lifecycle", {"confidence.methods": "choice,continuation_sum"}, "by one"),
        ("lifecycle", {"lifecycle.tasks": ""}, "Set one of the three"),
        ("lifecycle", {"lifecycle.models": "7b=o/m", "model.revision": "v"}, "write label=model"),
        (
            "evaluate",
            {"prompt.choice": "{question}{options}", "prompt.template": "{question}{options}"},
            "set one of them",
        ),
        ("evaluate", {"report.ordered": True}, "Set --config.data.shuffle_options=False"),
        ("sweep", {"train.sft": "none"}, "config.sweep.ece_weight holds 0"),
        ("alignment", {"alignment.models": ""}, "config.alignment.models names no model"),
        ("alignment", {"alignment.pairs": ""}, "there would be nothing to measure"),
        ("generate", {"generate.prompts": ""}, "config.generate.prompts names no source"),
        ("generate", {"generate.top_k": 3}, "config.generate.temperature is 0 (greedy)"),
        ("study", {"study.pairs": ""}, "config.study.pairs names no pair"),
        ("study", {"model.adapter": "x"}, "config.model.adapter is 'x'"),
        ("winrate", {"winrate.judgements": ""}, "names no file"),
        ("export", {"export.epoch": 2}, "config.export.run names no run"),
        ("export", {"export.format": "adapter"}, "there is no adapter"),
        ("export", {"export.run": "runs/a", "model.name": "other"}, "config.model.name is 'other'"),
    ],
)  # fmt: skip  # a case on a line
def test_fields_that_do_not_go_together_are_refused(job, settings, message):
    assert message in refusal(with_fields(job, **settings))


@pytest.mark.parametrize(
    ("job", "path", "value", "more"),
    [
        ("finetune", "train.lora.rank", 8, {"train.method": "lora"}),
        ("finetune", "train.smooth_over", "letters", {"train.label_smoothing": 0.1}),
        ("finetune", "em.refresh_steps", 9, {"em.refresh": "steps"}),
        ("finetune", "em.shrinkage", 3.0, {"train.ece_weight": 2.0}),
        ("finetune", "em.held_out", 0.2, {"train.ece_weight": 2.0}),
        ("finetune", "data.validation_size", 9, {"data.validation": "x.jsonl"}),
        (
            "evaluate",
            "prompt.continuation",
            "Q: {question}",
            {"confidence.methods": "continuation_sum"},
        ),
        ("evaluate", "prompt.choice", "{question}{options}", {"confidence.methods": "choice"}),
        ("evaluate", "model.measure_quantization", False, {"model.quantize": "int8"}),
        ("align", "align.beta", 0.3, {"align.method": "dpo"}),
        ("generate", "generate.top_k", 5, {"generate.temperature": 1.0}),
        ("lifecycle", "lifecycle.facts_size", 5, {"lifecycle.facts": "facts"}),
        ("alignment", "alignment.pairs_size", 5, {"alignment.pairs": "p.jsonl"}),
        ("report", "posthoc.folds", 3, {"posthoc.methods": "temperature"}),
        ("compare", "posthoc.folds", 3, {"compare.calibration": "cross"}),
    ],
)  # fmt: skip  # a case on a line
def test_a_field_without_effect_in_these_settings_is_refused(job, path, value, more):
    config = with_fields(job, **{path: value, **more})
    check_config(config, [path, *more])
    if job == "alignment":
        config.alignment.text = "t.txt"
    for name in more:
        opposite = {
            "train.method": "full",
            "train.ece_weight": 0.0,
            "align.method": "sft",
            "confidence.methods": "continuation_sum" if path == "prompt.choice" else "choice",
        }.get(name, FIELDS[name].default)  # fmt: skip  # a table
        set_field(config, name, opposite)
    config.data.validation = ""
    (said,) = without_effect(config, [path])
    assert re.search(f"config.{path} is .*no effect here", said)
    assert said not in problems(config, [], [path])  # what a config file holds ready is no request


# --- All at once ----------------------------------------------------------------------------------


def test_all_errors_are_told_at_once():
    config = with_fields(
        "finetune",
        **{
            "seed": -1,
            "em.edges": "rigth",
            "train.epochs": None,
            "data.eval": "",
            "model.quantize": "int8",
            "data.shots": 2,
        },
    )
    said = refusal(config, asked=["data.shots"])
    lines = said.splitlines()
    assert lines[0] == "the config has 6 errors:" and len(lines) == 7
    named = [re.match(r"  config\.([a-z_.]+) ", line)[1] for line in lines[1:]]
    assert named == [
        "seed",
        "em.edges",
        "train.epochs",
        "data.shots",
        "data.eval",
        "model.quantize",
    ]


@pytest.mark.parametrize(
    ("job", "path", "value", "instead"),
    [
        ("compare", "posthoc.methods", "vector", "config.compare.methods names calibrators too"),
        ("study", "model.adapter", "x", "write model+adapter in config.study.pairs"),
        ("export", "model.quantize", "int8", "config.export.dtype sets the dtype"),
        ("lifecycle", "data.eval", "mmlu", "config.lifecycle.tasks names the tasks"),
    ],
)
def test_what_another_field_is_for_is_said(job, path, value, instead):
    said = refusal(with_fields(job, **{path: value}), [path])
    assert f"config.{path} is {value!r}, and has no effect in the job {job!r}: " in said
    assert instead in said


def test_nothing_is_said_of_what_hangs_on_a_wrong_field():
    """A misspelt method is one error, and the rank of its adapters none."""
    config = with_fields("finetune", **{"train.method": "lroa", "train.lora.rank": 8})
    assert problems(config, ["train.lora.rank"]) == [
        "config.train.method is 'lroa'; choose from: full, lora. Did you mean 'lora'?"
    ]


def test_a_config_file_with_other_fields_is_told_which():
    config = base()
    config.train.lerning_rate = 1.0
    del config.em.edges
    said = refusal(config)
    assert (
        "there is no field config.train.lerning_rate. Did you mean config.train.learning_rate?"
        in said
    )
    assert "config.em.edges is missing" in said


def test_the_command_line_tells_misspelt_flags_bad_values_and_limits_together(tmp_path, capsys):
    flags = (
        "train.lerning_rate=1",
        "seed=many",
        "train.epochs=0",
        "data.shots=2",
        "prompt.continuation={question}",
        "confidence.methods=continuation_sum",
    )
    command = ["x", "--config=configs/cft.py", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, *(f"--config.{flag}" for flag in flags)]) == 1
    err = capsys.readouterr().err
    assert "the config has 6 errors:" in err
    for flag in flags:
        assert f"config.{flag.partition('=')[0]}" in err
    for remedy in (
        "Did you mean config.train.learning_rate?",
        "config.seed is 'many'; expected a whole number.",
        "expected 1 or more",
        "measure with examples by the job evaluate",
        "fine-tuning reads letters",
    ):
        assert remedy in err
    assert not (tmp_path / "run").exists()


def test_no_packaged_config_sets_what_its_job_does_not_obey():
    seen = 0
    for path in sorted(Path(cft.__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        text = path.read_text()
        found = {"", *re.findall(r"^  :?([a-z]\w+) ", text, re.M)}
        found |= set(re.findall(r'preset == "(\w+)"', text))
        for preset in found | {"debug", "tulu3_8b", "paper", "openbookqa", "smollm2@cpu-1gib"}:
            try:
                config = module.get_config(preset)
            except (ValueError, KeyError):  # no such preset
                continue
            assert not [*refused(config, FIELDS)]
            for name, value in paths(config).items():
                assert not FIELDS[name].problem(value)
            seen += 1
    assert seen > 50
