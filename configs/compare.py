"""Compare: the model as it is, temperatures, label smoothing, CFT, RCFT and the ablations.

python -m calib_jax.main --config=configs/compare.py

Table 2 of Xiao et al. 2025 (rows model × method; conf-ECE, cw-ECE, accuracy, in-domain and
out-of-domain) over several seeds, with intervals and what is best in bold.

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 6 GiB       SmolLM2-135M-Instruct on SST-2 (configs/cft.py), one seed
                                        (not timed as a whole); --config.compare.seeds=0,1,2 takes
                                        three times as long, and knows the spread.
  demo         2 CPU cores, 5 GiB       the same: as it is, fitted temperature, SFT alone and CFT.
                                        What `make demo` runs: 19 minutes beside other programs.
  openbookqa   2 CPU cores, 6 GiB       questions that the model answers at chance, 3 seeds: 256 of
                                        OpenBookQA to learn from, 200 of its test and of ARC-Easy's
                                        (OOD). Every large temperature wins there.
  qwen_coder   2 CPU cores, 16 GiB      a model that knows something, aligned until it is too sure:
                                        Qwen2.5-Coder-1.5B-Instruct after DPO on letters, an adapter
                                        for each seed (docs/comparing.md says how they are made). It
                                        learns from OpenBookQA and MMLU; OOD are ARC-Easy and
                                        ARC-Challenge. Expect ten hours; not run as a whole by us.
  debug        2 CPU cores, 3 GiB       CFT, temperatures; one seed, 16 questions: does it run?
  tulu3_8b, olmo2_7b, vicuna_7b, mistral_7b
               4 or 8 accelerators      the paper's models and settings (configs/cft.py), 3 seeds;
                                        not run by us. A run's two newest checkpoints (LoRA r 128
                                        and its moments, about 4 GB each) stay, of 15 runs.

Methods (--config.compare.methods=before,temperature,cft): before (the model as it is; earlier
versions called it dpo), the trained ones of calib_jax.presets.METHODS (cft, rcft, sft, sft2,
ece_only, label_smoothing, released, brier, focal, flsd53, catto, self_distilled), and the post-hoc
ones temperature, fixed_temperature (the published T = 1.5), histogram, isotonic, vector, matrix,
structured_matrix, dirichlet, beta, platt, batch_calibration, ridge_head (on the hidden state that
the letter is read from). These are fitted on the training questions, as the model answers them
before training; the reported questions never take part
(--config.compare.calibration=cross: the evaluation splits' own, out of fold). A fit that ends at a
bound is named beneath the tables. A post-hoc method can follow a trained one, "sft+temperature": it
is then cross-fitted to what the trained model says on the evaluation splits.

Every training is a run of the job "finetune" in WORKDIR/<method>-seed<k>/; what they all start from
is measured once a seed, in WORKDIR/before-seed<k>/. The same command continues where it was
stopped.
λ and ε are config.train.ece_weight and config.train.label_smoothing, of every method that has them.
What one trained method has otherwise, any field of train.* and em.*, is said with
--config.compare.settings=rcft:train.learning_rate=1e-5,cft:train.ece_weight=3,cft:train.epochs=5,
is checked before anything is trained, and stands in the table "settings" beside the result.

The paper's four models in one table: run each with its preset and a --workdir of its own, the last
one with --config.compare.beside=FOLDER,FOLDER,FOLDER.

Written: summary.json, report.html, tables/table2.{md,tex}, extended (NLL, Brier, ...), versus
(differences to CFT), splits, settings (of each method), results.csv, and figures/ (reliability
diagrams as in Figure 5).
"""

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get({"demo": "", "qwen_coder": "openbookqa"}.get(preset, preset))
    config.job = "compare"
    config.method = "compare"
    config.train.label_smoothing = presets.SMOOTHING
    # The log of every epoch is of no use here, and would take its time.
    config.data.validation = ""
    if preset in ("", "demo"):
        config.compare.seeds = "0"
    if preset == "demo":
        config.compare.methods = "before,temperature,sft,cft"
    if preset == "openbookqa":
        config.data.train_size = 256
        config.data.eval_size = 200
    if preset == "qwen_coder":
        config.model.name = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
        config.model.adapter = "runs/qwen-aligned-seed{seed}/export/adapter"
        # DPO has learnt from the first part of OpenBookQA's questions; these are the others.
        config.data.train = "offline:openbookqa/train%20:80/test,offline:mmlu/validation"
        config.data.train_size = 320
        config.data.eval = (
            "offline:openbookqa/test,offline:mmlu/test,offline:arc_easy/test,"
            "offline:arc_challenge/test"
        )
        config.data.eval_size = 300
        config.train.learning_rate = 1e-4
        config.train.batch_size = 8
        config.train.microbatches = 1
        config.compare.methods = (
            "before,temperature,structured_matrix,ridge_head,sft,sft+temperature,sft2,"
            "label_smoothing,ece_only,cft,rcft"
        )
    if preset == "debug":
        config.compare.methods = "before,fixed_temperature,temperature,cft"
        config.compare.seeds = "0"
    if preset == "vicuna_7b":
        config.compare.base = "RLHF"
    return config
