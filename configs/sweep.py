"""Sweep: λ and M of CFT, and the frontier of accuracy and calibration that they make.

python -m calib_jax.main --config=configs/sweep.py
python -m calib_jax.main --config=configs/sweep.py \\
    --config.sweep.ece_weight=0,1,10 --config.sweep.num_bins=5,10

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 6 GiB       SmolLM2-135M-Instruct on SST-2 as in configs/cft.py, λ = 0,
                                        0.3, 1, 3, 10 with M = 10, one seed; not timed as a whole.
  openbookqa   2 CPU cores, 6 GiB       the same on questions that the model answers at chance, as
                                        in configs/compare.py.
  debug        2 CPU cores, 3 GiB       λ = 0 and 1 on 16 questions: does it run?
  tulu3_8b, olmo2_7b, vicuna_7b, mistral_7b
               4 or 8 accelerators      the paper's models and settings (configs/cft.py); not run by
                                        us.

Every λ with every M (λ = 0, which has no bins, once) and every seed of --config.sweep.seeds is a
run of the job "finetune" in WORKDIR/lambda<λ>-bins<M>-seed<k>/; the same command continues where it
was stopped. Errors are measured with config.em.num_bins bins, whatever M was trained with. RCFT's:
--config.train.sft=sft2 --config.method=rcft.

Written: summary.json, report.html, figures/frontier_*.{png,svg}, tables/sweep.{md,tex}, extended,
versus (differences to the model as it is) and results.csv.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset, "cft")
    config.job = "sweep"
    # The log of every epoch is of no use here, and would take its time.
    config.data.validation = ""
    if preset == "openbookqa":
        config.data.train_size = 256
        config.data.eval_size = 200
    if preset == "debug":
        config.sweep.ece_weight = "0,1"
    return config
