"""Text for files in UTF-8, and for consoles that are not: what they cannot hold stops no job.

Names of files are bytes: those that are no UTF-8 reach Python as lone surrogates, which no file in
UTF-8 can hold. JSON can hold them too, as halves of characters that were cut in two.
"""

import codecs
import os
import sys

from calib_jax.errors import UserError

# What we print most, as ASCII has it; the rest appears as its code.
_ASCII = {
    "→": "->", "·": "-", "−": "-", "–": "-", "↓": "v", "↑": "^", "±": "+-", "∞": "inf",
    "×": "x", "λ": "lambda", "ε": "epsilon", "β": "beta", "√": "sqrt", "…": "...", "≥": ">=",
}  # fmt: skip  # pairs, several on a line
_HANDLER = "calib_jax.ascii"


def encodable(text: str) -> str:
    """``text`` with its lone surrogates written as their code, as JSON writes them.

    >>> encodable("caf\\udce9"), encodable("café")
    ('caf\\\\udce9', 'café')
    """
    return text.encode("utf-8", "backslashreplace").decode()


def check_folder(path: str | os.PathLike, what: str) -> None:
    """Raises UserError for a folder in whose path are bytes that are no UTF-8.

    Libraries beneath us (of checkpoints and of tokenizers) open no such path.

    Args:
      path: the folder.
      what: what it is, for the message.
    """
    full = os.path.abspath(path)
    if encodable(full) != full:
        raise UserError(
            f"{what} {encodable(str(path))}: the whole path, {encodable(full)}, is no text in "
            "UTF-8. Rename the folder; or, where the locale is what is wrong (LC_ALL=C), set "
            "PYTHONUTF8=1."
        )


def prepare_console() -> None:
    """Lets standard output and error say in other characters what their encoding cannot hold."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what stands in their place in a notebook
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    shown = "".join(_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost)
    return shown, error.end
