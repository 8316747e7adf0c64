"""Reads a decoder's dimensions strictly from a Hugging Face ``config.json``.

Wrong-but-fluent logits are the failure that ruins a calibration figure, so every attribute of a
``config.json`` is either handled, known not to change the computation, or refused by name. What is
computed is what transformers computes for the same file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.models.attributes import boolean, positive_float, positive_int
from calib_jax.models.config import ModelConfig
from calib_jax.models.families import COMMON, FAMILIES, HARMLESS, ONLY, QUANTIZED, Family
from calib_jax.models.formats.files import read_json, safe_path
from calib_jax.models.hf_rope import FULL, SLIDING, parse_ropes


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``folder/config.json``; raises UserError when it is missing or not a JSON object."""
    path = safe_path(folder, "config.json")
    if not path.exists():
        raise UserError(
            f"{path}: no such file. A Hugging Face model folder holds config.json, "
            "*.safetensors and the tokenizer's files."
        )
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(raw).__name__}.")
    return raw


def parse_config(raw: Mapping[str, Any], where: str, *, internal: bool = False) -> ModelConfig:
    """Turns the contents of a ``config.json`` into a ModelConfig.

    Both spellings of the rotary settings are read: ``rope_theta`` with ``rope_scaling``
    (transformers 4) and ``rope_parameters`` (transformers 5). Absent attributes take
    transformers' defaults, except for the dimensions, which must be there.

    Args:
      raw: the parsed JSON object.
      where: the file's name, for messages.
      internal: whether a reader of ours made ``raw``, which may then have the rope type "factors".

    Raises:
      UserError: an unknown architecture, a missing attribute, or an attribute that changes the
        computation in a way that this decoder does not compute.
    """
    family = _find_family(raw, where)
    _check_attributes(raw, family, where)

    def get(key: str) -> Any:
        value = raw.get(key, family.attributes.get(key))
        if value is None:
            raise UserError(f"{where}: attribute {key!r} is missing.")
        return value

    def integer(key: str, most: int = 2**31 - 1) -> int:
        return positive_int(get(key), key, where, most)

    def switch(key: str) -> bool:
        return boolean(raw.get(key, family.attributes.get(key, False)), key, where)

    def optional(key: str) -> float | None:
        value = raw.get(key, family.attributes.get(key))
        return None if value is None else positive_float(value, key, where)

    def derived(key: str, otherwise: int) -> int:
        value = raw.get(key, family.attributes.get(key))
        return otherwise if value is None else positive_int(value, key, where)

    hidden, num_heads = integer("hidden_size"), integer("num_attention_heads")
    num_layers = integer("num_hidden_layers", most=10_000)
    head_dim = derived("head_dim", max(1, hidden // num_heads))
    rope, local_rope = parse_ropes(raw, family, head_dim, where, internal)
    window, slides = _parse_windows(raw, family, num_layers, where)
    traits = dict(family.traits)
    biased = [names for key, names in family.biases.items() if switch(key)]
    traits["biases"] = tuple(traits.get("biases", ())) + tuple(n for names in biased for n in names)
    if "query_pre_attn_scalar" in family.attributes:
        scalar = positive_float(get("query_pre_attn_scalar"), "query_pre_attn_scalar", where)
        traits["attention_scale"] = scalar**-0.5
    if "use_parallel_residual" in family.attributes:
        traits["block"] = "parallel" if switch("use_parallel_residual") else "pre"
    epsilon = family.epsilon
    if isinstance(epsilon, str):
        epsilon = positive_float(get(epsilon), epsilon, where)
    activation = get(family.activation)
    if not isinstance(activation, str) or activation not in family.activations:
        raise UserError(
            f"{where}: attribute {family.activation!r} is {activation!r}; computed are "
            f"{', '.join(sorted(family.activations))}."
        )
    config = ModelConfig(
        family=raw["model_type"],
        vocab_size=integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=integer("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=derived("num_key_value_heads", num_heads),
        head_dim=head_dim,
        max_length=integer("max_position_embeddings"),
        norm_eps=epsilon,
        rope=rope,
        local_rope=local_rope if local_rope != rope else None,
        tie_embeddings=switch("tie_word_embeddings"),
        sliding_window=window,
        sliding_layers=slides,
        activation=family.activations[activation],
        clip_qkv=optional("clip_qkv"),
        attention_softcap=optional("attn_logit_softcapping"),
        logit_softcap=optional("final_logit_softcapping"),
        **traits,
    )
    _check_heads(config, where)
    return config


def _find_family(raw: Mapping[str, Any], where: str) -> Family:
    """The family of a config; raises UserError for one, or for a head, that is not supported."""
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        named = raw.get("architectures") or model_type
        named = named[0] if isinstance(named, list) else named
        remedy = f"Supported model types: {', '.join(sorted(FAMILIES))}."
        if model_type == "gemma3":
            remedy = (
                "It reads images too; use a checkpoint of the language part alone, model_type "
                "'gemma3_text' (Gemma-3 270m and 1b are such)."
            )
        raise UserError(
            f"{where}: architecture {named!r} (model_type {model_type!r}) is not supported. "
            f"{remedy}"
        )
    family = FAMILIES[model_type]
    architectures = raw.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise UserError(
            f"{where}: 'architectures' is {architectures}, but a {model_type} language model is "
            f"{family.architecture!r}; other heads (classification, reward) have no option letters."
        )
    return family


def _check_attributes(raw: Mapping[str, Any], family: Family, where: str) -> None:
    """Raises UserError for the first attribute that this family does not handle."""
    spellings = (family.theta, family.fraction, family.local_theta)
    handled = COMMON.union(HARMLESS, family.attributes, family.checked)
    handled |= {spelling[0] for spelling in spellings if spelling}
    elsewhere = {key for other in FAMILIES.values() for key in other.attributes}
    only = {**ONLY, **family.only}
    for key, value in raw.items():
        if key in only:
            if not any(type(value) is type(one) and value == one for one in only[key]):
                if key == "quantization_config":
                    method = value.get("quant_method") if isinstance(value, Mapping) else None
                    kind = f" ({method})" if isinstance(method, str) else ""
                    raise UserError(f"{where}: attribute {key!r}{kind}: {QUANTIZED}")
                raise UserError(
                    f"{where}: attribute {key!r} is {value!r}, and only {only[key][-1]!r} is "
                    "computed here; the logits would be wrong."
                )
        elif key not in handled and not (key in elsewhere and (value is None or value is False)):
            raise UserError(
                f"{where}: attribute {key!r} = {value!r} is not handled for a "
                f"{raw['model_type']!r} model. If it does not change the computation, remove it "
                "from config.json; otherwise this model cannot be computed faithfully."
            )


def _parse_windows(
    raw: Mapping[str, Any], family: Family, num_layers: int, where: str
) -> tuple[int | None, tuple[bool, ...]]:
    """The window and which layers slide; (None, ()) where none does."""

    def integer(key: str, least: int = 1) -> int:
        value = raw.get(key, family.attributes.get(key))
        return positive_int(value, key, where, least=least)

    window = raw.get("sliding_window", family.attributes.get("sliding_window"))
    if window is not None:
        positive_int(window, "sliding_window", where)
    if raw.get("sliding_window_size", window) != window:
        raise UserError(f"{where}: 'sliding_window_size' and 'sliding_window' differ.")
    layers = range(num_layers)
    match family.windows:
        case "none":
            window, slides = None, (False,) * num_layers
        case "every":
            slides = (window is not None,) * num_layers
        case "upper":
            used = raw.get("use_sliding_window", False)
            window = window if boolean(used, "use_sliding_window", where) else None
            first = integer("max_window_layers", least=0)
            slides = tuple(window is not None and i >= first for i in layers)
        case "alternate":
            slides = tuple(i % 2 == 0 for i in layers)
        case "pattern":
            period = integer("sliding_window_pattern")
            slides = tuple((i + 1) % period != 0 for i in layers)
            # transformers writes the pattern back under a name that it does not read.
            written = raw.get("_sliding_window_pattern", period)
            if raw.get("layer_types") is None and written != period:
                raise UserError(
                    f"{where}: '_sliding_window_pattern' is {written!r}, and transformers would "
                    f"take {period}; give 'layer_types'."
                )
    types = raw.get("layer_types")
    if types is not None:
        known = {FULL: False, SLIDING: True}
        if not isinstance(types, list) or not all(isinstance(t, str) and t in known for t in types):
            raise UserError(f"{where}: attribute 'layer_types' must list {FULL!r} and {SLIDING!r}.")
        if len(types) != num_layers:
            raise UserError(
                f"{where}: attribute 'layer_types' has {len(types)} entries for {num_layers} "
                "layers (num_hidden_layers)."
            )
        given = tuple(known[t] for t in types)
        if given != slides and not family.layer_types:
            raise UserError(
                f"{where}: attribute 'layer_types' is not handled for a {raw['model_type']!r} "
                "model, and differs from what its other attributes say."
            )
        slides = given
    if not any(slides):
        return None, ()
    if window is None:
        raise UserError(f"{where}: some layers slide, but 'sliding_window' gives no window.")
    return window, slides


def _check_heads(config: ModelConfig, where: str) -> None:
    """Raises UserError for numbers of heads that do not fit each other."""
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{where}: num_attention_heads {config.num_heads} is not a multiple of "
            f"num_key_value_heads {config.num_kv_heads}."
        )
    if config.fused_qkv and (
        config.num_kv_heads != config.num_heads
        or config.head_dim * config.num_heads != config.hidden_size
    ):
        raise UserError(
            f"{where}: a {config.family!r} model has hidden_size / num_attention_heads channels "
            "a head and as many key heads; 'head_dim' or 'num_key_value_heads' says otherwise."
        )
