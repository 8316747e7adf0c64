"""Writes the adapters of this folder: LoRA on golden checkpoints, as PEFT saves them, and logits.

In an environment with torch==2.13.0, transformers==5.23.0 and peft==0.21.2:

    python tests/golden/adapters/generate.py

Each folder is named after the checkpoint in tests/golden that it adapts and holds what
``save_pretrained`` wrote and PEFT's float32 logits for tokens.npy (modulo the size of the
vocabulary) at every eighth position, ``logits[:, 7::8]``.
"""

from pathlib import Path

import numpy as np
import peft
import torch
import transformers

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parent

CASES = {
    "llama32": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": ["q_proj", "down_proj"],
    },
    "gpt_neox": {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"},
    "qwen3": {"r": 3, "lora_alpha": 3, "target_modules": r".*\.(v_proj|up_proj)"},
}


def main():
    tokens = torch.from_numpy(np.load(GOLDEN / "tokens.npy")).long()
    for name, settings in CASES.items():
        torch.manual_seed(0)
        base = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / name).eval()
        vocab = base.config.vocab_size
        with torch.no_grad():
            plain = base(tokens % vocab).logits
        config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.1, **settings)
        model = peft.get_peft_model(base, config).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                if "lora_" in key:
                    value.normal_(0, 0.2)
            logits = model(tokens % vocab).logits
        assert (logits - plain).abs().max() > 0.1, "an adapter that does nothing proves nothing"
        model.peft_config["default"].base_model_name_or_path = name
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()
        np.save(FOLDER / name / "logits.npy", logits[:, 7::8].numpy())


if __name__ == "__main__":
    main()
