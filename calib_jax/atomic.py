"""Files that are there whole or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in `path`'s folder; renames it to `path` when the block succeeds.

    The folder is created when it is missing. When the block raises, the temporary file is removed
    and whatever stood at `path` before stays as it was.

    Args:
      path: where the finished file shall be.

    Yields:
      An existing, empty file with `path`'s suffix, to be written by the caller.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the mode that an ordinary open() would have.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        # The data must be on the disk before the name is, or a power cut leaves an empty file.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A full disk is met by name-less writes; whoever reads of it must know where.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically; what UTF-8 cannot hold appears as its code.

    In JSON that is its own way to write it, so that a name comes back as it was.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
