"""lm-evaluation-harness drives our models, and gets what its own hf backend gives it."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from calib_jax import UserError, harness, load_model
from calib_jax.errors import UserNotice
from calib_jax.harness import CalibJaxLM
from tests.conftest import tiny_tokenizer, write_tiny_model

MAX_LENGTH = 48
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}<s>[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>[assistant]{% endif %}"
)


def write_model(folder, adds_bos: bool):
    """A tiny model with a BOS token, a chat template and a short memory."""
    write_tiny_model(folder, max_position_embeddings=MAX_LENGTH)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["<s>"])
    if adds_bos:
        bos = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [bos])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>", chat_template=CHAT
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bare"), adds_bos=False)


@pytest.fixture(scope="module", params=[False, True], ids=["bare", "bos"])
def both(request, folder, tmp_path_factory):
    """The adapter and the hf backend over one checkpoint."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("lm_eval")
    torch.set_num_threads(1)  # threads that wait for one another are slow on a busy machine
    from lm_eval.models.huggingface import HFLM

    if request.param:
        folder = write_model(tmp_path_factory.mktemp("bos"), adds_bos=True)
    theirs = HFLM(str(folder), device="cpu", dtype="float32", batch_size=64, logits_cache=False)
    return CalibJaxLM(str(folder)), theirs


def instances(kind: str, arguments: list[tuple]) -> list:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, a, 0, metadata=("t", i // 3, 1)) for i, a in enumerate(arguments)]


REQUESTS = [
    ("Which item is blue?", " the sky"),
    ("Which item is blue?", " a stone"),
    ("Which item is blue?", "?"),
    ("Name one: ", "A"),
    ("Name one:", " A"),
    ("Line\n\n", "next\nline"),
    ("tabs \t \n", " x"),
    ("", "no context"),
    ("", "<s>begins with the prefix"),
    ("<s>begins with it", " too"),
    ("long " * 20, " short"),
    ("long " * 20, " and longer than that"),
    ("x" * (MAX_LENGTH + 1), "yz"),
    ("kurz", " ä\u00a0ö 東京"),
    ("c", "d" * MAX_LENGTH),
]


def test_log_likelihoods_are_those_of_the_hf_backend(both):
    ours, theirs = both
    # Every character after a context: among them those that the model finds most probable.
    arguments = REQUESTS + [
        (context, chr(c)) for context in ("once", "Q: who?") for c in range(33, 127)
    ]
    requests = instances("loglikelihood", arguments)
    with pytest.warns(UserNotice, match=f"contexts were longer than the model's {MAX_LENGTH}"):
        mine = ours.loglikelihood(requests, disable_tqdm=True)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    a, b = (np.array([answer[0] for answer in answers]) for answers in (mine, expected))
    np.testing.assert_allclose(a, b, rtol=2e-5)
    assert [x[1] for x in mine] == [x[1] for x in expected]
    assert 0 < sum(x[1] for x in mine) < len(mine)


def test_whole_texts_are_read_in_the_hf_backend_s_windows(both):
    ours, theirs = both
    lengths = (0, 1, 2, MAX_LENGTH - 1, MAX_LENGTH, MAX_LENGTH + 1, 2 * MAX_LENGTH, 150)
    requests = instances(
        "loglikelihood_rolling", [(("abc, d\n" * 30)[:n],) for n in lengths] + [("<s>x",)]
    )
    mine = ours.loglikelihood_rolling(requests, disable_tqdm=True)
    expected = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    np.testing.assert_allclose(mine, expected, rtol=2e-5)
    assert mine[1] != 0 and mine[-2] < mine[3]


TASK = """
task: invented
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}, dev: {path}}}}}
output_type: multiple_choice
test_split: test
fewshot_split: dev
num_fewshot: {shots}
fewshot_config: {{sampler: first_n}}
description: "{description}"
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_mutual_info
"""


@pytest.fixture
def task_folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        words = [" ".join(rng.choice(["red", "blue!", "B", "green"], n)) for n in (1, 2, 3)]
        rows.append({"question": f"no. {i}", "choices": words, "answer": int(rng.integers(3))})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def evaluate(model, folder, **options):
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=model, tasks=["invented"], task_manager=tasks, bootstrap_iters=0, **options
    )
    return results


@pytest.mark.parametrize(
    ("shots", "chat"), [(0, False), (1, False), (1, True)], ids=["zero", "few", "chat"]
)
def test_a_whole_run_has_the_hf_backend_s_results(both, task_folder, shots, chat):
    """The chat template refuses a system's turn, which the description would be."""
    ours, theirs = both
    text = TASK.format(
        path=task_folder / "rows.jsonl", shots=shots, description="Colours." if chat else ""
    )
    (task_folder / "invented.yaml").write_text(text)
    results = [
        evaluate(lm, task_folder, apply_chat_template=chat, fewshot_as_multiturn=chat)
        for lm in (ours, theirs)
    ]
    mine, expected = (result["results"]["invented"] for result in results)
    for metric in ("acc", "acc_norm", "acc_mutual_info"):
        assert mine[f"{metric},none"] == expected[f"{metric},none"]
    mine, expected = (result["samples"]["invented"] for result in results)
    assert [s["arguments"] for s in mine] == [s["arguments"] for s in expected]
    assert chat == ("[assistant]" in mine[0]["arguments"][0][0])
    assert ours.chat_template(True) == theirs.chat_template(True) == CHAT


def test_the_command_runs_and_writes_its_results(folder, task_folder, monkeypatch, capsys):
    pytest.importorskip("lm_eval")
    text = TASK.format(path=task_folder / "rows.jsonl", shots=0, description="")
    (task_folder / "invented.yaml").write_text(text)
    command = (
        f"harness run --model calib_jax --model_args pretrained={folder} --tasks invented "
        f"--include_path {task_folder} --limit 8 --output_path {task_folder / 'out.json'}"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    assert harness.main() == 0
    assert "acc_norm" in capsys.readouterr().out
    (written,) = task_folder.glob("out*.json")
    config = json.loads(written.read_text())["config"]
    assert config["model_sha"] == load_model(folder).fingerprint
    assert config["model_num_parameters"] > 1000


def test_the_harness_keeps_its_own_models():
    """In a process of its own: here the hf backend is imported already."""
    pytest.importorskip("lm_eval")
    program = (
        "import calib_jax.harness\n"
        "from lm_eval.api.registry import get_model, model_registry\n"
        "assert get_model('calib_jax') is calib_jax.harness.CalibJaxLM\n"
        "print(get_model('dummy').__name__, 'hf' in model_registry)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["DummyLM", "True"], done.stderr


def test_a_run_that_was_stopped_leaves_what_it_has(folder):
    """The harness's cache is filled group by group, before the last one is there."""
    pytest.importorskip("lm_eval")
    ours, kept = CalibJaxLM(str(folder), token_budget=64), []

    class Hook:
        def add_partial(self, kind, arguments, result):
            kept.append(arguments)
            if len(kept) == 5:
                raise KeyboardInterrupt

    ours.set_cache_hook(Hook())
    requests = instances("loglikelihood", [(f"number {i}", " one") for i in range(40)])
    with pytest.raises(KeyboardInterrupt):
        ours.loglikelihood(requests, disable_tqdm=True)
    assert len(kept) == 5


def test_what_it_refuses(folder):
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match=r"model_args peft: .* There is pretrained"):
        CalibJaxLM(str(folder), peft="x")
    with pytest.raises(UserError, match="--device tpu: JAX computes on cpu"):
        CalibJaxLM(str(folder), device="tpu")
    lm = CalibJaxLM(load_model(folder), batch_size="auto", device="cpu", max_length=20)
    with pytest.raises(UserError, match=r"t: a task of the type generate_until.*log-likelihood"):
        lm.generate_until(instances("generate_until", [("a", {})]))
    with pytest.raises(UserError, match="the continuation has 21 tokens"):
        lm.loglikelihood(instances("loglikelihood", [("a", "b" * 21)]))


def test_a_continuation_of_which_nothing_is_left(folder):
    pytest.importorskip("lm_eval")
    lm = CalibJaxLM(str(folder))
    requests = instances("loglikelihood", [("a", ""), ("a", "b")])
    with pytest.warns(UserNotice, match="1 of 2 continuations have no token"):
        empty, other = lm.loglikelihood(requests, disable_tqdm=True)
    assert empty == (-np.inf, False) and np.isfinite(other[0])


def test_without_lm_eval(monkeypatch, capsys):
    monkeypatch.setattr(harness, "lm_eval_utils", None)
    with pytest.raises(UserError, match=r'pip install "calib_jax\[lm-eval\]"'):
        CalibJaxLM("anything")
    assert harness.main() == 1
    assert "pip install" in capsys.readouterr().err


def test_a_tokenizer_without_a_prefix_token(folder):
    pytest.importorskip("lm_eval")
    model = load_model(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer())
    lm = CalibJaxLM(dataclasses.replace(model, tokenizer=tokenizer))
    with pytest.raises(UserError, match="neither a BOS nor an EOS token"):
        lm.loglikelihood_rolling(instances("loglikelihood_rolling", [("text",)]))
