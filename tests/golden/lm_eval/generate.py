"""lm-evaluation-harness's tokens, prompts and log-likelihoods; see README.md beside it."""

import json
import sys
import tempfile
from pathlib import Path

import datasets
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))
from calib_jax.models.model import _locate_offline  # noqa: E402
from calib_jax.questions.tasks import get_task, load_task  # noqa: E402
from tests.confidence import lm_eval_cases as cases  # noqa: E402
from tests.conftest import write_tiny_model  # noqa: E402

REAL = {
    "arc_easy": "continuation",
    "openbookqa": "continuation",
    "piqa": "continuation",
    "mmlu": "choice",
}
PER_TASK = 6


def instances(pairs):
    return [
        Instance("loglikelihood", doc={}, arguments=tuple(pair), idx=i)
        for i, pair in enumerate(pairs)
    ]


def tokens(tokenizer, pair):
    """Context and continuation of one pair; None where the harness fails."""
    model = HFLM.__new__(HFLM)
    model.tokenizer, model.backend = tokenizer, "causal"
    model.add_bos_token = model.custom_prefix_token_id = model.enable_thinking = None
    model._loglikelihood_tokens = lambda requests, **_: requests
    ((_, context, continuation),) = model.loglikelihood(instances([pair]), disable_tqdm=True)
    return [context, continuation]


def tiny():
    """Tokens of every tokenizer, and log-likelihoods of a tiny model."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder), vocab_size=512)
        network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    for name, build in cases.TOKENIZERS.items():
        tokenizer = build()
        found = [tokens(tokenizer, pair) for pair in cases.PAIRS]
        # The harness fails on the whole list where one pair lacks context or continuation.
        some = [pair for pair, (c, k) in zip(cases.PAIRS, found, strict=True) if c and k]
        model = HFLM(
            pretrained=network,
            tokenizer=tokenizer,
            backend="causal",
            max_length=cases.MAX_LENGTH,
            batch_size=3,
            logits_cache=False,  # with it, some requests get other requests' values
        )
        values = iter(model.loglikelihood(instances(some), disable_tqdm=True))
        result[name] = [
            {"context": c, "continuation": k, "loglikelihood": next(values)[0] if c and k else None}
            for c, k in found
        ]
    return result


def prompts():
    """(context, continuation) of every option, as the harness assembles them."""
    description = cases.DESCRIPTION.format(subject="odd things")
    common = {
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
    }
    docs = {"test": cases.DOCS, "dev": cases.SHOT_DOCS}
    gaps = {
        split: [{**doc, "answer": str(1 + i % 2)} for i, doc in enumerate(rows)]
        for split, rows in (("test", cases.GAPS), ("dev", cases.GAP_SHOTS))
    }
    lines = "".join(f"\n{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate("ABCD"))
    configs = {
        "choice": {
            "dataset": docs,
            "description": description,
            "doc_to_text": "{{question.strip()}}" + lines + "\nAnswer:",
            "doc_to_choice": ["A", "B", "C", "D"],
            "doc_to_target": "answer",
        },
        "continuation": {
            "dataset": docs,
            "description": description,
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer",
        },
        "contexts": {
            "dataset": gaps,
            "doc_to_text": lambda doc: int(doc["answer"]) - 1,
            "doc_to_choice": lambda doc: [
                doc["sentence"].split("_")[0] + doc[option] for option in ("option1", "option2")
            ],
            "doc_to_target": lambda doc: doc["sentence"].split("_", 1)[1].strip(),
        },
    }
    result = {}
    for name, config in configs.items():
        rows = config.pop("dataset")
        dataset = {split: datasets.Dataset.from_list(some) for split, some in rows.items()}
        for shots in (0, 2):
            for chat in ("", "CHATML", "NO_SYSTEM"):
                task = ConfigurableTask(
                    config={
                        **common,
                        **config,
                        "task": name,
                        "num_fewshot": shots,
                        "custom_dataset": lambda data=dataset, **_: data,
                    }
                )
                model = HFLM.__new__(HFLM)
                model.tokenizer, model.chat_template_args = cases.TOKENIZERS["words"](), {}
                model.tokenizer.chat_template = getattr(cases, chat, None)
                task.build_all_requests(
                    apply_chat_template=bool(chat),
                    chat_template=model.apply_chat_template if chat else None,
                )
                result[f"{name}/{shots}/{chat}"] = [request.args for request in task.instances]
    return result


def real():
    """Log-likelihoods of SmolLM2 on a few questions, by their ids alone."""
    path = _locate_offline("offline:smollm2-135m-instruct")
    loaded = {"gguf_file": path.name, "dtype": torch.float32}
    network = transformers.AutoModelForCausalLM.from_pretrained(path.parent, **loaded).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = HFLM(pretrained=network, tokenizer=tokenizer, batch_size=4, logits_cache=False)
    result = {}
    for name, form in REAL.items():
        task = get_task(name)
        every = load_task(task)
        result[name] = {}
        for question in every[:: len(every) // PER_TASK][:PER_TASK]:
            options = "\n".join(
                f"{a}. {text}" for a, text in zip("ABCD", question.choices, strict=False)
            )
            context = f"Question: {question.question}\nAnswer:"
            ends = question.choices
            if form == "choice":
                context, ends = f"{question.question}\n{options}\nAnswer:", "ABCD"
            pairs = [(context, f" {end}") for end in ends]
            found = model.loglikelihood(instances(pairs), disable_tqdm=True)
            result[name][question.id] = [value for value, _ in found]
    return result


def write(name, value):
    rows = json.dumps(value, ensure_ascii=False, indent=1)
    (HERE / f"{name}.json").write_text(rows + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or ("tiny", "prompts", "real"):
        write(name, {"tiny": tiny, "prompts": prompts, "real": real}[name]())
