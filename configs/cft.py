"""CFT: restore the calibration of an aligned model, SFT1 + λ·ECE (Xiao et al. 2025, Algorithm 1).

python -m calib_jax.main --config=configs/cft.py

What CFT is, the paper can be read in two ways. Its Algorithm 1, "(Regularized) Calibration-Aware
Fine-Tuning", minimises SFT + λ·ECE, with the answer's token alone (SFT1) for CFT and the question's
besides (SFT2) for RCFT; the ablation ("accuracy loss only", "ECE loss only") has both terms too.
This file follows it, with λ = 1. The abstract can also be read as CFT being fine-tuning alone and
the ECE term what makes RCFT of it; CFT would then be configs/sft.py. configs/compare.py trains
both. What the authors' code minimises is neither: configs/released.py.

The distance D of the ECE term: --config.train.divergence=squared (the paper's), kl or
cross_entropy. λ: --config.train.ece_weight.

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 5 GiB       SmolLM2-135M-Instruct on SST-2 (is a review positive or
                                        negative?), 472 reviews, 3 rounds of EM, offline; measured
                                        on 400 others. Beside SFT alone and a temperature:
                                        configs/compare.py:demo, with what to expect.
  openbookqa   2 CPU cores, 5 GiB       the same model on 1,024 questions that it answers at chance
                                        before and after, 10 minutes: conf-ECE 0.427 -> 0.014
                                        (OpenBookQA test), 0.421 -> 0.026 (ARC-Easy test,
                                        out-of-domain). Measured, seed 0. A uniform guesser's
                                        confidence is as good.
  debug        2 CPU cores, 2 GiB       the same on 16 questions, a minute: does everything run?
  tulu3_8b     4 or 8 accelerators      Llama-3.1-Tulu-3-8B-DPO. The paper's figures: conf-ECE
                                        0.1953 -> 0.0239 (ID), 0.1212 -> 0.0688 (OOD); accuracy
                                        0.6228 -> 0.6410, 0.7810 -> 0.8000.
  olmo2_7b     4 or 8 accelerators      OLMo-2-1124-7B-DPO. The paper's: 0.1555 -> 0.0544 (ID),
                                        0.1325 -> 0.0225 (OOD).
  vicuna_7b    4 or 8 accelerators      vicuna-7b-v1.5. The paper's: 0.1422 -> 0.0379 (ID),
                                        0.0852 -> 0.0331 (OOD).
  mistral_7b   4 or 8 accelerators      a DPO-aligned Mistral-7B (the paper does not name its own).
                                        The paper's: 0.2010 -> 0.0651 (ID), 0.1318 -> 0.0424 (OOD).

The default has no out-of-domain split: by its letters this model answers every other task of the
packages at chance (docs/measuring.md), so that nothing but its confidence could be measured there.

The four large presets carry the paper's settings (LoRA r 128, 3,000 questions, 1,000 each of MMLU,
MedMCQA and OpenBookQA, 5 epochs) and have not been run by us. MMLU's are its validation and dev
splits, 1,816 questions: its auxiliary_train is ARC, OpenBookQA, RACE and others, and with it
ARC-Challenge would not be out-of-domain. Their batch of 4 is split over an fsdp axis of 4, and
further chips go to the tensor axis; on other numbers of devices set --config.mesh.shape.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "cft")
