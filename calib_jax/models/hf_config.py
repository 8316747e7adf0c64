"""Reads a decoder's dimensions strictly from a Hugging Face ``config.json``.

Wrong-but-fluent logits are the failure that ruins a calibration figure, so every attribute of a
``config.json`` is either handled, known not to change the computation, or refused by name. What is
computed is what transformers computes for the same file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope, ModelConfig, Rope
from calib_jax.models.families import COMMON, FAMILIES, HARMLESS, ONLY, QUANTIZED, Family
from calib_jax.models.formats.files import read_json, safe_path

_FULL, _SLIDING = "full_attention", "sliding_attention"

# Further keys of the rotary settings by their type. "factors" is how the GGUF reader spells a
# file's table of divisors; no config.json has it.
_ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
    "factors": {"factors"},
}


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
        return _positive_int(get(key), key, where, most)

    def switch(key: str) -> bool:
        return _boolean(raw.get(key, family.attributes.get(key, False)), key, where)

    def optional(key: str) -> float | None:
        value = raw.get(key, family.attributes.get(key))
        return None if value is None else _positive_float(value, key, where)

    def derived(key: str, otherwise: int) -> int:
        value = raw.get(key, family.attributes.get(key))
        return otherwise if value is None else _positive_int(value, key, where)

    hidden, num_heads = integer("hidden_size"), integer("num_attention_heads")
    num_layers = integer("num_hidden_layers", most=10_000)
    head_dim = derived("head_dim", max(1, hidden // num_heads))
    rope, local_rope = _parse_ropes(raw, family, head_dim, where, internal)
    window, slides = _parse_windows(raw, family, num_layers, where)
    traits = dict(family.traits)
    biased = [names for key, names in family.biases.items() if switch(key)]
    traits["biases"] = tuple(traits.get("biases", ())) + tuple(n for names in biased for n in names)
    if "query_pre_attn_scalar" in family.attributes:
        scalar = _positive_float(get("query_pre_attn_scalar"), "query_pre_attn_scalar", where)
        traits["attention_scale"] = scalar**-0.5
    if "use_parallel_residual" in family.attributes:
        traits["block"] = "parallel" if switch("use_parallel_residual") else "pre"
    epsilon = family.epsilon
    if isinstance(epsilon, str):
        epsilon = _positive_float(get(epsilon), epsilon, where)
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
        return _positive_int(value, key, where, least=least)

    window = raw.get("sliding_window", family.attributes.get("sliding_window"))
    if window is not None:
        _positive_int(window, "sliding_window", where)
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
            window = window if _boolean(used, "use_sliding_window", where) else None
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
        known = {_FULL: False, _SLIDING: True}
        if not isinstance(types, list) or not all(isinstance(t, str) and t in known for t in types):
            raise UserError(
                f"{where}: attribute 'layer_types' must list {_FULL!r} and {_SLIDING!r}."
            )
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


def _parse_ropes(
    raw: Mapping[str, Any], family: Family, head_dim: int, where: str, internal: bool
) -> tuple[Rope, Rope | None]:
    """The rotary settings from either spelling, and those of the sliding layers (Gemma-3)."""
    new, old = (
        _mapping(raw.get(key) or {}, key, where) for key in ("rope_parameters", "rope_scaling")
    )
    local = None
    if family.local_theta:
        if stray := set(new) - {_FULL, _SLIDING}:
            raise UserError(
                f"{where}: 'rope_parameters' has {sorted(stray)[0]!r}; expected the settings of "
                f"{_FULL!r} and of {_SLIDING!r} apart."
            )
        if "type" in old:  # transformers 5 reads only the one, transformers 4 both
            raise UserError(f"{where}: in 'rope_scaling', spell 'type' as 'rope_type'.")
        nested = {
            key: _mapping(new.get(key) or {}, f"rope_parameters.{key}", where)
            for key in (_FULL, _SLIDING)
        }
        local = _parse_rope(
            nested[_SLIDING], (family.local_theta,), None, raw, head_dim, where, internal
        )
        new = nested[_FULL]
    if old and new and old != {k: v for k, v in new.items() if k in old or k != "rope_theta"}:
        raise UserError(
            f"{where}: 'rope_parameters' and 'rope_scaling' are both given and differ; remove the "
            "wrong one."
        )
    thetas = (family.theta, ("rope_theta", family.theta[1]))
    return _parse_rope(new or old, thetas, family.fraction, raw, head_dim, where, internal), local


def _parse_rope(
    rope: Mapping[str, Any],
    thetas: tuple[tuple[str, float], ...],
    fraction: tuple[str, float] | None,
    raw: Mapping[str, Any],
    head_dim: int,
    where: str,
    internal: bool,
) -> Rope:
    """One set of rotary settings.

    Args:
      rope: the settings proper, ``rope_parameters`` or ``rope_scaling``.
      thetas: names at the top of the file that may hold the base; the first one counts, with its
        default, and the others must agree.
      fraction: the same for the share of a head's channels that turn; None where all do.
      raw, head_dim, where, internal: see ``parse_config``.
    """
    rope = dict(rope)

    def shared(key: str, names: tuple[str, ...], default: float) -> Any:
        """A setting that may also stand at the top, under names that must then agree."""
        value = rope.pop(key, raw.get(names[0], default))
        for name in names:
            if raw.get(name, value) != value:
                raise UserError(
                    f"{where}: {name} is {raw[name]} at the top, and {key} is {value}; remove the "
                    "wrong one."
                )
        return value

    theta = shared("rope_theta", tuple(name for name, _ in thetas), thetas[0][1])
    theta = _positive_float(theta, "rope_theta", where)
    part = "partial_rotary_factor"
    share = shared(part, (fraction[0], part), fraction[1]) if fraction else shared(part, (part,), 1)
    share = _positive_float(1.0 if share is None else share, part, where)
    turning = int(head_dim * share)
    if share > 1 or turning % 2 or not turning or (share != 1 and not fraction):
        raise UserError(
            f"{where}: attribute {part!r} is {share} and 'head_dim' {head_dim}; computed is an "
            "even number of channels" + ("." if fraction else ", all of them in this family.")
        )
    kind = rope.pop("rope_type", rope.get("type", "default"))
    if rope.pop("type", kind) != kind:  # the oldest files say "type"
        raise UserError(f"{where}: the rotary settings' 'type' and 'rope_type' differ.")
    if not isinstance(kind, str) or kind not in _ROPE_KEYS or (kind == "factors" and not internal):
        raise UserError(
            f"{where}: rope type {kind!r} is not handled (default, linear and llama3 are)."
        )
    length = "original_max_position_embeddings"
    if kind == "llama3":  # as transformers does where it is not there
        rope.setdefault(length, raw.get("max_position_embeddings"))
    if unknown := set(rope) - _ROPE_KEYS[kind]:
        raise UserError(f"{where}: rotary attribute {min(unknown)!r} is not handled.")
    if missing := _ROPE_KEYS[kind] - set(rope):
        raise UserError(f"{where}: rotary attribute {min(missing)!r} is missing.")
    if kind == "factors":
        factors = tuple(_positive_float(factor, "factors", where) for factor in rope["factors"])
        if len(factors) != turning // 2:
            raise UserError(f"{where}: {len(factors)} rotary factors for {turning} channels.")
        return Rope(theta, share, factors=factors)
    numbers = {
        key: _positive_float(value, key, where) for key, value in rope.items() if key != length
    }
    if kind != "llama3":
        return Rope(theta, share, linear_factor=numbers.get("factor", 1.0))
    if numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        raise UserError(
            f"{where}: rotary attribute 'high_freq_factor' is {numbers['high_freq_factor']}; "
            f"expected more than 'low_freq_factor', {numbers['low_freq_factor']}."
        )
    original = _positive_int(rope[length], length, where)
    return Rope(theta, share, llama3=Llama3Rope(**numbers, original_max_length=original))


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


def _mapping(value: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected an object.")
    return dict(value)


def _positive_int(value: Any, key: str, where: str, most: int = 2**31 - 1, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            f"{where}: attribute {key!r} is {value!r}; expected an integer from {least} to {most}."
        )
    return value


def _positive_float(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected a positive number.")
    return float(value)


def _boolean(value: Any, key: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected true or false.")
    return value
