"""Our prompts are lm-evaluation-harness's, character by character, on invented documents.

What the harness made of them is in tests/golden/harness_prompts, and is made again where lm_eval is
installed.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from calib_jax.questions.prompts import Prompt
from calib_jax.questions.tasks import get_task, task_names

GOLDEN = Path(__file__).parents[2] / "golden" / "harness_prompts"
DOCUMENTS = json.loads((GOLDEN / "documents.json").read_text(encoding="utf-8"))
REQUESTS = json.loads((GOLDEN / "requests.json").read_text(encoding="utf-8"))


def ours(name, documents):
    """The pairs of the first document, after the others as examples."""
    task = get_task(name.removesuffix("_continuation"))
    choice = task.native == "choice" and not name.endswith("_continuation")
    prompt = Prompt(
        template=task.choice if choice else task.continuation,
        letters=choice,
        description=task.description if choice else task.continuation_description,
        form=task.form,
    )
    question, *shots = [task.fields.read(document, "x", task.name) for document in documents]
    before = prompt.described(question) + prompt.prefix(shots)
    contexts, targets = prompt.contexts(question), prompt.targets(question)
    pairs = [
        [before + context, prompt.delimiter + target]
        for context, target in zip(contexts, targets, strict=True)
    ]
    return {"pairs": pairs, "answer": question.answer}


def test_every_task_is_there():
    follow = {name for name in task_names() if get_task(name).harness}
    assert {name.removesuffix("_continuation") for name in REQUESTS} == follow


@pytest.mark.parametrize("name", REQUESTS)
def test_the_harness_s_requests(name):
    assert ours(name, DOCUMENTS[name][:1]) == REQUESTS[name]["alone"]
    if "after_one" in REQUESTS[name]:
        assert ours(name, DOCUMENTS[name]) == REQUESTS[name]["after_one"]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_version_is_the_harness_s(name):
    said = get_task(name.removesuffix("_continuation")).harness
    version = REQUESTS[name]["version"]
    if name.startswith("mmlu"):
        assert f"{name} 2 (subjects {version})" in said
    else:
        assert said == (f"{name} (no version)" if version == "Yaml" else f"{name} {version}")


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval")
    spec = importlib.util.spec_from_file_location("harness_prompts", GOLDEN / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", REQUESTS)
def test_the_installed_harness_makes_the_same_requests(name, harness):
    assert harness.render(name, DOCUMENTS[name]) == REQUESTS[name]


def test_the_groups_are_the_harness_s(harness):
    groups = {}
    for path in (harness.TASKS / "mmlu" / "default").glob("mmlu_*.yaml"):
        data = harness.load_yaml(path)
        groups[data["dataset_name"]] = data["tag"].removeprefix("mmlu_").removesuffix("_tasks")
        subject = data["dataset_name"].replace("_", " ")
        assert data["description"] == get_task("mmlu").description.format(subject=subject)
    assert groups == dict(get_task("mmlu").groups)
