"""A Hugging Face folder or a PEFT adapter from a finished run, or from any model.

python -m calib_jax.main --config=configs/export.py --config.export.run=runs/demo/cft-seed0
python -m calib_jax.main --config=configs/export.py --config.export.run=runs/demo/cft-seed0 \\
    --config.export.format=adapter --workdir=my-adapter
python -m calib_jax.main --config=configs/export.py --config.model.name=model.gguf \\
    --workdir=my-model

Written to <the run>/export/merged or .../adapter, or to --workdir, whole or not at all:
  merged    config.json, model*.safetensors (an index beside shards of 5 GB), the tokenizer's files
            and generation_config.json where the base has it: what transformers, vLLM and
            llama.cpp's converter read. Adapters are added in in float32; the dtype is the base's
            (--config.export.dtype).
  adapter   adapter_config.json and adapter_model.safetensors, relative to the run's base.
README.md, a model card with the base, the data, the method, the calibration before and after and
the lines of transformers and of vLLM that compute the confidence; and prompt.json, what they ask:
the prompt, literally, the tokens of the letters and the dtype. Without config.export.run,
config.model (with config.model.adapter merged in) is converted, and config.prompt is what is asked.

A run with --config.checkpoint.keep_epochs=True has kept what each of its epochs had trained:
--config.export.epoch=2 writes that to <the run>/export/merged-epoch2 or adapter-epoch2. The card
has figures only where the run measured this very model, that of its end.

Hardware: memory for the weights of the base in their stored dtype, on any mesh
(--config.mesh.shape), and of one tensor more; an adapter needs its own few MB only.
"""

from calib_jax import config as base_config


def get_config(preset: str = ""):
    if preset:
        raise ValueError(f"configs/export.py has no presets; got {preset!r}")
    config = base_config.base()
    config.job = "export"
    config.method = "export"
    return config
