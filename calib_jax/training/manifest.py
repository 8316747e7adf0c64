"""Which files make up a checkpoint, and their checksums: what a damaged one is known by.

Orbax reads an array whose bytes have changed on the disk without a complaint.
"""

import concurrent.futures
import hashlib
import json
import os
from pathlib import Path

NAME = "manifest.json"
# Orbax writes the time of the commit into the one, and adds the other, after the manifest is made.
_METADATA, _COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
_THREADS = 8


def write(folder: Path) -> None:
    """Writes ``manifest.json``: size and sha256 of every file below ``folder``."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    names = [name for name in names if name not in (NAME, _COMMITTED)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        entries = pool.map(lambda name: _entry(folder, name), names)
        content = dict(zip(names, entries, strict=True))
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def fault(folder: Path) -> str | None:
    """What is wrong with the files below ``folder``, the first of it; None if nothing is."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        expected = {str(name): (int(size), str(sha)) for name, (size, sha) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{NAME} is missing or damaged"
    if not expected:
        return f"{NAME} is empty"
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda item: _check(folder, *item), expected.items())
        return next((text for text in found if text), None)


def _check(folder: Path, name: str, expected: tuple[int, str]) -> str | None:
    try:
        size = os.path.getsize(folder / name)
        if name != _METADATA and size != expected[0]:
            return f"{name} has {size:,} bytes of {expected[0]:,}"
        if _entry(folder, name) != expected:
            return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({error})"
    return None


def _entry(folder: Path, name: str) -> tuple[int, str]:
    """Size and sha256 of a file; of Orbax's metadata, without what it adds later."""
    if name == _METADATA:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content.pop("commit_timestamp_nsecs", None)
        return 0, hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    with (folder / name).open("rb") as file:
        return os.path.getsize(folder / name), hashlib.file_digest(file, "sha256").hexdigest()
