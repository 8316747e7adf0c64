"""Bytes of a model folder's files: ranges checked before they are read, names before they are used.

Files are read with ``pread``, never mapped: mapped pages count as memory of the process, and the
kernel's counters could not tell what was read.
"""

import json
import math
import os
import shlex
import stat
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from calib_jax.errors import UserError

_MAX_JSON = 32 << 20
# Below this, skipping bytes costs more than reading them (the kernel reads whole pages anyway).
_TINY_RUN = 4096
_SPAN_BUFFER = 8 << 20
_MAX_AXES = 32


class ByteFile:
    """A regular file opened for reading ranges; every method may be called from several threads.

    Attributes:
      path: the file.
      size: its bytes.
      bytes_read: bytes read so far.

    Raises:
      UserError: no such file, not a regular one, or it cannot be opened.
    """

    def __init__(self, path: Path):
        self._fd = -1
        self.path = Path(path)
        self._lock = threading.Lock()
        self.bytes_read = 0
        try:
            # Opening a pipe would wait for its writer.
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            state = os.fstat(self._fd)
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be opened ({error}).") from None
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"{self.path}: not a regular file.")
        self.size = state.st_size

    def __del__(self, close=os.close):  # bound early: at exit the module may be gone before us
        if self._fd >= 0:
            close(self._fd)

    def pread(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset``.

        Raises:
          UserError: the range leaves the file, or the disk cannot be read.
        """
        self.check_range(offset, count)
        buffer = bytearray(count)
        self._fill(memoryview(buffer), offset)
        return bytes(buffer)

    def check_range(self, offset: int, count: int) -> None:
        """Raises UserError where ``count`` bytes from ``offset`` are not all in the file."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise UserError(
                f"{self.path}: truncated; bytes {offset} to {offset + count} are asked for and "
                f"the file has {self.size}. Download it again."
            )

    def read_slice(
        self,
        offset: int,
        shape: Sequence[int],
        dtype: Any,
        index: tuple[slice, ...],
        order: str = "C",
    ) -> np.ndarray:
        """A slice of the array stored from byte ``offset``; only the slice's bytes are read.

        Where the runs of adjacent bytes are short, the gaps between them are read with them, which
        at most doubles the bytes.

        Args:
          offset: where the array begins.
          shape: of the whole array.
          dtype: of its elements, little-endian.
          index: one slice an axis, step 1.
          order: "C", or "F" where the first axis is the fastest.

        Raises:
          UserError: the array is not wholly in the file.
        """
        shape, dtype = tuple(shape), np.dtype(dtype)
        if order == "F":
            return self.read_slice(offset, shape[::-1], dtype, index[::-1]).T
        self.check_range(offset, array_bytes(shape, dtype, str(self.path)))
        starts, counts = slice_ranges(shape, index)
        out = np.empty(counts, dtype)
        if not out.size:
            return out

        # Axes after ``axis`` are taken whole, so one run covers ``axis`` and all after it.
        axis = len(shape) - 1
        while axis > 0 and counts[axis] == shape[axis]:
            axis -= 1
        strides = [dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
        first = offset + sum(s * stride for s, stride in zip(starts, strides, strict=True))
        if axis <= 0:
            self._fill(_as_bytes(out), first)
            return out
        run = counts[axis] * strides[axis]
        runs = _as_bytes(out)
        stride, number = strides[axis - 1], counts[axis - 1]
        # Groups of runs at one distance from each other: all of axis - 1, for each place of the
        # axes before it.
        for group, place in enumerate(np.ndindex(*counts[: axis - 1])):
            begin = first + sum(p * s for p, s in zip(place, strides, strict=False))
            into = runs[group * number * run : (group + 1) * number * run]
            if run < _TINY_RUN and 2 * run >= stride:
                self._fill_spans(into, begin, stride, run, number)
            else:
                for i in range(number):
                    self._fill(into[i * run : (i + 1) * run], begin + i * stride)
        return out

    def _fill_spans(self, into: memoryview, begin: int, stride: int, run: int, number: int) -> None:
        """Runs with the gaps between them, a bounded buffer at a time."""
        target = np.frombuffer(into, np.uint8).reshape(number, run)
        step = max(1, _SPAN_BUFFER // stride)
        buffer = np.empty((min(step, number), stride), np.uint8)
        for i in range(0, number, step):
            some = min(step, number - i)
            # The last run's gap may lie beyond the array, even beyond the file.
            self._fill(_as_bytes(buffer)[: (some - 1) * stride + run], begin + i * stride)
            target[i : i + some] = buffer[:some, :run]

    def _fill(self, into: memoryview, offset: int) -> None:
        done = 0
        while done < len(into):
            try:
                count = os.preadv(self._fd, [into[done : done + (1 << 30)]], offset + done)
            except OSError as error:
                raise UserError(f"{self.path}: cannot be read ({error}).") from None
            if not count:
                raise UserError(f"{self.path}: truncated while it was read. Download it again.")
            done += count
        with self._lock:
            self.bytes_read += done


def slice_ranges(
    shape: Sequence[int], index: tuple[slice, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and count on each axis of the slice that ``index`` names; steps other than 1 fail."""
    starts, counts = [], []
    for size, piece in zip(shape, index, strict=True):
        start, stop, step = piece.indices(size)
        if step != 1:
            raise ValueError(f"slices with step {step} are not read.")
        starts.append(start)
        counts.append(max(0, stop - start))
    return tuple(starts), tuple(counts)


def array_bytes(shape: Sequence[int], dtype: np.dtype, where: str) -> int:
    """Bytes of an array whose shape comes out of a file.

    Raises:
      UserError: an axis is no non-negative integer, or the array exceeds what numpy can address.
    """
    small = len(shape) <= _MAX_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not small or math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 1 << 62:
        raise UserError(f"{where}: no shape of an array: {_short(list(shape))}. Download it again.")
    return math.prod(shape) * dtype.itemsize


def safe_path(folder: Path, name: str) -> Path:
    """The file ``name`` in ``folder``, for a name that was found inside a file or a listing.

    Symbolic links may point within the folder or, in the hub's cache, to the blobs of the same
    repository. A folder of links into the hub's cache is read where all that leave it end in the
    repositories of one owner. The file need not exist.

    Raises:
      UserError: the name, or what it links to, leaves the folder.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    windows = PureWindowsPath(name if parts else "")
    if not parts or ".." in windows.parts or windows.anchor or "\0" in name:
        raise UserError(f"{folder}: the file name {_short(name)} does not stay in the folder.")
    path = folder.joinpath(*parts)
    try:
        root, target = folder.resolve(), path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder}: the file name {_short(name)} cannot be followed ({error})."
        ) from None
    allowed = [root]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        allowed.append(root.parent.parent / "blobs")
    inside = any(target.is_relative_to(place) for place in allowed)
    if not inside and (len(allowed) > 1 or _owner(target) not in _owners(root)):
        raise UserError(
            f"{path}: links out of its folder, to {target}. Copy the folder with what it links to, "
            f"and give the copy: cp -rL {shlex.quote(str(folder))} "
            f"{shlex.quote(str(folder).rstrip('/') + '-copied')}"
        )
    return path


def _owner(target: Path) -> Path | None:
    """The owner's part of the hub's cache that a file lies in, as <cache>/models--<owner>."""
    for place in target.parents:
        if place.name in ("blobs", "snapshots") and place.parent.name.startswith("models--"):
            return place.parent.with_name("--".join(place.parent.name.split("--")[:2]))
    return None


def _owners(folder: Path) -> set[Path]:
    """The one owner to whose files all links of a folder lead that leave it; none otherwise."""
    targets = [Path(os.path.realpath(path)) for path in folder.iterdir() if path.is_symlink()]
    owners = {_owner(target) for target in targets if not target.is_relative_to(folder)}
    return {owner for owner in owners if owner is not None} if len(owners) == 1 else set()


def read_json(path: Path) -> Any:
    """A JSON file of a model folder; UserError where it is missing, damaged or absurdly large."""
    file = ByteFile(path)
    if file.size > _MAX_JSON:
        raise UserError(f"{path}: {file.size} bytes are too many for JSON.")
    return parse_json(file.pread(0, file.size), str(path))


def parse_json(text: bytes, where: str) -> Any:
    """JSON from a model folder.

    Raises:
      UserError: not JSON, or a key appears twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise UserError(f"{where}: the key {_short(twice)} appears twice. Download it again.")
        return found

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: not valid JSON ({_short(str(error))}). Download it again."
        ) from None


def weight_files(
    folder: Path, single: str, pattern: str, ignored: tuple[str, ...] = ()
) -> list[Path]:
    """The files of one format that hold a model's weights; none where there are none.

    Args:
      folder: the model.
      single: name of the file when there is but one; ``<single>.index.json`` lists several.
      pattern: of the files that count where there is no index.
      ignored: beginnings of the names that do not.

    Raises:
      UserError: a damaged index, a name that leaves the folder, a missing file, or an index beside
        a single file that it does not name.
    """
    index = safe_path(folder, f"{single}.index.json")
    if not index.exists():
        there = sorted(path.name for path in folder.glob(pattern))
        return [safe_path(folder, name) for name in there if not name.startswith((".", *ignored))]
    found = read_json(index)
    found = found.get("weight_map") if isinstance(found, dict) else None
    names = found.values() if isinstance(found, dict) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{index}: not an index of weights. Download it again.")
    paths = [safe_path(folder, name) for name in sorted(set(names))]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: named by {index.name} but missing. Download it.")
    if (folder / single).exists() and folder / single not in paths:
        raise UserError(
            f"{folder / single}: not named by {index.name} beside it; the folder mixes two "
            "checkpoints. Keep one."
        )
    return paths


def _as_bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _short(value: Any) -> str:
    """A value out of an untrusted file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
