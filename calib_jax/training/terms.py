"""The terms of a fine-tuning loss, Σ_t w_t · L_t: each of them is listed once, in ``TERMS``.

A term's entry says what it computes, what it needs, where its weight is configured and what it is
called. The objective, the need for an E-step, the formula in tables, the model card, the log, the
progress bar and the figure of the training log all come from it. So a new loss is one entry here,
with its weight in ``config.train.terms``, and one line of ``presets.METHODS``.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.training import losses
from calib_jax.training.inputs import BINS, LABELS, LEVELS, OWN, TARGETS, Answers, Settings
from calib_jax.training.released import SCALE, ReleasedTerm

Train = Mapping[str, Any]  # config.train


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of the loss.

    Attributes:
      name: its key in ``TERMS``.
      loss: the microbatch's share of the term's value over the batch, a float32 scalar.
      symbol: what formulas call it, or how that follows from the settings.
      words: what it is, for the model card; a term with ``card`` needs none.
      needs: of ``TARGETS``, ``BINS``, ``LABELS``, ``OWN`` and ``LEVELS``.
      field: where its weight is configured; "" for ``config.train.terms``, by its name.
      weight_of: its weight, for a term with a ``field``.
      coefficient: its weight in formulas, for a term with a ``field``.
      card: its rows of the model card; None: its words and its weight.
      log: what the log and the progress bar call it; "" for its name. Terms that are never
        minimised together may share it.
      title: what the figure of the training log calls it; "" for its name.
    """

    name: str
    loss: Callable[[Answers, Settings], jax.Array]
    symbol: str | Callable[[Train], str]
    words: str = ""
    needs: frozenset[str] = frozenset()
    field: str = ""
    weight_of: Callable[[Train], float] | None = None
    coefficient: Callable[[Train], str] | None = None
    card: Callable[[Train], dict[str, Any]] | None = None
    log: str = ""
    title: str = ""

    @property
    def key(self) -> str:
        return self.log or self.name

    def weight(self, train: Train) -> float:
        """Its weight in the loss; 0 leaves the term out."""
        if self.weight_of is not None:
            return self.weight_of(train)
        return parse_weights(train["terms"]).get(self.name, 0.0)

    def formula(self, train: Train) -> str:
        """Its weight and its symbol, as a summand."""
        weight = self.coefficient(train) if self.coefficient else f"{self.weight(train):g}"
        symbol = self.symbol if isinstance(self.symbol, str) else self.symbol(train)
        return f"{weight} · {symbol}" if weight else symbol

    def rows(self, train: Train) -> dict[str, Any]:
        """What the model card's table says of it."""
        return self.card(train) if self.card else {f"weight of {self.words}": self.weight(train)}


# --- Supervised terms -----------------------------------------------------------------------------


def _sft1(answers: Answers, how: Settings) -> jax.Array:
    """The right letter's token, or all tokens of the right option's text, whatever the reading."""
    if answers.text_log_probs_NxK is not None:
        right_Nx1 = answers.answers_N[:, None]
        return answers.mean(
            -jnp.take_along_axis(answers.text_log_probs_NxK, right_Nx1, axis=1)[:, 0]
        )
    letters = {"letter_ids_K": answers.letter_ids_K, "mask_BxK": answers.mask_NxK}
    return answers.mean(
        losses.sft1(
            answers.logits_NxV,
            answers.letter_ids_K[answers.answers_N],
            how.label_smoothing,
            **(letters if how.smooth_over == "letters" else {}),
        )
    )


def _sft2(answers: Answers, how: Settings) -> jax.Array:
    total = jnp.sum(answers.token_losses_BxL)
    return total / (answers.num_tokens if how.sft2_reduction == "mean" else answers.num_rows)


def _sft_weight(name: str, train: Train) -> float:
    whole = 1.0 - train["alpha"] if _is_released(train) else 1.0
    return whole if train["sft"] == name else 0.0


def _sft_coefficient(train: Train) -> str:
    return "(1 − α)" if _is_released(train) else ""


def _sft1_symbol(train: Train) -> str:
    if not train["label_smoothing"]:
        return "SFT1"
    return f"SFT1 with ε = {train['label_smoothing']:g} over the {train['smooth_over']}"


def _sft1_card(train: Train) -> dict[str, Any]:
    what = "token" if train.get("reading", "choice") == "choice" else "text, all of its tokens"
    rows = {"supervised term": f"SFT1 (the answer's {what})"}
    if train["label_smoothing"]:
        over = {"vocabulary": "the vocabulary", "letters": "the options' letters"}
        rows["label smoothing"] = f"{train['label_smoothing']} over {over[train['smooth_over']]}"
    return rows


def _sft2_symbol(train: Train) -> str:
    return "SFT2 (mean over tokens)" if train["sft2_reduction"] == "mean" else "SFT2"


def _sft2_card(train: Train) -> dict[str, Any]:
    tokens = f"question and answer tokens, their {train['sft2_reduction']}"
    return {"supervised term": f"SFT2 ({tokens})"}


# --- Calibration terms ----------------------------------------------------------------------------


def _ece(answers: Answers, how: Settings) -> jax.Array:
    return answers.mean(
        losses.calibration(
            answers.log_scores_NxK, answers.targets_NxK, answers.mask_NxK, how.divergence
        )
    )


def _ece_symbol(train: Train) -> str:
    by = {"squared": "", "kl": " by KL", "cross_entropy": " by cross-entropy"}
    return f"ECE{by[train['divergence']]}"


def _ece_card(train: Train) -> dict[str, Any]:
    rows = {"weight of the calibration term": train["ece_weight"]}
    if train["divergence"] != "squared":
        names = {"kl": "Kullback-Leibler divergence", "cross_entropy": "cross-entropy"}
        rows["calibration term"] = f"{names[train['divergence']]} of the targets and the model"
    return rows


def _cal(answers: Answers, how: Settings) -> jax.Array:
    """A sum over the batch, not a mean: see ``released``."""
    losses_N = ReleasedTerm(how.num_bins, how.edges).per_question(
        answers.probs_NxK, answers.mask_NxK, answers.bin_accuracy_M, answers.bin_counts_M
    )
    return jnp.sum(answers.weights_N * losses_N)


def _cal_card(train: Train) -> dict[str, Any]:
    formula = "(1 − α) · SFT + α · 10⁻³ · CAL"
    return {"objective": f"of the authors' code: {formula}", "α": train["alpha"]}


def _is_released(train: Train) -> bool:
    return train["objective"] == "released"


# --- Further terms --------------------------------------------------------------------------------


def _brier(answers: Answers, how: Settings) -> jax.Array:
    right_NxK = jax.nn.one_hot(answers.answers_N, answers.mask_NxK.shape[1])
    return answers.mean(jnp.sum((answers.probs_NxK - right_NxK) ** 2, axis=-1))


def _on_options(loss: Callable[..., jax.Array], **settings: float) -> Callable:
    """The term of a loss of (log-scores, answers, mask) per question: its mean."""

    def term(answers: Answers, how: Settings) -> jax.Array:
        arrays = answers.log_scores_NxK, answers.answers_N, answers.mask_NxK
        return answers.mean(loss(*arrays, **settings))

    return term


def _distil(answers: Answers, how: Settings) -> jax.Array:
    arrays = answers.log_scores_NxK, answers.own_NxK, answers.mask_NxK
    return answers.mean(losses.calibration(*arrays, "kl"))


def _nll(answers: Answers, how: Settings) -> jax.Array:
    """−ln π_y, the options' probabilities renormalised; from scores, so that it stays finite."""
    log_probs_NxK = jax.nn.log_softmax(answers.log_scores_NxK, axis=-1, where=answers.mask_NxK)
    right_Nx1 = answers.answers_N[:, None]
    return answers.mean(-jnp.take_along_axis(log_probs_NxK, right_Nx1, axis=1)[:, 0])


TERMS: dict[str, Term] = {
    term.name: term
    for term in (
        # Xiao et al. 2025: the answer's token; question and answer tokens.
        Term(
            "sft1", _sft1, _sft1_symbol, field="config.train.sft",
            weight_of=functools.partial(_sft_weight, "sft1"), coefficient=_sft_coefficient,
            card=_sft1_card, log="sft", title="SFT",
        ),
        Term(
            "sft2", _sft2, _sft2_symbol, needs=frozenset({LABELS}), field="config.train.sft",
            weight_of=functools.partial(_sft_weight, "sft2"), coefficient=_sft_coefficient,
            card=_sft2_card, log="sft", title="SFT",
        ),
        # Xiao et al. 2025, L_ECE of Algorithm 1.
        Term(
            "ece", _ece, _ece_symbol, needs=frozenset({TARGETS}), field="config.train.ece_weight",
            weight_of=lambda train: 0.0 if _is_released(train) else train["ece_weight"],
            coefficient=lambda train: f"{train['ece_weight']:g}", card=_ece_card, title="ECE",
        ),
        # What the authors' code has in its place.
        Term(
            "cal", _cal, "CAL", needs=frozenset({BINS}), field="config.train.alpha",
            weight_of=lambda train: train["alpha"] * SCALE if _is_released(train) else 0.0,
            coefficient=lambda train: "α · 10⁻³", card=_cal_card, log="ece", title="ECE",
        ),
        # Brier 1950; as a loss against overconfidence: Mukhoti et al. 2020, arXiv 2002.09437.
        Term(
            "brier", _brier, "Brier", "the Brier score of the options' probabilities",
            title="Brier",
        ),
        # Mukhoti et al. 2020, arXiv 2002.09437: γ = 3, and the schedule FLSD-53.
        Term(
            "focal", _on_options(losses.focal), "focal (γ = 3)",
            "the focal loss (γ = 3) of the letters' probabilities", title="focal",
        ),
        Term(
            "flsd53", _on_options(losses.focal, gamma_low=5.0), "focal (FLSD-53)",
            "the focal loss (γ = 5 below a probability of 0.2, else 3) of the letters' "
            "probabilities", title="focal",
        ),
        # Parikh et al. 2026, arXiv 2601.23096; see ``losses.catto`` for what is ours.
        Term(
            "catto", _on_options(losses.catto), "CATTO",
            "CATTO's term, the absolute difference of confidence and smoothed correctness",
            title="CATTO",
        ),
        # Li et al. 2025, arXiv 2508.18847.
        Term(
            "tokenised_brier", _on_options(losses.tokenised_brier), "tokenised Brier",
            "ConfTuner's tokenised Brier score", needs=frozenset({LEVELS}), title="tokenised Brier",
        ),
        # Xie et al. 2026, arXiv 2603.06604, of which the abstract alone could be read: SFT with
        # self-distillation. That is taken as KL(p⁰ ‖ π), p⁰ the model's own letters.
        Term(
            "distil", _distil, "KL(own ‖ π)",
            "the Kullback-Leibler divergence from the model's own probabilities",
            needs=frozenset({OWN}), title="self-distillation",
        ),
        # The options against one another, where SFT1 learns to write the right one.
        Term(
            "nll", _nll, "NLL", "the NLL of the options' probabilities, renormalised", title="NLL",
        ),
    )
}  # fmt: skip  # a table: name, function and labels of a term together


# --- What follows from a config -------------------------------------------------------------------


def active(train: Train) -> list[Term]:
    """The terms that a run minimises, in the order of ``TERMS``."""
    return [term for term in TERMS.values() if term.weight(train)]


def further(train: Train) -> list[Term]:
    """Those among them that ``config.train.terms`` weighs."""
    return [term for term in active(train) if not term.field]


def needs(train: Train) -> frozenset[str]:
    """What the terms of a run need together."""
    return frozenset().union(*(term.needs for term in active(train)))


def reads_bins(train: Train) -> bool:
    """Whether any term of a run depends on the confidence bins."""
    return bool(needs(train) & {TARGETS, BINS})


def reads_e_step(train: Train) -> bool:
    """Whether any term of a run depends on what an E-step finds, bins or not."""
    return reads_bins(train) or OWN in needs(train)


def formula(train: Train) -> str:
    """What a run minimises, in signs."""
    text = " + ".join(term.formula(train) for term in active(train))
    return f"{text}, α = {train['alpha']:g}" if _is_released(train) else text


def titles() -> dict[str, str]:
    """What figures call the columns of the log that hold a loss: "loss" and every term."""
    found = {"loss": "loss"}
    for term in TERMS.values():
        found.setdefault(term.key, f"{term.title or term.name} term")
    return found


def parse_weights(text: str) -> dict[str, float]:
    """The weights of ``config.train.terms`` by the terms' names.

    Args:
      text: entries NAME=WEIGHT, separated by commas.

    Raises:
      UserError: an entry that is not understood, a name that is unknown, appears twice or is
        weighed by another field, or a weight that is negative or not finite.

    >>> parse_weights("brier=0.1")
    {'brier': 0.1}
    """
    where, found = "config.train.terms", {}
    known = [term.name for term in TERMS.values() if not term.field]
    for entry in split_list(text):
        name, _, value = (part.strip() for part in entry.partition("="))
        if name not in known:
            if name in TERMS:
                raise UserError(f"{where} names {name!r}, which {TERMS[name].field} weighs.")
            near = difflib.get_close_matches(name, known, 1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{where} names {name!r}; choose from: {', '.join(known)}.{guess}")
        if name in found:
            raise UserError(f"{where}: {name!r} appears twice.")
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise UserError(f"{where}: {entry!r} is not valid; write {name}=0.1, a weight >= 0.")
        found[name] = weight
    return found
