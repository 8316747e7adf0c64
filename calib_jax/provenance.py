"""What a run is made from: every file and data set that it reads, by content.

Readers say what they read (``reads``, ``reads_folder``, ``reads_value``), and whoever is
``listening`` hears it: a run's ``Inputs``, which are kept in its ``inputs.json`` and compared
before its result is printed or continued. Where nobody listens (a notebook, the harness), nothing
is hashed.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from calib_jax.errors import UserError

FORMAT = 2
_PACKAGE = Path(__file__).parent
# Files from this size on are hashed beside what else is done with them.
_LARGE = 16 << 20


class Listener(Protocol):
    """Hears what is read."""

    def hear(self, key: str, read: "Read") -> None: ...


@dataclasses.dataclass(frozen=True)
class Read:
    """Something that was read: a file, the names in a folder, or a value.

    Attributes:
      path: of the file or the folder; None for a value.
      suffixes: what names count, of a folder (see ``counts``); None for a file.
      value: a digest; None for a file or a folder.
    """

    path: Path | None = None
    suffixes: tuple[str, ...] | None = None
    value: str | None = None


_listeners: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it ``listener`` hears what is read, beside those that listen already."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def reads(path: str | os.PathLike, key: str | None = None) -> None:
    """Says that a file is read.

    Args:
      path: the file.
      key: what it is called where its path does not tell it from another, such as a file of a
        repository's branch; None for its absolute path.
    """
    path = Path(path).expanduser().absolute()
    _say(key or str(path), Read(path))


def reads_folder(
    folder: str | os.PathLike, suffixes: Iterable[str], key: str | None = None
) -> None:
    """Says that what lies in a folder decides what is read: its names that ``counts`` picks."""
    path = Path(folder).expanduser().absolute()
    _say(key or f"{path}{os.sep}", Read(path, tuple(suffixes)))


def reads_value(key: str, digest: Callable[[], str]) -> None:
    """Says that something is read that is no file of this machine's, such as a hub's data set.

    Args:
      digest: makes a hash of the content; not called where nobody listens.
    """
    if _listeners:
        _say(key, Read(value=digest()))


def counts(name: str, suffixes: Iterable[str]) -> bool:
    """Whether a file is one of those: of a suffix (".jsonl"; "" for any), or of a whole name.

    >>> counts("a.jsonl", (".jsonl",)), counts("generation_config.json", ("config.json",))
    (True, False)
    """
    return any(name.endswith(s) if s[:1] in ("", ".") else name == s for s in suffixes)


def _say(key: str, read: Read) -> None:
    for listener in list(_listeners):
        listener.hear(key, read)


class Heard:
    """Keeps what it hears, to say it again for one who reuses what was read."""

    def __init__(self) -> None:
        self._reads: dict[str, Read] = {}

    def hear(self, key: str, read: Read) -> None:
        self._reads[key] = read

    def repeat(self) -> None:
        for key, read in self._reads.items():
            _say(key, read)


@functools.cache
def code_version() -> str:
    """This package's version and a hash of its sources, as "0.1.0+1a2b3c4d"."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in (".py", ".toml", ".css", ".js") and "__pycache__" not in path.parts:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    try:
        version = importlib.metadata.version("calib_jax")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"{version}+{digest.hexdigest()[:8]}"


class Inputs:
    """What a run has read, by content, and whether it is still so.

    A file is taken as unchanged when its size and its times are as recorded, and hashed only where
    they differ, so that gigabytes of weights are read once.

    Args:
      path: of ``inputs.json``; read where it is there.

    Attributes:
      code: the code version of the record; None where there is no record of this format.
    """

    def __init__(self, path: Path):
        self.path = path
        self._folder = path.parent.absolute()
        self.code: str | None = None
        self._entries: dict[str, dict[str, Any]] = {}
        self._dirty = False
        if path.exists():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                content = None
            if isinstance(content, dict) and content.get("format") == FORMAT:
                self.code = content["code"]
                self._entries = content["inputs"]

    @property
    def recorded(self) -> bool:
        """Whether there is a record of this format."""
        return self.code is not None

    def add_code(self, version: str) -> None:
        """Notes that code of this version continues the run."""
        if self.code and version not in self.code.split(", "):
            self.code += f", {version}"
            self._dirty = True

    def hear(self, key: str, read: Read) -> None:
        """Takes a reading down.

        Raises:
          UserError: the record has it with another content.
        """
        if read.path is not None and read.path.is_relative_to(self._folder):
            return  # of the run's own making
        known = self._entries.get(key)
        if known is None:
            with contextlib.suppress(OSError):  # the reader says what is wrong with it
                self._entries[key] = _entry(read)
                self._dirty = True
            return
        if read.path is not None and str(read.path) != known.get("path"):
            # The same key elsewhere: a branch of a repository that points to another commit.
            what = f"{key}: other content" * (_content(known) != _content(_entry(read)))
        elif read.value is not None:
            what = f"{key}: other content" * (read.value != known.get("sha256"))
        else:
            what = self._difference(key)
        if what:
            raise UserError(self.refusal([what]))

    def refusal(self, changed: Iterable[str]) -> str:
        """What the user is told where inputs changed."""
        lines = "".join(f"\n  {what}" for what in changed)
        return (
            f"{self.path.parent} was made from inputs that have changed since:{lines}\nRestore "
            "them as they were, choose another --workdir, or delete this one to start anew."
        )

    def compare(self) -> tuple[list[str], list[str]]:
        """What is not as recorded: what changed, in words, and the files that are gone."""
        changed, gone = [], []
        for key, entry in self._entries.items():
            if "path" in entry and not os.path.exists(entry["path"]):
                gone.append(key)
            elif what := self._difference(key):
                changed.append(what)
        return changed, gone

    def save(self, write: Callable[[Path, str], None]) -> None:
        """Writes ``inputs.json`` where there is something new; waits for hashes in the making.

        Args:
          write: (path, text) -> None; atomically.
        """
        if not self._dirty and self.recorded:
            return
        self.code = self.code or code_version()
        for entry in self._entries.values():
            _content(entry)
        content = {"format": FORMAT, "code": self.code, "inputs": self._entries}
        write(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        self._dirty = False

    def _difference(self, key: str) -> str | None:
        """How an entry that is there differs from the record, in words; None for not at all."""
        entry = self._entries[key]
        if "path" not in entry:
            return None
        path = Path(entry["path"])
        if "names" in entry:
            names = _names(path, entry["suffixes"])
            added = [n for n in names if n not in entry["names"]]
            removed = [n for n in entry["names"] if n not in names]
            parts = [f"{', '.join(added)} added"] * bool(added)
            parts += [f"{', '.join(removed)} removed"] * bool(removed)
            return f"{key}: {'; '.join(parts)}" if parts else None
        try:
            state = _state(path)
        except OSError as error:
            return f"{key}: cannot be read ({error.strerror})"
        if _stamp(state) == _stamp(entry):
            return None
        same = state["size"] == entry["size"]
        if not same or _hash(str(path), *_stamp(state)).result() != _content(entry):
            return f"{key}: other content"
        entry.update(state)  # touched, or copied back: not to be hashed again
        self._dirty = True
        return None


def _entry(read: Read) -> dict[str, Any]:
    """A reading as ``inputs.json`` holds it; a file's "sha256" is a future for now."""
    if read.path is None:
        return {"sha256": read.value}
    if read.suffixes is not None:
        names = _names(read.path, read.suffixes)
        return {"path": str(read.path), "suffixes": list(read.suffixes), "names": names}
    state = _state(read.path)
    return {"path": str(read.path), **state, "sha256": _hash(str(read.path), *_stamp(state))}


def _content(entry: dict[str, Any]) -> Any:
    """What two entries of the same content have in common; waits for a hash in the making."""
    if "names" in entry:
        return entry["names"]
    if isinstance(entry["sha256"], concurrent.futures.Future):
        entry["sha256"] = entry["sha256"].result()
    return entry["sha256"]


def _names(folder: Path, suffixes: Iterable[str]) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(n for n in names if counts(n, suffixes) and not n.startswith("."))


def _state(path: Path) -> dict[str, int]:
    found = os.stat(path)
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}


def _stamp(state: Mapping[str, Any]) -> tuple[int, int, int]:
    return state["size"], state["mtime_ns"], state["ctime_ns"]


@functools.lru_cache(maxsize=4096)
def _hash(path: str, size: int, mtime_ns: int, ctime_ns: int) -> concurrent.futures.Future:
    """sha256 of a file as it was at that size and those times: made once in a process."""

    def sha256() -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    if size >= _LARGE:
        return _pool().submit(sha256)
    done: concurrent.futures.Future = concurrent.futures.Future()
    done.set_result(sha256())
    return done


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="hash")
