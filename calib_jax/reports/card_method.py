"""What a model card says of the method: each setting that made the model, in words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from calib_jax.training import terms

if TYPE_CHECKING:
    from calib_jax.reports.model_card import Facts


def rows(facts: "Facts") -> dict[str, Any]:
    """The lines of the card's table, in order."""
    return _aligning(facts) if aligned(facts.config) else _calibrating(facts)


def aligned(config: Mapping[str, Any]) -> bool:
    """Whether a run was of the job "align": one of the stages before calibration."""
    return config["job"] == "align"


def _calibrating(facts: "Facts") -> dict[str, Any]:
    """What the job "finetune" did: what is not the default is stated, the rest where it matters."""
    train, em = facts.config["train"], facts.config["em"]
    rows: dict[str, Any] = {}
    reading = train.get("reading", "choice")  # runs of an older version do not say it
    if reading != "choice":
        rows["confidence read"] = f"by the options' texts ({reading})"
    rows["supervised term"] = "none"
    for term in terms.active(train):
        rows |= term.rows(train)
    iterations = ""
    if terms.reads_bins(train):
        rows["confidence bins"] = f"{em['num_bins']}, closed on the {em['edges']}"
        if em["binning"] == "mass":
            rows["confidence bins"] = f"{em['num_bins']}, with as many questions in each"
        if em["held_out"]:
            rows["bins' accuracies"] = (
                f"of {100 * em['held_out']:g} % of the training questions, which no step learns"
            )
        if em["shrinkage"]:
            rows["shrinkage of a bin's accuracy to the overall one"] = (
                f"as by {em['shrinkage']:g} questions"
            )
        if em["refresh"] == "epoch":
            iterations = " (EM iterations)"
    if terms.reads_e_step(train) and em["refresh"] != "epoch":
        what = "bins and targets" if terms.reads_bins(train) else "the model's own probabilities"
        rows[f"{what} made anew"] = {
            "steps": f"every {em['refresh_steps']} steps",
            "online": "online, from the training batches (no E-step)",
            "once": "never: they are those of the model before training",
        }[em["refresh"]]
    return rows | _extent(facts, iterations)


def _aligning(facts: "Facts") -> dict[str, Any]:
    """What the job "align" did."""
    align = facts.config["align"]
    if align["method"] == "sft":
        rows = {"loss": "cross-entropy of the responses' tokens, none of the prompts'"}
    else:
        start = f"base with {facts.adapter}" if facts.adapter else "base"
        rows = {
            "loss": "sigmoid loss of DPO",
            "β": align["beta"],
            "label smoothing (cDPO)": align["label_smoothing"] or "none",
            "reference": f"the model at the start ({start})",
        }
    if not align["chat"]:
        rows["messages"] = "as plain text, without the chat template"
    rows["longest prompt and response, in tokens"] = align["max_length"]
    return rows | _extent(facts, "")


def _extent(facts: "Facts", iterations: str) -> dict[str, Any]:
    """How long and of what was trained: the same for every method."""
    train, done = facts.config["train"], facts.summary.get("training", {})
    asked, trained = train["epochs"], done.get("epochs_trained")
    stops = bool(train["early_stopping"])
    # Runs of an older version do not say what early stopping left out.
    most = "at most " if stops and trained is None else ""
    epochs = f"{most}{asked if trained is None else trained}"
    rows = {
        f"epochs{iterations}": epochs + (f" of {asked}" if stops and trained is not None else ""),
        "optimiser steps": f"{most}{done['steps']}" if "steps" in done else "not recorded",
    }
    if stops:
        rounds = train["early_stopping"]
        rows["early stopping"] = (
            f"after {rounds} epoch{'s' * (rounds > 1)} without a lower "
            f"{train['early_stopping_metric']} on {facts.config['data']['validation']}"
        )
        if done.get("best_epoch") and facts.measured:
            rows["the model here"] = f"that after epoch {done['best_epoch']}, the best"
    if not facts.measured:
        rows["the model here"] = f"that after epoch {facts.epoch}"
    rows |= {
        "batch size": train["batch_size"],
        "peak learning rate": train["learning_rate"],
        "warm-up ratio": train["warmup_ratio"],
        "weight decay": train["weight_decay"],
        "gradient norm clipped at": train["clip_norm"] or "never",
        "seed": facts.config["seed"],
    }
    if facts.lora is None:
        rows["trained"] = "all parameters"
    else:
        lora = facts.lora
        rows["trained"] = (
            f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}"
            + (" (rank-stabilised)" if lora.rank_stabilised else "")
            + f", dropout {lora.dropout:g}, on {', '.join(lora.targets) or 'all projections'}"
        )
    if kind := facts.config["model"].get("quantize"):
        here = "; unquantised here" if facts.format == "merged" else ""
        rows["base during training"] = f"quantised as {kind}{here}"
    return rows
