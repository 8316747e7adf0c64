"""Which files `config.report.predictions` names, and which a folder holds."""

import dataclasses
import re
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads_folder

# Keys of summary.json that a column of the table must not take.
RESERVED = frozenset(
    "config method model fingerprint change data training posthoc wall_time_s peak_memory_gib "
    "peak_device_memory_gib versions".split()
)
_SOURCE = re.compile(r"(?:(?P<state>[^=:/]+)(?::(?P<split>[^=:/]+))?=)?(?P<path>.+)")


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of `config.report.predictions`; None where a name, or a folder, was not given."""

    path: Path
    state: str | None = None
    split: str | None = None
    folder: Path | None = None


def parse(text: str) -> list[Source]:
    """The entries of ``[STATE[:SPLIT]=]PATH[,...]``; a folder stands for its files (``_inside``).

    Raises:
      UserError: no entry, a name that summary.json needs itself, or a folder without files.
    """
    sources = []
    for entry in _entries(text):
        found = _SOURCE.fullmatch(entry)
        assert found is not None  # ``_entries`` gives what matches
        path = Path(found["path"]).expanduser()
        state, split = (n.strip() if n else None for n in found.group("state", "split"))
        source = Source(path, state, split)
        if source.state in RESERVED:
            raise UserError(
                f"config.report.predictions: {source.state!r} cannot name predictions, because "
                "summary.json has a field of that name; choose another"
            )
        sources += _inside(source) if path.is_dir() else [source]
    if not sources:
        raise UserError(
            "config.report.predictions names no file. Give one: "
            "--config.report.predictions=predictions.csv, or two of the same questions: "
            "--config.report.predictions=before=a.csv,after=b.csv"
        )
    return sources


def _entries(text: str) -> list[str]:
    r"""The parts between commas but ``\,``; those that only together name a file are one."""
    parts = re.split(r"(?<!\\),", text)
    entries = []
    while parts:
        joined = ((n, ",".join(parts[:n]).strip()) for n in range(len(parts), 1, -1))
        n, entry = next((found for found in joined if _exists(found[1])), (1, parts[0].strip()))
        del parts[:n]
        if entry:
            entries.append(entry.replace(r"\,", ","))
    return entries


def _exists(entry: str) -> bool:
    found = _SOURCE.fullmatch(entry)
    return found is not None and Path(found["path"]).expanduser().exists()


def _inside(source: Source) -> list[Source]:
    """A folder's files: .parquet, or lm-evaluation-harness's samples.

    The harness writes samples_*.jsonl into a folder for the model within the one given to its
    --output_path, and until 0.4.2 <model>_<task>.jsonl into that itself. Several models within are
    states, each with its folder's name.
    """
    folder = source.path
    for place in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        reads_folder(place, (".parquet", ".jsonl"))
    for pattern in ("*.parquet", "samples_*.jsonl", "*/samples_*.jsonl", "*.jsonl"):
        files = sorted(folder.glob(pattern))
        if not files:
            continue
        several = len({file.parent for file in files}) > 1
        if several and source.state:
            raise UserError(
                f"{folder}: holds the samples of several models, in "
                f"{', '.join(sorted({file.parent.name for file in files}))}; name one of them: "
                f"{source.state}={files[0].parent}"
            )
        return [
            dataclasses.replace(
                source,
                path=file,
                folder=folder,
                state=file.parent.name if several else source.state,
            )
            for file in files
        ]
    raise UserError(
        f"{folder}: the folder holds no .parquet and no samples_*.jsonl file, nor do the folders "
        "within it"
    )
