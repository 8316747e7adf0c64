"""Writes what lm-evaluation-harness makes of invented documents: requests.json.

In an environment with lm_eval==0.4.13 and datasets:

    python tests/golden/harness_prompts/generate.py

documents.json holds, for each of the harness's tasks, documents in the layout of the real data set.
The first is the one that is asked, without and with one example: the second. Each request is a
context and a continuation, as the harness hands them to a model.
"""

import json
from pathlib import Path
from unittest import mock

import datasets
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

FOLDER = Path(__file__).parent
TASKS = Path(lm_eval.__file__).parent / "tasks"

# Our task to the harness's file; MMLU's are one a subject, so an invented document takes one.
FILES = {
    "arc_challenge": "arc/arc_challenge.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "medmcqa": "medmcqa/medmcqa.yaml",
    "mmlu": "mmlu/default/mmlu_{subject}.yaml",
    "mmlu_continuation": "mmlu/continuation/mmlu_{subject}.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "social_iqa": "siqa/siqa.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "winogrande": "winogrande/default.yaml",
}


def harness_task(name: str, documents: list[dict], examples: list[dict]) -> ConfigurableTask:
    """The harness's own task over documents in place of the hub's; ``examples``: its shots."""
    path = FILES[name].format(subject=documents[0].get("subject"))
    # Twice the examples: the harness may draw one more than it needs.
    asked, shots = map(datasets.Dataset.from_list, (documents, (examples or documents) * 2))
    splits = {"train": shots, "dev": shots, "validation": asked, "test": asked}
    with mock.patch("datasets.load_dataset", lambda **_: datasets.DatasetDict(splits)):
        return ConfigurableTask(config=load_yaml(TASKS / path))


def requests(task: ConfigurableTask, document: dict, num_shots: int) -> dict:
    """The pairs of context and continuation of one document, and the index of the right one."""
    context = task.fewshot_context(document, num_shots)
    made = task.construct_requests(
        document, context, doc_id=0, metadata=("", 0, 1), apply_chat_template=False
    )
    num_choices = len(task.doc_to_choice(document))  # what follows them is unconditional
    pairs = [list(request.args) for request in made][:num_choices]
    target = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(target, str) and not target.isdigit():  # a letter
        target = task.doc_to_choice(document).index(target)
    return {"pairs": pairs, "answer": int(target)}


def render(name: str, documents: list[dict]) -> dict:
    """The requests of the first document, alone and after the second as an example."""
    task = harness_task(name, documents[:1], documents[1:])
    document = next(iter(task.eval_docs))
    result = {"version": str(task.VERSION), "alone": requests(task, document, 0)}
    if task.config.num_fewshot != 0:
        result["after_one"] = requests(task, document, 1)
    return result


def main():
    documents = json.loads((FOLDER / "documents.json").read_text(encoding="utf-8"))
    result = {name: render(name, documents[name]) for name in FILES}
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (FOLDER / "requests.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
