"""Settings of a part of a job alone, part:field=value: of a stage, or of a method compared."""

from collections.abc import Mapping

import ml_collections

from calib_jax.config import FIELDS, set_field
from calib_jax.errors import UserError
from calib_jax.grammar import suggestion


def apply(
    config: ml_collections.ConfigDict,
    own: Mapping[str, str],
    where: str,
    refused: Mapping[str, str],
) -> None:
    """Sets fields, such as "train.epochs", from text.

    Args:
      own: field -> text.
      where: what messages begin with.
      refused: section -> why its fields cannot be set here.

    Raises:
      UserError: a field does not exist or is refused, or the text states no value of it.
    """
    for field, text in own.items():
        if field not in FIELDS:
            raise UserError(f"{where}: there is no field {field!r}.{suggestion(field, FIELDS)}")
        if why := refused.get(field.split(".")[0]):
            raise UserError(f"{where}: {field} {why}.")
        try:
            set_field(config, field, FIELDS[field].parse(text))
        except ValueError:
            raise UserError(
                f"{where}: {field}={text} is not valid; expected {FIELDS[field].kind}."
            ) from None
