"""Reads the rotary settings of a Hugging Face ``config.json``, in either of their spellings."""

from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.models.attributes import mapping, positive_float, positive_int
from calib_jax.models.config import Llama3Rope, Rope
from calib_jax.models.families import Family

FULL, SLIDING = "full_attention", "sliding_attention"

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


def parse_ropes(
    raw: Mapping[str, Any], family: Family, head_dim: int, where: str, internal: bool
) -> tuple[Rope, Rope | None]:
    """The rotary settings from either spelling, and those of the sliding layers (Gemma-3).

    Args:
      raw, where, internal: see ``hf_config.parse_config``.
      family: of the model.
      head_dim: C.

    Raises:
      UserError: settings that contradict each other, or that are not computed here.
    """
    new, old = (
        mapping(raw.get(key) or {}, key, where) for key in ("rope_parameters", "rope_scaling")
    )
    local = None
    if family.local_theta:
        if stray := set(new) - {FULL, SLIDING}:
            raise UserError(
                f"{where}: 'rope_parameters' has {sorted(stray)[0]!r}; expected the settings of "
                f"{FULL!r} and of {SLIDING!r} apart."
            )
        if "type" in old:  # transformers 5 reads only the one, transformers 4 both
            raise UserError(f"{where}: in 'rope_scaling', spell 'type' as 'rope_type'.")
        nested = {
            key: mapping(new.get(key) or {}, f"rope_parameters.{key}", where)
            for key in (FULL, SLIDING)
        }
        local = _parse_rope(
            nested[SLIDING], (family.local_theta,), None, raw, head_dim, where, internal
        )
        new = nested[FULL]
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
      raw, head_dim, where, internal: see ``hf_config.parse_config``.
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
    theta = positive_float(theta, "rope_theta", where)
    part = "partial_rotary_factor"
    share = shared(part, (fraction[0], part), fraction[1]) if fraction else shared(part, (part,), 1)
    share = positive_float(1.0 if share is None else share, part, where)
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
        factors = tuple(positive_float(factor, "factors", where) for factor in rope["factors"])
        if len(factors) != turning // 2:
            raise UserError(f"{where}: {len(factors)} rotary factors for {turning} channels.")
        return Rope(theta, share, factors=factors)
    numbers = {
        key: positive_float(value, key, where) for key, value in rope.items() if key != length
    }
    if kind != "llama3":
        return Rope(theta, share, linear_factor=numbers.get("factor", 1.0))
    if numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        raise UserError(
            f"{where}: rotary attribute 'high_freq_factor' is {numbers['high_freq_factor']}; "
            f"expected more than 'low_freq_factor', {numbers['low_freq_factor']}."
        )
    original = positive_int(rope[length], length, where)
    return Rope(theta, share, llama3=Llama3Rope(**numbers, original_max_length=original))
