"""RCFT: calibration with a full language-modelling term, SFT2 + λ·ECE (Xiao et al. 2025).

python -m calib_jax.main --config=configs/rcft.py

SFT2 is the sum of −log π over a question's tokens and its answer's, averaged over questions, as the
paper has it: the answer counts as in CFT, and the question tokens come on top. With
--config.train.sft2_reduction=mean it is the mean over all tokens of a batch: the answer's weight is
divided by the questions' length while λ·ECE keeps its own, which is then what trains the answers:
on SmolLM2 and OpenBookQA the answers' first gradient is 8.5 times that of λ·ECE with the sum, as in
CFT, and 0.18 times with the mean (benchmarks/loss_weights.py). The sum's gradients are large and
are clipped (--config.train.clip_norm=0 for not at all). SFT2 alone: configs/sft2.py.

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 5 GiB       SmolLM2-135M-Instruct on SST-2, offline (configs/cft.py).
                                        Beside CFT and the others: configs/compare.py.
  openbookqa   2 CPU cores, 5 GiB       questions that the model answers at chance.
  debug        2 CPU cores, 2 GiB       the same on 16 questions, a minute: does everything run?
  tulu3_8b     4 or 8 accelerators      the paper's conf-ECE: 0.0897 (ID), 0.0810 (OOD); its
                                        accuracy: 0.8341, 0.7991.
  olmo2_7b     4 or 8 accelerators      the paper's: 0.0989, 0.0781; 0.8510, 0.7099.
  vicuna_7b    4 or 8 accelerators      the paper's: 0.0474, 0.0672; 0.6015, 0.6035.
  mistral_7b   4 or 8 accelerators      the paper's: 0.0979, 0.0731; 0.8297, 0.7768.

The four large presets carry the paper's settings (LoRA r 128, 3,000 questions, 5 epochs) and have
not been run by us. Their batch of 4 is split over an fsdp axis of 4, and further chips go to the
tensor axis; on other numbers of devices set --config.mesh.shape.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "rcft")
