"""What the code that the paper's authors released minimises: (1 − α)·SFT1 + α·10⁻³·CAL.

python -m calib_jax.main --config=configs/released.py

Not Algorithm 1 of the paper (that is configs/cft.py), and here to be compared with it:

  * CAL sums the squared errors of a batch's questions, each over the number of training questions
    in its bin, instead of averaging them: about a millionth of SFT1 unless α is 1.
  * Bins' accuracies and counts are those of the model as it begins, and stay
    (--config.em.refresh=once); there is no EM iteration.
  * A question falls into the bin [a, b) of its confidence at the step, and the last bin, of the
    most confident, has no term.
  * The gradient flows through the targets of Eq. 6.

α: --config.train.alpha=0.5, the authors' default; their training script has 0 ("accuracy loss
only", which is SFT1) and 1 ("ECE loss only"). λ (--config.train.ece_weight) has no part in it.
Left out, as accidents of that program: epochs squared, confidences read at another token than the
answer's, a division by an empty bin's 0. Presets and hardware as in configs/cft.py.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "released")
