"""Label smoothing: SFT1 whose label keeps 1 − ε, ε = 0.1; the baseline beside CFT.

python -m calib_jax.main --config=configs/label_smoothing.py

ε is spread over the vocabulary, as Hugging Face's trainer does it; over the question's letters with
--config.train.smooth_over=letters. The paper states neither ε nor which; other values:
--config.train.label_smoothing=0.2.

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 5 GiB       SmolLM2-135M-Instruct on SST-2, offline (configs/cft.py).
                                        Beside CFT and the others: configs/compare.py.
  openbookqa   2 CPU cores, 5 GiB       questions that the model answers at chance.
  debug        2 CPU cores, 2 GiB       the same on 16 questions, a minute: does everything run?
  tulu3_8b     4 or 8 accelerators      the paper's conf-ECE: 0.1898 (ID), 0.1009 (OOD); its
                                        accuracy: 0.6372, 0.7116.
  olmo2_7b     4 or 8 accelerators      the paper's: 0.1010, 0.0499; 0.6808, 0.6431.
  vicuna_7b    4 or 8 accelerators      the paper's: 0.1221, 0.0823; 0.4517, 0.5767.
  mistral_7b   4 or 8 accelerators      the paper's: 0.1874, 0.1121; 0.6479, 0.6997.

The four large presets are those of configs/cft.py and have not been run by us.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "label_smoothing")
