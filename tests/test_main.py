"""Bad input: one message that names the place and the remedy, status 1, nothing left behind."""

import json
import shutil
import struct

import pytest

from calib_jax.main import main
from tests.conftest import make_questions, write_questions, write_tiny_model


@pytest.fixture
def call(tmp_path, tiny_model, capsys, monkeypatch):
    """Runs the command line in this process; returns its status and what it said."""
    train = write_questions(tmp_path / "train.jsonl", make_questions(16))
    held_out = [
        q.__class__(q.id, "Held out. " + q.question, q.choices, q.answer)
        for q in make_questions(8, 1)
    ]
    test = write_questions(tmp_path / "test.jsonl", held_out)

    def run(*more, config="configs/cft.py:debug"):
        settings = {
            "model.name": tiny_model,
            "data.train": train,
            "data.eval": test,
            "data.validation": "",
            "data.train_size": 0,
            "prompt.max_length": 256,
            "mesh.shape": "(1,8,1)",
        }
        given = {arg.split("=")[0] for arg in more}
        flags = [f"--config.{k}={v}" for k, v in settings.items() if f"--config.{k}" not in given]
        status = main(
            ["calib_jax", f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags, *more]
        )
        return status, capsys.readouterr().err

    run.train, run.test, run.workdir = train, test, tmp_path / "run"
    return run


def refused(call, *arguments, **options):
    status, said = call(*arguments, **options)
    assert status == 1
    assert "Traceback" not in said and said.startswith("calib_jax: ")
    assert not call.workdir.exists(), "nothing half-written"
    return said


def test_misspelt_key_is_named_with_a_suggestion(call):
    said = refused(call, "--config.train.lerning_rate=1")
    assert "no field config.train.lerning_rate. Did you mean config.train.learning_rate?" in said
    # The name of a section that there is, in one where there is none.
    said = refused(call, "--config.model.name=x", "--config.alignment.model=y")
    assert "no field config.alignment.model. Did you mean config.alignment.models?" in said
    said = refused(call, "--config.prompt.zzz=1")
    assert "there is no field config.prompt.zzz. --help lists all of them." in said


def test_bad_value_of_a_key(call):
    said = refused(call, "--config.train.learning_rate=fast")
    assert "config.train.learning_rate is 'fast'; expected a number." in said


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("seed", 2**32),
        ("train.ece_weight", -1),
        ("train.lora.alpha", 0),
        ("batch.length_multiple", -8),
        ("checkpoint.every_steps", -1),
        ("model.attention", "cudnn"),
        ("mesh.shape", "abc"),
    ],
)
def test_value_out_of_range_is_named(call, field, value):
    said = refused(call, f"--config.{field}={value}", "--config.train.method=lora")
    assert f"config.{field} is" in said


def test_workdir_that_cannot_be_made(call, tmp_path):
    (tmp_path / "file").write_text("")
    status, said = call(f"--workdir={tmp_path / 'file' / 'run'}", "--config.train.batch_size=16")
    assert status == 1 and str(tmp_path / "file") in said


def test_missing_config_file(call):
    assert "configs/nope.py: no such config file" in refused(call, config="configs/nope.py")


def test_unknown_preset(call):
    said = refused(call, config="configs/cft.py:huge")
    assert "no preset 'huge'" in said and "debug" in said


def test_unknown_job(call):
    assert "config.job" in refused(call, "--config.job=dream")


def test_stray_argument(call):
    assert "unexpected argument 'train.epochs=3'" in refused(call, "train.epochs=3")


def test_missing_question_file(call):
    assert "nowhere.jsonl" in refused(call, "--config.data.eval=nowhere.jsonl")


def test_a_source_says_what_is_trained_on(call, tmp_path):
    task = tmp_path / "exam.toml"
    task.write_text('files = { test = "test.jsonl" }')
    said = refused(call, f"--config.data.train={task}")
    assert "has none that is called 'train'; there are: test" in said
    assert f"{task}/test%70:30" in said
    said = refused(call, f"--config.data.validation={call.test}%70:30")
    assert "has no validation part; write <source>%70:30" in said


def test_names_with_commas_and_names_that_are_no_text(call, tmp_path):
    path = tmp_path / "a, b.jsonl"
    path.write_text('{"question": "?", "choices": ["yes", "no"], "answer": "Yes"}\n')
    assert "is written \\," in refused(call, f"--config.data.eval={path}")
    said = refused(call, "--config.data.eval=" + str(path).replace(",", "\\,"))
    assert f"{path} row 1: field 'answer' is 'Yes'" in said and "is written 'yes'" in said
    said = refused(call, "--config.data.eval=caf\udce9.jsonl")
    assert "is not UTF-8: rename the file, or give a link" in said


def test_a_base_of_answers_that_there_is_not(call):
    said = refused(call, "--config.data.answer_base=2")
    assert "config.data.answer_base is '2'; choose from: auto, 0, 1." in said


def test_missing_model_folder(call):
    assert "/no/model" in refused(call, "--config.model.name=/no/model")


def test_hub_that_cannot_be_reached(call):
    said = refused(call, "--config.model.name=owner/model")
    assert "owner/model" in said and "local folder" in said


def change_question(path, row, **changes):
    lines = path.read_text().splitlines()
    lines[row] = json.dumps({**json.loads(lines[row]), **changes})
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 9}, "answer"),
        ({"choices": ["one", " ", "three"], "answer": 0}, "choices"),
        ({"choices": ["same", "same"], "answer": 0}, "two equal options"),
        ({"question": ""}, "question"),
    ],
)
def test_bad_question_is_named_by_file_and_row(call, changes, message):
    change_question(call.train, 4, **changes)
    said = refused(call)
    assert "train.jsonl" in said and "5" in said and message in said


def test_prompt_longer_than_the_limit(call):
    change_question(call.test, 2, question="Why? " * 100)
    said = refused(call)
    assert "'q2'" in said and "config.prompt.max_length" in said


def test_limit_beyond_the_model(call):
    assert "512" in refused(call, "--config.prompt.max_length=4096")


def test_truncated_safetensors(call, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "cut")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "model.safetensors" in refused(call, f"--config.model.name={folder}")


def test_truncated_gguf(call, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 5, 7))
    said = refused(call, f"--config.model.name={path}")
    assert "cut.gguf" in said and "not a complete GGUF file" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"logit_scale": 0.1}, "logit_scale"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    ],
)
def test_model_that_is_not_computed(call, tiny_model, tmp_path, changes, message):
    folder = shutil.copytree(tiny_model, tmp_path / "odd")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))
    said = refused(call, f"--config.model.name={folder}")
    assert "config.json" in said and message in said


def test_letters_that_are_not_single_tokens(call, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "split")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refused(call, f"--config.model.name={folder}")
    assert "config.prompt" in said and "letter" in said


def test_folder_without_tokenizer_loads_but_does_not_score(call, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "tokenizer" in refused(call, f"--config.model.name={folder}")


def test_heads_that_do_not_divide_over_the_tensor_axis(call, tmp_path):
    folder = write_tiny_model(
        tmp_path / "nine", hidden_size=36, num_attention_heads=9, num_key_value_heads=3
    )
    said = refused(call, f"--config.model.name={folder}", "--config.mesh.shape=(1,-1,2)")
    assert "9 attention heads" in said and "--config.mesh.shape" in said


def test_mesh_that_does_not_fit_the_devices(call):
    assert "8 devices" in refused(call, "--config.mesh.shape=(3,1,1)")


def test_help_shows_the_flags(capsys):
    assert main(["calib_jax", "--help"]) == 0
    assert "--config" in capsys.readouterr().out
