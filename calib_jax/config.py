"""The configuration of a run: every field, its meaning and its default.

A config file (``configs/*.py``) starts from ``base()``, picks a preset and sets what makes the
method. Any field can be set on the command line: ``--config.train.learning_rate=1e-5``.
"""

import re

import ml_collections


def base() -> ml_collections.ConfigDict:
    """All fields with defaults that suit a small model on a CPU."""
    config = ml_collections.ConfigDict()

    # What to do: "finetune" (measure, train, measure again), "evaluate", "compare", "sweep",
    # "align" (SFT or DPO), "stages", "alignment", "generate", "winrate", "plan", "study",
    # "lifecycle", "report", "export"; and what to call the method in tables.
    config.job = "finetune"
    config.method = "cft"
    # Seeds sampling, option order, batch order, adapters, dropout and the bootstrap.
    config.seed = 0
    # Continue a run that other code began: its numbers then come from both, which is refused else.
    config.accept_other_code = False

    config.model = model = ml_collections.ConfigDict()
    # A Hugging Face folder (safetensors, PyTorch .bin or Flax msgpack), a .gguf file, a hub id, or
    # offline:smollm2-135m-instruct.
    model.name = "offline:smollm2-135m-instruct"
    # Branch, tag or commit of a hub id; "" for its default.
    model.revision = ""
    # A LoRA adapter in PEFT's format, a folder or a hub id: measured, or trained on from; "" for
    # none.
    model.adapter = ""
    # The projections of a frozen base as 8-bit integers ("int8") or 4-bit normal floats ("nf4"),
    # through qwix; "" for none.
    model.quantize = ""
    # Under quantisation: score the evaluation splits without it first, and report the shift.
    model.measure_quantization = True
    # "float32" or "bfloat16" for frozen weights and computation; "auto": float32 on a CPU,
    # bfloat16 elsewhere. Probabilities, losses and trained parameters are float32 always.
    model.dtype = "auto"
    # "xla", "cudnn" (NVIDIA GPUs, 16-bit), "splash" (TPUs), or "auto": the one that fits.
    model.attention = "auto"

    config.mesh = mesh = ml_collections.ConfigDict()
    # Devices along data × fsdp × tensor; -1 for the rest.
    mesh.shape = (1, -1, 1)

    config.data = data = ml_collections.ConfigDict()
    # Sources, separated by commas (a comma inside a path is written \,): a task (arc_easy, mmlu,
    # ... or a .toml file, each with /<split> or not), offline:<task>/<split>,
    # hf:<owner>/<name>[:<config>]:<split>, or a .jsonl, .csv or .parquet file; "name=source" gives
    # a split another name. "exam.csv%70:30" divides a source with the seed, "%70:15:15" with a
    # validation part between: its first part is what data.train takes, its last what data.eval
    # takes. In the job "evaluate" tasks bring their own prompts.
    data.train = "offline:openbookqa/train,offline:arc_easy/train"
    # Measured before and after; in-domain where it is of a training source's data set, or shares
    # 1 % of its texts with the training sources.
    data.eval = "offline:openbookqa/test,offline:arc_easy/test"
    # Names of splits of data.eval, separated by commas, whose domain you know better.
    data.in_domain = ""
    data.out_of_domain = ""
    # Whether answers of files and hub data sets that are numbers count from "0" or "1"; "auto":
    # from 0, refused where 30 or more of them never say 0. A task's .toml file says it itself.
    data.answer_base = "auto"
    # Measured after every epoch, into the log; "" for none.
    data.validation = ""
    # Questions to train on, drawn in equal parts from the sources; 0 for all. More than there are
    # is an error.
    data.train_size = 0
    # At most so many questions of each evaluation split and of the validation split; 0 for all.
    data.eval_size = 0
    data.validation_size = 0
    # Shuffle the options of every question, so that a letter's frequency earns nothing.
    data.shuffle_options = True
    # With it: of these tasks alone, separated by commas; "" for all of them.
    data.shuffle_tasks = ""
    # Tasks: examples before every question, from the task's split for them, drawn with the seed.
    data.shots = 0

    config.prompt = prompt = ml_collections.ConfigDict()
    # For letters, with the fields {question} and {options}; "" for a task's own where tasks are
    # measured, and else the default, which ends in "Answer:".
    prompt.template = ""
    # An older name of prompt.template.
    prompt.choice = ""
    # The template for options' texts where tasks are measured; "" for a task's own.
    prompt.continuation = ""
    # Prompts as one turn of the user in the tokenizer's chat template.
    prompt.chat = False
    # What chat templates are told beside the messages, a JSON object, in addition to
    # {"enable_thinking": false}: {"enable_thinking": true} reads a model where it thinks. The job
    # "align" obeys it for its messages too.
    prompt.template_arguments = ""
    # What a chat template that asks for today's date is told (strftime_now), as YYYY-MM-DD.
    prompt.date = "2024-07-26"
    # What stands between the prompt and the letter; nothing does in a chat.
    prompt.letter_prefix = " "
    # Longest prompt in tokens; a longer one is an error, never cut. 0 (the job "evaluate"): the
    # model's own length; longer prompts are cut at the left, and counted.
    prompt.max_length = 1024

    config.confidence = confidence = ml_collections.ConfigDict()
    # How confidence is read (calib_jax.confidence.reading.METHODS), separated by commas.
    confidence.methods = "choice"

    config.batch = batch = ml_collections.ConfigDict()
    # Tokens of a scoring batch, padding included. 0 (the job "evaluate"): 1,024 on a CPU, 16,384
    # elsewhere.
    batch.token_budget = 1024
    # Padded lengths, hence compilations: more of them pad less.
    batch.max_buckets = 5
    # Padded lengths are multiples of this; 0 for 8 on a CPU and 128 elsewhere.
    batch.length_multiple = 0

    config.em = em = ml_collections.ConfigDict()
    # Confidence bins M, and which edge belongs to a bin: "right", (a, b], or "left", [a, b).
    em.num_bins = 10
    em.edges = "right"
    # Bins of equal "width", or of equal "mass" (as many questions in each; edges then play no
    # part).
    em.binning = "width"
    # κ: a bin's accuracy is drawn towards the overall one as by so many questions; 0 for not at
    # all.
    em.shrinkage = 0.0
    # When bins and targets are made anew: every "epoch", every refresh_steps "steps", "once" (of
    # the model as it begins, for good), or "online", from the training batches' own forward passes,
    # without any E-step (bins of equal width alone).
    em.refresh = "epoch"
    em.refresh_steps = 50

    config.train = train = ml_collections.ConfigDict()
    # "full" (all parameters, float32) or "lora" (adapters on a frozen base).
    train.method = "full"
    # What is minimised: "paper", SFT + λ · ECE, or "released", the authors' code:
    # (1 − α) · SFT + α · 10⁻³ · CAL (calib_jax.training.released).
    train.objective = "paper"
    # SFT term: "sft1" (the answer's token), "sft2" (question and answer tokens) or "none".
    train.sft = "sft1"
    # λ, the weight of the calibration term.
    train.ece_weight = 1.0
    # Weights of further terms by name (calib_jax.training.terms), separated by commas: brier=0.1
    train.terms = ""
    # α of the objective "released"; λ has no part in that.
    train.alpha = 0.5
    # D of the calibration term D(p, π): "squared" error, "kl" or "cross_entropy". The last two have
    # the same gradient, since the targets p are constants.
    train.divergence = "squared"
    # SFT2: the "sum" over a question's tokens, averaged over questions (the paper's: the answer's
    # token counts as it does in SFT1), or the "mean" over a batch's tokens, which divides the
    # answer's weight by a question's length T while λ · ECE keeps its own: calibration then
    # outweighs the answers by about T.
    train.sft2_reduction = "sum"
    # ε of label smoothing in SFT1, and what takes its share: the "vocabulary" or the "letters".
    train.label_smoothing = 0.0
    train.smooth_over = "vocabulary"
    # Several questions in one row, each seeing itself alone: less padding, the same losses.
    train.packing = True
    # Stop after so many epochs without a better validation split, and take the best epoch's model;
    # 0 for never. The split must share no question with data.eval.
    train.early_stopping = 0
    # What is better: lower "nll", "brier" or "conf_ece".
    train.early_stopping_metric = "nll"
    # EM iterations L: each is an E-step over the training set and one epoch of steps.
    train.epochs = 1
    # Questions per optimiser step, over the whole mesh.
    train.batch_size = 16
    # Gradient accumulation: the batch is computed in so many equal parts.
    train.microbatches = 1
    # Recompute layers in the backward pass: memory of one layer instead of all, a third more time.
    # False: keep the results of the weights' products, and recompute only what is cheap.
    train.remat = True
    # Peak of AdamW's learning rate; linear warm-up over the ratio of all steps, cosine to 0.
    train.learning_rate = 2e-5
    train.warmup_ratio = 0.1
    train.weight_decay = 0.0
    # Largest global gradient norm; 0 for no clipping.
    train.clip_norm = 1.0

    train.lora = lora = ml_collections.ConfigDict()
    lora.rank = 16
    # The adapter's output is scaled by alpha / rank.
    lora.alpha = 32.0
    lora.dropout = 0.0
    # Projections, separated by commas (q_proj,v_proj); "" for all linear layers but the LM head.
    lora.targets = ""

    config.align = align = ml_collections.ConfigDict()
    # The job "align": "sft" (demonstrations, or the chosen answers of pairs) or "dpo" (preference
    # pairs). train.* holds as in "finetune", where it can.
    align.method = "dpo"
    # Pairs or demonstrations: a .jsonl, .json, .parquet or .csv file,
    # hf:<owner>/<name>[:<config>]:<split>, or questions:<source>[@rate], pairs made of questions:
    # the right letter is chosen with that rate.
    align.train = "questions:offline:openbookqa/train@0.8"
    # Held-out pairs, likewise; "train:200" holds so many of align.train out; "" for none.
    align.eval = "questions:offline:openbookqa/test@0.8"
    # At most so many of each; 0 for all.
    align.train_size = 0
    align.eval_size = 0
    # Messages go through the tokenizer's chat template, where it has one; False: as plain text.
    # Pairs of questions are as prompt.chat says, like the questions that are measured.
    align.chat = True
    # β of DPO, and its label smoothing (cDPO).
    align.beta = 0.1
    align.label_smoothing = 0.0
    # Longest prompt and answer together, in tokens; longer ones are skipped, and counted.
    align.max_length = 1024

    config.stages = stages = ml_collections.ConfigDict()
    # The job "stages": what is done to the model, in order, and measured after every one: "sft"
    # and "dpo" (the job "align") and the methods of fine-tuning, "cft", "rcft", ...
    stages.chain = "sft,dpo,cft"
    # What a stage has otherwise, stage:field=value, separated by commas:
    # dpo:train.learning_rate=1e-4,dpo:align.beta=0.05
    stages.settings = ""
    # What the model that the chain begins with is called.
    stages.start = "start"
    # Models that went through the stages already, to be measured instead:
    # label=model[@revision][+adapter] or label=run:<folder>[@<epoch>], separated by commas; "" to
    # train.
    stages.models = ""

    config.compare = compare = ml_collections.ConfigDict()
    # The job "compare": methods in the table's order ("before" is the model as it is), and seeds;
    # separated by commas.
    compare.methods = "before,fixed_temperature,temperature,label_smoothing,cft,rcft,sft,ece_only"
    compare.seeds = "0,1,2"
    # What a trained method has otherwise, method:field=value, separated by commas; any field of
    # train.* and em.*: rcft:train.learning_rate=1e-5,cft:train.ece_weight=3
    compare.settings = ""
    # What post-hoc methods are fitted on: "train", the questions that fine-tuning learns from, as
    # the model answers them before; or "cross", the evaluation splits' own, out of fold.
    compare.calibration = "train"
    # What the model as it is is called in tables.
    compare.base = "DPO"
    # Folders of finished runs of this job whose rows stand in the tables too, separated by commas.
    compare.beside = ""

    config.sweep = sweep = ml_collections.ConfigDict()
    # The job "sweep": values of λ and of M, every one with every other, and seeds.
    sweep.ece_weight = "0,0.3,1,3,10"
    sweep.num_bins = "10"
    sweep.seeds = "0"

    config.alignment = alignment = ml_collections.ConfigDict()
    # The job "alignment": what of the alignment a fine-tuned model kept. The models after:
    # name=model[+adapter] or name=run:<folder>[@<epoch>], separated by commas; config.model is
    # before.
    alignment.models = ""
    # Held-out preference pairs, as align.eval; and running text for perplexity, as
    # lifecycle.text; "" for none.
    alignment.pairs = ""
    alignment.pairs_size = 0
    alignment.text = ""
    alignment.text_size = 200
    # Tokens of text that are read at once; no token is predicted after fewer than half of them.
    alignment.window = 512

    config.generate = generate = ml_collections.ConfigDict()
    # The job "generate": prompts, a .jsonl, .json or .parquet file or hf:...; and the layout of
    # the answers: "alpaca_eval", "arena_hard" or "jsonl".
    generate.prompts = ""
    generate.format = "alpaca_eval"
    # What the answer files call the model; "" for its own name.
    generate.name = ""
    generate.max_new_tokens = 1024
    # 0 for greedy; top_k 0 and top_p 1 for the whole distribution.
    generate.temperature = 0.0
    generate.top_k = 0
    generate.top_p = 1.0
    # Answers that are written at a time.
    generate.batch_size = 16
    # At most so many prompts; 0 for all.
    generate.size = 0

    config.winrate = winrate = ml_collections.ConfigDict()
    # The job "winrate": files of judgements, separated by commas: AlpacaEval's annotations.json,
    # Arena-Hard's model_judgment/*.jsonl, or .jsonl rows with "win" (see configs/winrate.py).
    winrate.judgements = ""
    # Arena-Hard's answer files of the models and of the baseline, for length control: its
    # judgements do not hold the answers. "" for none.
    winrate.answers = ""

    config.plan = plan = ml_collections.ConfigDict()
    # The job "plan": the hardware (v5e-8, v5e-16, v6e-8, v4-8, v5p-8, gpu-80gib, cpu-16gib, ...).
    plan.topology = "v5e-8"
    # The model's dimensions: a folder with config.json; "" for plan.dimensions, the attributes of
    # a config.json, which the presets of configs/plan.py fill in.
    plan.model = ""
    plan.dimensions = ml_collections.ConfigDict()

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    # Steps between checkpoints within an epoch; 0 for one at each epoch's end only.
    checkpoint.every_steps = 50
    # How many of the newest are kept; of two, one is left to go back to when the other is damaged.
    checkpoint.keep = 2
    # Keep what every epoch has trained, too (without the optimiser's state), for export.epoch and
    # run:<folder>@<epoch>: of LoRA its adapters, of full fine-tuning all float32 parameters.
    checkpoint.keep_epochs = False

    config.report = report = ml_collections.ConfigDict()
    # Bootstrap resamples behind every interval.
    report.num_resamples = 1000
    # Where a training run's metrics go beside metrics.jsonl, separated by commas: "tensorboard",
    # "wandb" (each needs its extra); "" for nowhere else.
    report.writers = ""
    # The job "report": predictions files, separated by commas, [STATE[:SPLIT]=]PATH; see
    # configs/report.py.
    report.predictions = ""
    # Which columns hold what where their names do not tell, [ROLE=]COLUMN separated by commas: an
    # option's probabilities, or a role of probs, log_scores, answer, id, subject, task, split,
    # question, choices; for example "Billing,Technical,Sales,answer=truth,id=ticket".
    report.columns = ""
    # Which of several probs_<method> columns; "" where there is one.
    report.method = ""
    # Whether answers count from "0" or "1"; "auto": from 0 where 0 occurs, refused where not.
    report.answer_base = "auto"
    # Whether rows may differ in their number of options.
    report.ragged = False
    # How far a row's sum may be from 1 (rounded figures): such rows are divided by their sum, and
    # counted. 0: 1e-4, or 2e-3 for half precision.
    report.sum_tolerance = 0.0
    # Which splits of the files are in-domain and which out-of-domain, separated by commas.
    report.in_domain = ""
    report.out_of_domain = ""
    # What the page and the figures are called, for example the model's name.
    report.title = ""

    config.study = study = ml_collections.ConfigDict()
    # The job "study": pairs of models, name=base->aligned, separated by commas. A model is what
    # model.name takes, or run:<folder> for a finished run of the job "evaluate".
    study.pairs = ""
    # CSV files in the authors' layout to show beside it, separated by commas: FILE, sce=FILE (its
    # SCE is class-wise) or sce_ovr=FILE (one-vs-rest).
    study.published = ""

    config.lifecycle = lifecycle = ml_collections.ConfigDict()
    # The job "lifecycle": models in order, label=model[@revision][+adapter], separated by commas;
    # "" for config.model alone.
    lifecycle.models = ""
    # What the labels are: "scale", "step", "epoch", or any other name of the axis.
    lifecycle.axis = "scale"
    # Running text: a .txt file; a .jsonl, .csv or .parquet file[:<column>]; or
    # hf:<owner>/<name>[:<config>]:<split>[:<column>]; "" for none.
    lifecycle.text = ""
    # At most so many documents, and positions of each; and tokens before a position.
    lifecycle.text_size = 1000
    lifecycle.positions = 1
    lifecycle.context_length = 512
    # Facts: a file or folder in T-REx's or LAMA's layout, or hf:...; "" for none. At most so many.
    lifecycle.facts = ""
    lifecycle.facts_size = 1000
    # In a folder of relations' facts, their texts: "sentences" that they were found in, or of a
    # relation's templates the "first" or "all"; "auto": sentences where there are any.
    lifecycle.patterns = "auto"
    # Tasks of multiple choice (the paper: mmlu), as in data.eval; "" for none.
    lifecycle.tasks = "mmlu"

    config.export = export = ml_collections.ConfigDict()
    # The job "export": folder of the run whose model is written; "" for config.model as it is.
    export.run = ""
    # The model after that epoch, from 1, of a run with checkpoint.keep_epochs; 0 for the model that
    # the run ended with.
    export.epoch = 0
    # "merged" (all weights, adapters added in) or "adapter" (PEFT's format).
    export.format = "merged"
    # "stored" (that of the base checkpoint; quantised and float64 ones become float32), "float32",
    # "bfloat16" or "float16".
    export.dtype = "stored"
    # Largest file of a sharded checkpoint.
    export.max_shard_bytes = 5_000_000_000

    config.posthoc = posthoc = ml_collections.ConfigDict()
    # Calibrators to apply to the scores before training, for comparison, separated by commas:
    # temperature, vector, ... (calib_jax.posthoc.METHODS); "" for none.
    posthoc.methods = ""
    # Every fold's probabilities come from a calibrator fitted on the others.
    posthoc.folds = 5
    return config


def split_list(text: str) -> tuple[str, ...]:
    r"""The entries of a comma-separated field, blanks dropped; ``\,`` is a comma inside an entry.

    >>> split_list(r"a.csv, results\, 2024.csv,")
    ('a.csv', 'results, 2024.csv')
    """
    parts = (part.replace(r"\,", ",").strip() for part in re.split(r"(?<!\\),", text))
    return tuple(part for part in parts if part)
