"""How others load an export and get its confidence: the card's sections of code, and prompt.json.

The lines are plain transformers, PEFT and vLLM. They take the prompt from prompt.json, literally as
it was measured: nobody has to know templates, letters or special tokens.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calib_jax.reports.model_card import Facts

FILE = "prompt.json"
# What stands for the export's own folder, and for a base that lies nowhere yet, in the snippets.
HERE, BASE = "path/to/this/folder", "path/to/the/base"
# A question for the snippets.
EXAMPLE = ("Which is a fruit?", ("a stone", "a pear", "a rope"))
# Ranks for which vLLM has room.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_TEXTS = {
    "options": r'"\n".join(f"{chr(65 + k)}. {text}" for k, text in enumerate(options))',
    "options_inline": (
        '" ".join(f"{chr(65 + k)}. {t[:1].upper()}{t[1:].removesuffix(\'.\')}."'
        " for k, t in enumerate(options))"
    ),
    "question": "question",
    "context": '"the passage"',
    "subject": '"the subject"',
}


def prompt_section(facts: "Facts") -> str:
    """What the model is asked, literally, and how its confidence is read."""
    prompt = facts.prompt
    if prompt is None:
        return ""
    letters, chat = prompt["letters"], prompt["chat"]
    fence = "`" * (3 if "```" not in prompt["prompt"] else 8)
    lines = [
        "## The prompt and the confidence",
        "",
        f"The prompt, literally, as {FILE} has it too (the fields in braces are a question's own):",
        "",
        f"{fence}text",
        prompt["prompt"],
        fence,
        "",
        f"- letters: {json.dumps(letters[0])}, {json.dumps(letters[1])}, ..., the one token each "
        "that follows the prompt",
        "- confidence: the softmax over the logits of as many letters as there are options, after "
        "the prompt's last token, in float32",
        f"- computed in {prompt['dtype']}; the files here are in {facts.dtype}",
    ]
    if chat:
        lines.append(
            "- chat: one turn of the user in the tokenizer's own template, which is told "
            f"`{json.dumps(chat['template_arguments'], ensure_ascii=False)}` and the date "
            f"{chat['date']}; what looks like a control token in a question is text"
        )
    bos = "with" if prompt["add_special_tokens"] else "without"
    lines.append(f"- tokens: of the whole prompt, {bos} special tokens added by the tokenizer")
    return "\n".join(lines) + "\n"


def loading(facts: "Facts") -> str:
    """How it is loaded, and where the prompt is known how its confidence is computed."""
    parts = ["## Loading\n", _python(_transformers(facts))]
    if facts.prompt is not None:
        parts += [
            "The same in vLLM (the tokens of the lines above; not run by us):\n",
            _python(_vllm(facts)),
        ]
    parts.append(_python(_ours(facts)))
    return "\n".join(parts)


def _python(code: str) -> str:
    return f"```python\n{code}\n```\n"


def _base(facts: "Facts") -> tuple[str, str]:
    """The base and its revision as others take them, as Python."""
    revision = f", revision={json.dumps(facts.revision)}" if facts.revision else ""
    name = facts.name if facts.loadable else BASE
    return json.dumps(name, ensure_ascii=False), revision


def _note(facts: "Facts") -> list[str]:
    """How to get the base where transformers cannot read it as it is."""
    if facts.loadable or facts.format == "merged":
        return []
    return [
        "# The base as a Hugging Face folder: python -m calib_jax.main "
        "--config=configs/export.py \\",
        f"#     --config.model.name={facts.name} --workdir={BASE}",
    ]


def _transformers(facts: "Facts") -> str:
    prompt, adapter = facts.prompt, facts.format == "adapter"
    dtype = '"auto"' if prompt is None else 'asked["dtype"]'
    name, revision = _base(facts) if adapter else ("folder", "")
    lines = ["import json\n", "import torch"] if prompt else []
    lines += ["from peft import PeftModel"] if adapter else []
    tokenizer = ", AutoTokenizer" if prompt else ""
    lines += [f"from transformers import AutoModelForCausalLM{tokenizer}\n", f'folder = "{HERE}"']
    if prompt:
        lines.append(f'asked = json.load(open(f"{{folder}}/{FILE}", encoding="utf-8"))')
        lines += [*_note(facts), f"tokenizer = AutoTokenizer.from_pretrained({name}{revision})"]
    else:
        lines += _note(facts)
    lines.append(f"model = AutoModelForCausalLM.from_pretrained({name}{revision}, dtype={dtype})")
    if adapter:
        lines.append("model = PeftModel.from_pretrained(model, folder)")
    if prompt:
        lines += _asking(prompt)
        lines += [
            "with torch.no_grad():",
            "    logits = model(torch.tensor([tokens])).logits[0, -1]",
            'letters = asked["letter_ids"][: len(options)]',
            "confidence = logits[letters].float().softmax(-1)",
        ]
    return "\n".join(lines)


def _asking(prompt: Mapping[str, Any]) -> list[str]:
    """From a question to its tokens."""
    question, options = EXAMPLE
    shown = json.dumps(list(options))
    lines = [f"question, options = {json.dumps(question)}, {shown}", 'prompt = asked["prompt"]']
    for field, value in _TEXTS.items():
        if f"{{{field}}}" in prompt["prompt"]:
            lines.append(f'prompt = prompt.replace("{{{field}}}", {value})')
    lines.append(
        'tokens = tokenizer(prompt, add_special_tokens=asked["add_special_tokens"]).input_ids'
    )
    return lines


def _vllm(facts: "Facts") -> str:
    lines = ["import math\n", "from vllm import LLM, SamplingParams"]
    settings = 'dtype=asked["dtype"], logprobs_mode="processed_logprobs"'
    request = ""
    if facts.lora is not None and facts.format == "adapter":
        rank = next((r for r in _RANKS if r >= facts.lora.rank), facts.lora.rank)
        name, revision = _base(facts)
        lines.append("from vllm.lora.request import LoRARequest\n")
        lines.append(f"llm = LLM({name}{revision}, {settings},")
        lines.append(f"          enable_lora=True, max_lora_rank={rank})")
        request = ', lora_request=LoRARequest("calibrated", 1, folder)'
    else:
        lines[-1] += "\n"
        lines.append(f"llm = LLM(folder, {settings})")
    lines += [
        'letters = asked["letter_ids"][: len(options)]',
        "params = SamplingParams(max_tokens=1, logprobs=len(letters), allowed_token_ids=letters)",
        f'(answer,) = llm.generate({{"prompt_token_ids": tokens}}, params{request})',
        "found = answer.outputs[0].logprobs[0]",
        "confidence = [math.exp(found[letter].logprob) for letter in letters]",
    ]
    return "\n".join(lines)


def _ours(facts: "Facts") -> str:
    if facts.format == "merged":
        return f'import calib_jax\n\nmodel = calib_jax.load_model("{HERE}")'
    name = json.dumps(facts.name, ensure_ascii=False)
    _, revision = _base(facts)
    return f'import calib_jax\n\nmodel = calib_jax.load_model({name}{revision}, adapter="{HERE}")'
