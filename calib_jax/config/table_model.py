"""The table of fields: what is run, the model, the questions, how they are asked and measured.

``table_train`` and ``table_jobs`` hold the rest. A new field is one entry in one of the three.
"""

from calib_jax.config import needs, values
from calib_jax.config.field import (
    ASKS,
    CHATS,
    FINETUNES,
    JOBS,
    LETTERS,
    PROMPTS,
    READS,
    RUNS_A_MODEL,
    SCORES,
    TRAINS,
    Field,
    Registry,
    all_but,
    section,
)

_MODEL_JOBS = (*(job for job in RUNS_A_MODEL if job != "study"), "export")
_TEMPLATE = "config.prompt.template is the prompt of training"
_SHOTS = "measure with examples by the job evaluate"

RUN = section(
    "",
    all_but("export"),
    job=Field("finetune", choices=JOBS, jobs=JOBS).means(
        "What to do: measure, train and measure again (finetune), measure only (evaluate), or "
        "another of the jobs."
    ),
    method=Field("cft", jobs=all_but("align", "export")).means(
        "What tables and reports call the method."
    ),
    seed=Field(0, least=0, most=2**32 - 1).means(
        "Seeds sampling, the order of options and batches, adapters, dropout and the bootstrap."
    ),
    accept_other_code=Field(False).means(
        "Continue a run that another version of the code began, which is refused otherwise: its "
        "numbers then come from both."
    ),
)

MODEL = section(
    "model",
    RUNS_A_MODEL,
    name=Field(
        "offline:smollm2-135m-instruct",
        jobs=_MODEL_JOBS,
        needs=(needs.ONE_MODEL, needs.TRAINS_STAGES),
        instead={"study": "config.study.pairs names the models"},
    ).means(
        "A Hugging Face folder (safetensors, PyTorch .bin or Flax msgpack), a .gguf file, a hub id "
        "or offline:smollm2-135m-instruct."
    ),
    revision=Field(
        "",
        jobs=_MODEL_JOBS,
        needs=(needs.TRAINS_STAGES,),
        instead={"study": "write model@revision in config.study.pairs"},
    ).means("The branch, tag or commit of a hub id; empty for its default."),
    adapter=Field(
        "",
        jobs=_MODEL_JOBS,
        needs=(needs.TRAINS_STAGES,),
        instead={"study": "write model+adapter in config.study.pairs"},
    ).means(
        "A LoRA adapter in PEFT's format, a folder or a hub id, which is measured or trained on; "
        "empty for none. In compare and sweep, {seed} in its name stands for the seed."
    ),
    quantize=Field(
        "",
        choices=Registry("calib_jax.models.quantize:SCHEMES", also=("",)),
        check=values.by("calib_jax.models.quantize:check_scheme"),
        instead={
            "export": "an export writes the base as it is stored; config.export.dtype sets "
            "the dtype"
        },
    ).means(
        "Holds the projections of a frozen base as 8-bit integers (int8) or 4-bit normal floats "
        "(nf4), through qwix; empty for neither."
    ),
    measure_quantization=Field(
        True, jobs=("finetune", "evaluate", "study"), needs=(needs.QUANTIZED,)
    ).means(
        "Under quantisation, score the evaluation splits without it first, and report the shift."
    ),
    dtype=Field(
        "auto",
        choices=("auto", "float32", "bfloat16"),
        instead={"export": "config.export.dtype sets the dtype"},
    ).means(
        "The dtype of frozen weights and of the computation; auto is float32 on a CPU and bfloat16 "
        "elsewhere. Probabilities, losses and trained parameters are always float32."
    ),
    attention=Field("auto", choices=("auto", "xla", "cudnn", "splash")).means(
        "How attention is computed: by XLA, cuDNN (NVIDIA GPUs, 16-bit) or splash (TPUs); auto "
        "takes the one that fits."
    ),
)

MESH = section(
    "mesh",
    (*RUNS_A_MODEL, "export"),
    shape=Field((1, -1, 1), check=values.by("calib_jax.parallel.mesh:check_shape")).means(
        "The numbers of devices along data × fsdp × tensor; -1 takes the rest."
    ),
)

DATA = section(
    "data",
    LETTERS,
    train=Field(
        "offline:openbookqa/train,offline:arc_easy/train",
        jobs=FINETUNES,
        needs=(needs.TRAINS_STAGES,),
    ).means(
        r"Sources of questions to train on, separated by commas (a comma inside a path is written "
        r"\,): a task (arc_easy, mmlu, ... or a .toml file, each with /<split> or without), "
        "offline:<task>/<split>, hf:<owner>/<name>[:<config>]:<split>, or a .jsonl, .csv or "
        ".parquet file. name=source gives a split another name, and source%70:30 divides it with "
        "the seed (%70:15:15 with a validation part): data.train takes the first part, data.eval "
        "the last."
    ),
    eval=Field(
        "offline:openbookqa/test,offline:arc_easy/test",
        jobs=(*TRAINS, *(job for job in READS if job != "lifecycle")),
        instead={
            "lifecycle": "config.lifecycle.tasks names the tasks",
            "alignment": "config.alignment.pairs and config.alignment.text are measured",
        },
    ).means(
        "Sources that are measured, in a training job before and after it. A split is in-domain "
        "where it belongs to a training source's data set or shares 1 % of its texts with the "
        "training sources."
    ),
    in_domain=Field("", jobs=TRAINS).means(
        "Names of splits of data.eval, separated by commas, that are in-domain whatever is found."
    ),
    out_of_domain=Field("", jobs=TRAINS).means(
        "Names of splits of data.eval, separated by commas, that are out-of-domain."
    ),
    answer_base=Field("auto", choices=("auto", "0", "1"), jobs=PROMPTS).means(
        "Whether answers of files and hub data sets that are numbers count from 0 or 1. auto "
        "counts from 0, and is refused where 30 or more of them never say 0."
    ),
    validation=Field("", jobs=FINETUNES, needs=(needs.TRAINS_STAGES,)).means(
        "One source that is measured after every epoch, into the log; empty for none."
    ),
    train_size=Field(0, least=0, jobs=FINETUNES, needs=(needs.TRAINS_STAGES,)).means(
        "How many questions to train on, drawn in equal parts from the sources; 0 for all. More "
        "than there are is an error."
    ),
    eval_size=Field(0, least=0, needs=(needs.TASKS,)).means(
        "How many questions to take of each evaluation split at most; 0 for all."
    ),
    validation_size=Field(0, least=0, jobs=FINETUNES, needs=(needs.VALIDATES,)).means(
        "How many questions to take of the validation split at most; 0 for all."
    ),
    shuffle_options=Field(True, needs=(needs.TASKS,)).means(
        "Shuffle the options of every question, so that a letter's frequency earns nothing."
    ),
    shuffle_tasks=Field("", needs=(needs.SHUFFLES,)).means(
        "The tasks, separated by commas, whose options alone are shuffled; empty for all."
    ),
    shots=Field(
        0,
        least=0,
        jobs=ASKS,
        needs=(needs.TASKS,),
        instead={"finetune": _SHOTS, "compare": _SHOTS},
    ).means(
        "How many answered examples stand before every question of a task, drawn with the seed "
        "from the task's split for them."
    ),
)

PROMPT = section(
    "prompt",
    (*CHATS, "export"),
    template=Field(
        "",
        check=values.template(letters=True),
        jobs=(*PROMPTS, "export"),
        needs=(needs.NO_RUN, needs.READS_LETTERS, needs.TRAINS_ON_LETTERS, needs.TASKS),
    ).means(
        "The prompt for letters, with the fields {question} and {options}; empty for a task's own "
        'where tasks are measured, and otherwise for the default, which ends in "Answer:".'
    ),
    choice=Field(
        "",
        check=values.template(letters=True),
        jobs=(*PROMPTS, "export"),
        needs=(needs.NO_RUN, needs.READS_LETTERS, needs.TRAINS_ON_LETTERS, needs.TASKS),
    ).means("An older name of prompt.template; set one of the two."),
    continuation=Field(
        "",
        check=values.template(letters=False),
        jobs=(*ASKS, "finetune", "compare", "sweep"),
        needs=(needs.READS_TEXTS, needs.TRAINS_ON_TEXTS, needs.TASKS),
    ).means(
        "The template for options' texts in place of a task's own; empty for its own, and in "
        'training for the default of all tasks, which ends in "Answer:".'
    ),
    chat=Field(False, needs=(needs.NO_RUN, needs.TASKS)).means(
        "Put prompts as one turn of the user into the tokenizer's chat template."
    ),
    template_arguments=Field(
        "",
        check=values.by("calib_jax.questions.chat:ChatSettings.read"),
        needs=(needs.CHAT, needs.NO_RUN),
    ).means(
        "What chat templates are told beside the messages: a JSON object, in addition to "
        '{"enable_thinking": false}. {"enable_thinking": true} reads a model where it thinks.'
    ),
    date=Field(
        "2024-07-26",
        check=values.by("calib_jax.questions.chat:read_date"),
        needs=(needs.CHAT, needs.NO_RUN),
    ).means(
        "What a chat template that asks for today's date is told (strftime_now), as YYYY-MM-DD."
    ),
    letter_prefix=Field(
        " ",
        jobs=(*PROMPTS, "export"),
        needs=(
            needs.PLAIN,
            needs.NO_RUN,
            needs.READS_LETTERS,
            needs.TRAINS_ON_LETTERS,
            needs.TASKS,
        ),
    ).means("What stands between the prompt and the letter; nothing does in a chat."),
    max_length=Field(1024, least=0, jobs=(*LETTERS, "generate"), needs=(needs.TASKS,)).means(
        "The longest prompt in tokens; a longer one is an error, and never cut. Jobs that do not "
        "train take 0 for the model's own length; evaluate then cuts longer prompts at the left, "
        "and counts them."
    ),
)

CONFIDENCE = section(
    "confidence",
    ASKS,
    methods=Field(
        "choice",
        check=values.named(Registry("calib_jax.confidence.methods:METHODS")),
        needs=(needs.TASKS,),
        instead={
            "finetune": "fine-tuning reads letters (choice), or what train.reading names; measure "
            "otherwise by the job evaluate, with config.model.adapter or an export of this run"
        },
    ).means(
        "How confidence is read, separated by commas: choice, continuation_sum, ... "
        "(calib_jax.confidence.methods.METHODS)."
    ),
)

BATCH = section(
    "batch",
    SCORES,
    token_budget=Field(
        1024, least=0, instead={"generate": "config.generate.batch_size sets the batch"}
    ).means(
        "How many tokens a scoring batch has, padding included. Jobs that do not train take 0 for "
        "1,024 on a CPU and 16,384 elsewhere."
    ),
    max_buckets=Field(5, least=1).means(
        "How many padded lengths there are at most, and hence compilations; more of them pad less."
    ),
    length_multiple=Field(0, least=0).means(
        "What padded lengths are multiples of; 0 for 8 on a CPU and 128 elsewhere."
    ),
)

REPORT = section(
    "report",
    ("report",),
    num_resamples=Field(1000, least=1, jobs=(*SCORES, "report")).means(
        "How many bootstrap resamples stand behind every interval."
    ),
    writers=Field("", check=values.by("calib_jax.reports.sinks:check"), jobs=TRAINS).means(
        "Where a training run's metrics go beside metrics.jsonl, separated by commas: tensorboard, "
        "wandb (each needs its extra); empty for nowhere else."
    ),
    predictions=Field("").means(
        "The predictions files of the job report, separated by commas: [STATE[:SPLIT]=]PATH; see "
        "configs/report.py."
    ),
    columns=Field("").means(
        "Which columns hold what where their names do not tell, [ROLE=]COLUMN separated by commas: "
        "an option's probabilities, or a role out of probs, log_scores, answer, id, subject, task, "
        "split, question, choices, cluster, confidence and correct; for example "
        "Billing,Technical,Sales,answer=truth,id=ticket."
    ),
    clusters=Field("auto").means(
        "The column whose rows of one value depend on each other (a passage, a person, repeats of "
        "one question); intervals are then over these clusters. auto takes a column named cluster, "
        "passage_id, passage or context, else repeats of one question; none takes rows for "
        "independent."
    ),
    method=Field("").means(
        "Which of several columns probs_<method>, or confidence_<method>, to read; empty for the "
        "only one."
    ),
    answer_base=Field("auto", choices=("auto", "0", "1")).means(
        "Whether answers count from 0 or 1; auto counts from 0, and is refused where 0 does not "
        "occur."
    ),
    ragged=Field(False).means("Whether rows may differ in their number of options."),
    ordered=Field(False, jobs=("report", "evaluate")).means(
        "Whether the options stand in an order, lowest first (stars, severities), so that the "
        "ranked probability score means something; a column per option gives the order of the "
        "columns."
    ),
    sum_tolerance=Field(0.0, least=0, below=1).means(
        "How far a row's sum may be from 1 (rounded figures); such rows are divided by their sum, "
        "and counted. 0 stands for 1e-4, or 2e-3 for half precision."
    ),
    in_domain=Field("").means("Which splits of the files are in-domain, separated by commas."),
    out_of_domain=Field("").means(
        "Which splits of the files are out-of-domain, separated by commas."
    ),
    title=Field("", jobs=("report", "compare", "sweep")).means(
        "What the page and the figures are called, for example the model's name."
    ),
)

POSTHOC = section(
    "posthoc",
    ("finetune", "align", "evaluate", "report"),
    methods=Field(
        "",
        check=values.by("calib_jax.reports.calibrated:check", split=True),
        instead={"compare": "config.compare.methods names calibrators too"},
    ).means(
        "Calibrators to apply to the scores before training, for comparison, separated by commas: "
        "temperature, vector, ... (calib_jax.posthoc.METHODS); empty for none."
    ),
    folds=Field(
        5,
        least=2,
        jobs=("finetune", "align", "evaluate", "report", "compare"),
        needs=(needs.CALIBRATORS, needs.CROSS_FITS),
    ).means("How many folds there are; each is calibrated by a fit on the others."),
    pseudo_count=Field(
        1.0,
        least=0,
        jobs=("finetune", "align", "evaluate", "report", "compare"),
        needs=(needs.COUNTS_A_PRIOR,),
    ).means(
        "How many invented rows, half of them right, histogram adds to each bin and isotonic to "
        "the ends. At 0 a confidence may become exactly 0 or 1, and the NLL infinite."
    ),
)
