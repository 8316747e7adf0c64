"""The table of fields, continued: bins and targets, training, alignment and checkpoints."""

from calib_jax.config import needs, values
from calib_jax.config.field import FINETUNES, LETTERS, TRAINS, Field, Registry, section

_METHOD_JOBS = ("finetune", "sweep", "plan")  # the other series have a list of methods
_WEIGHT_JOBS = ("finetune", "compare", "stages", "plan")

EM = section(
    "em",
    FINETUNES,
    num_bins=Field(10, least=1, jobs=(*LETTERS, "answers", "report")).means(
        "The number M of confidence bins."
    ),
    edges=Field("right", choices=("right", "left"), jobs=(*LETTERS, "answers", "report")).means(
        "Which edge belongs to a bin: right makes them (a, b], left [a, b)."
    ),
    binning=Field("width", choices=("width", "mass"), needs=(needs.READS_BINS,)).means(
        "Whether bins have equal width or equal mass (as many questions in each, where edges play "
        "no part)."
    ),
    shrinkage=Field(0.0, least=0, needs=(needs.READS_BINS,)).means(
        "κ: a bin's accuracy is drawn towards the overall one as by so many questions; 0 for not "
        "at all."
    ),
    held_out=Field(0.0, least=0, below=1, needs=(needs.READS_BINS,)).means(
        "The share of the training questions that no step learns, and that the bins' accuracies "
        "are taken from instead (κ is then at least 1): a model knows the questions that it has "
        "learnt better than others. 0 takes them from the questions that are learnt, as the paper "
        "does."
    ),
    refresh=Field(
        "epoch", choices=("epoch", "steps", "once", "online"), needs=(needs.READS_E_STEP,)
    ).means(
        "When bins and targets are made anew: every epoch, every em.refresh_steps steps, once (of "
        "the model as it begins), or online, from the training batches' own forward passes without "
        "any E-step (bins of equal width alone)."
    ),
    refresh_steps=Field(50, least=1, needs=(needs.READS_E_STEP, needs.BY_STEPS)).means(
        "The steps between two refreshes under em.refresh=steps."
    ),
)

TRAIN = section(
    "train",
    TRAINS,
    (needs.TRAINS_STAGES,),
    method=Field("full", choices=("full", "lora")).means(
        "Whether all parameters are trained, in float32 (full), or adapters on a frozen base "
        "(lora)."
    ),
    objective=Field(
        "paper",
        choices=("paper", "released"),
        jobs=_METHOD_JOBS,
        instead={
            "compare": "config.compare.methods=released names the released one",
            "stages": "config.stages.chain=released names the released one",
        },
    ).means(
        "What is minimised: SFT + λ · ECE (paper), or (1 − α) · SFT + α · 10⁻³ · CAL as in the "
        "authors' code (released, calib_jax.training.released)."
    ),
    reading=Field(
        "choice",
        choices=Registry("calib_jax.confidence.methods:TRAINED"),
        jobs=("finetune", "compare", "sweep"),
    ).means(
        "How confidence is read: by the options' letters (choice) or by their texts "
        "(continuation_sum, continuation_token, continuation_pmi, ...), in the E-step, in the loss "
        "and before and after training."
    ),
    sft=Field(
        "sft1",
        choices=("sft1", "sft2", "none"),
        jobs=_METHOD_JOBS,
        instead={
            "compare": "every method of config.compare.methods has its own",
            "stages": "every stage of config.stages.chain has its own",
        },
    ).means(
        "The SFT term: the answer's token, or all tokens of its text (sft1), question and answer "
        "tokens (sft2), or none."
    ),
    ece_weight=Field(
        1.0,
        least=0,
        jobs=_WEIGHT_JOBS,
        instead={"sweep": "config.sweep.ece_weight lists the values"},
    ).means("λ, the weight of the calibration term."),
    terms=Field(
        "",
        check=values.by("calib_jax.training.terms:parse_weights"),
        jobs=_METHOD_JOBS,
        instead={
            "compare": "every method of config.compare.methods has its own",
            "stages": "every stage of config.stages.chain has its own",
        },
    ).means(
        "The weights of further terms of the loss by their names (calib_jax.training.terms), "
        "separated by commas: brier=0.1."
    ),
    alpha=Field(0.5, least=0, most=1, jobs=_WEIGHT_JOBS, needs=(needs.RELEASED,)).means(
        "α of the objective released, which has no λ."
    ),
    divergence=Field(
        "squared",
        choices=Registry("calib_jax.training.losses:DIVERGENCES"),
        jobs=FINETUNES,
        needs=(needs.CALIBRATES,),
    ).means(
        "D of the calibration term D(p, π). kl and cross_entropy have the same gradient, since the "
        "targets p are constants."
    ),
    sft2_reduction=Field(
        "sum",
        choices=("sum", "mean"),
        jobs=FINETUNES,
        needs=(needs.SFT2,),
    ).means(
        "SFT2 is the sum over a question's tokens, averaged over questions (the paper's: the "
        "answer's token counts as it does in SFT1), or the mean over a batch's tokens, which "
        "divides the answer's weight by a question's length T while λ · ECE keeps its own: "
        "calibration then outweighs the answers by about T."
    ),
    label_smoothing=Field(0.0, least=0, below=1, jobs=FINETUNES).means(
        "ε of label smoothing in SFT1."
    ),
    smooth_over=Field(
        "vocabulary",
        choices=("vocabulary", "letters"),
        jobs=FINETUNES,
        needs=(needs.SMOOTHS,),
    ).means("What takes the share ε of label smoothing."),
    packing=Field(True).means(
        "Put several questions into one row, each seeing itself alone: less padding, the same "
        "losses."
    ),
    early_stopping=Field(0, least=0, jobs=FINETUNES).means(
        "Stop after so many epochs without a better validation split, and take the best epoch's "
        "model; 0 for never. The split must share no question with data.eval."
    ),
    early_stopping_metric=Field(
        "nll",
        choices=("nll", "brier", "conf_ece"),
        jobs=FINETUNES,
        needs=(needs.STOPS_EARLY,),
    ).means("Which metric of the validation split is better where it is lower."),
    epochs=Field(1, least=1).means(
        "The number L of EM iterations: each is an E-step over the training set and one epoch of "
        "steps."
    ),
    batch_size=Field(16, least=1).means("Questions per optimiser step, over the whole mesh."),
    microbatches=Field(1, least=1).means(
        "Gradient accumulation: the batch is computed in so many equal parts."
    ),
    remat=Field(True).means(
        "Recompute layers in the backward pass, which takes the memory of one layer instead of all "
        "and a third more time. False keeps the results of the weights' products, and recomputes "
        "only what is cheap."
    ),
    learning_rate=Field(2e-5, least=0).means(
        "The peak of AdamW's learning rate, which warms up linearly and falls to 0 by a cosine."
    ),
    warmup_ratio=Field(0.1, least=0, most=1).means(
        "The share of all steps over which the learning rate warms up."
    ),
    weight_decay=Field(0.0, least=0).means(
        "AdamW's weight decay, of projections, adapters and embeddings."
    ),
    clip_norm=Field(1.0, least=0).means("The largest global gradient norm; 0 for no clipping."),
)

_LORA = (needs.LORA, needs.FRESH_ADAPTER)
TRAIN_LORA = section(
    "train.lora",
    TRAINS,
    (needs.TRAINS_STAGES,),
    rank=Field(16, least=1, needs=_LORA).means("The rank r of the adapters."),
    alpha=Field(32.0, above=0, needs=_LORA).means(
        "The adapter's output is scaled by alpha / rank."
    ),
    dropout=Field(0.0, least=0, below=1, needs=(needs.LORA,)).means(
        "The dropout rate before the adapters."
    ),
    targets=Field("", needs=_LORA).means(
        "The projections that get adapters, separated by commas (q_proj,v_proj); empty for all "
        "linear layers but the LM head."
    ),
)

_ALIGNS = ("align", "stages")
_PAIRS = (*_ALIGNS, "alignment")
ALIGN = section(
    "align",
    _ALIGNS,
    method=Field(
        "dpo",
        choices=("sft", "dpo"),
        jobs=("align",),
        instead={"stages": "config.stages.chain names the stages"},
    ).means(
        "What the job align does: SFT on demonstrations or on the chosen answers of pairs (sft), "
        "or DPO on preference pairs (dpo). train.* holds as in finetune, where it can."
    ),
    train=Field("questions:offline:openbookqa/train@0.8", needs=(needs.TRAINS_STAGES,)).means(
        "Pairs or demonstrations: a .jsonl, .json, .parquet or .csv file, "
        "hf:<owner>/<name>[:<config>]:<split>, or questions:<source>[@rate], pairs made of "
        "questions in which the right letter is chosen with that rate."
    ),
    eval=Field("questions:offline:openbookqa/test@0.8").means(
        "Held-out pairs, written likewise; train:200 holds so many of align.train out, and empty "
        "stands for none."
    ),
    train_size=Field(0, least=0, needs=(needs.TRAINS_STAGES,)).means(
        "How many pairs or demonstrations to learn from at most; 0 for all."
    ),
    eval_size=Field(0, least=0).means("How many held-out pairs to take at most; 0 for all."),
    chat=Field(True, jobs=_PAIRS, needs=(needs.HAS_PAIRS,)).means(
        "Put messages through the tokenizer's chat template where it has one; False takes them as "
        "plain text. Pairs of questions are as prompt.chat says, like the questions that are "
        "measured."
    ),
    beta=Field(
        0.1, above=0, jobs=_PAIRS, needs=(needs.DPO, needs.HAS_PAIRS, needs.TRAINS_STAGES)
    ).means("β of DPO."),
    label_smoothing=Field(0.0, least=0, below=0.5, needs=(needs.DPO, needs.TRAINS_STAGES)).means(
        "ε of DPO's label smoothing (cDPO)."
    ),
    max_length=Field(1024, least=1, jobs=_PAIRS, needs=(needs.HAS_PAIRS,)).means(
        "The longest prompt and answer together, in tokens; longer ones are skipped, and counted."
    ),
)

CHECKPOINT = section(
    "checkpoint",
    TRAINS,
    (needs.TRAINS_STAGES,),
    every_steps=Field(50, least=0).means(
        "Steps between checkpoints within an epoch; 0 for one at each epoch's end only."
    ),
    keep=Field(2, least=1).means(
        "How many of the newest checkpoints are kept; of two, one is left to go back to when the "
        "other is damaged."
    ),
    keep_epochs=Field(False).means(
        "Keep what every epoch has trained, too (without the optimiser's state), for export.epoch "
        "and run:<folder>@<epoch>: of LoRA its adapters, of full fine-tuning all float32 "
        "parameters."
    ),
)
