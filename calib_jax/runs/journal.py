"""What a run has scored or written so far, on disk at once: a killed run continues from there."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib_jax.confidence.engine import TokenScores
from calib_jax.questions.pairs import Pair

_DTYPES = (np.dtype("<f4"), np.dtype("<f4"), np.dtype("<i4"))


def fingerprint(keys: Sequence[str], groups: Iterable[Sequence[Pair]]) -> str:
    """sha256 over everything that is scored: keys, tokens and where the targets begin."""
    digest = hashlib.sha256()
    for key, group in zip(keys, groups, strict=True):
        digest.update(json.dumps([key, len(group)]).encode())
        for pair in group:
            digest.update(f"{len(pair.tokens)},{pair.num_targets};".encode())
            digest.update(np.asarray(pair.tokens, "<i4").tobytes())
    return digest.hexdigest()


class Journal:
    """An append-only file: a header that says what is done, then a line per item that is.

    By default items are scored groups: a line holds the group's key and its float32 and int32
    arrays as base64, so that they come back bit for bit; hidden states once for all pairs that
    share one. Lines are handed to the system one by
    one: a kill loses at most the one that is being written. Reading stops at the first line that
    is not whole; what follows is cut off.

    Args:
      path: the file; made with its folder where there is none.
      header: what the items depend on. A file with another header is started anew.
      encode: (key, item) -> a line, with its line feed.
      decode: a line -> (key, item); None for anything but what ``encode`` wrote.

    Attributes:
      done: key -> item (the scores of a group's pairs), as far as the file had them.
      replaced: whether there was a file with another header.
      cut: bytes at its end that were not whole lines.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        encode: Callable[[str, Any], bytes] | None = None,
        decode: Callable[[bytes], tuple[str, Any] | None] | None = None,
    ):
        self.path = path
        self._encode, self._decode = encode or _encode, decode or _decode
        self.done: dict[str, Any] = {}
        self.replaced, self.cut = False, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        first = json.dumps(dict(header), sort_keys=True).encode() + b"\n"
        content = path.read_bytes() if path.exists() else b""
        end = self._read(content, first)
        self._file = path.open("r+b" if end else "wb")
        if end:
            self.cut = len(content) - end
            self._file.truncate(end)
            self._file.seek(end)
        else:
            # A header that was being written when the run was killed is none.
            self.replaced = b"\n" in content
            self._put(first)

    def _read(self, content: bytes, header: bytes) -> int:
        """Fills ``done``; returns where the last whole line ends, 0 for another header."""
        if not content.startswith(header):
            return 0
        end = len(header)
        for line in content[end:].splitlines(keepends=True):
            entry = self._decode(line)
            if entry is None:
                break
            self.done[entry[0]] = entry[1]
            end += len(line)
        return end

    def _put(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()

    def write(self, key: str, item: Any) -> None:
        """Adds an item."""
        self._put(self._encode(key, item))

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Deletes the file: its scores stand in another by now."""
        self.close()
        self.path.unlink()


def _encode(key: str, scores: Sequence[TokenScores]) -> bytes:
    arrays = [(s.log_probs, s.top_log_probs, s.top_tokens) for s in scores]
    data = b"".join(
        np.asarray(array, dtype).tobytes()
        for three in arrays
        for array, dtype in zip(three, _DTYPES, strict=True)
    )
    entry = {
        "key": key,
        "targets": [len(s.log_probs) for s in scores],
        "data": base64.b64encode(data).decode(),
    }
    states = {id(s.state): s.state for s in scores if s.state is not None}
    if states:
        order = list(states)
        entry["state_of"] = [-1 if s.state is None else order.index(id(s.state)) for s in scores]
        data = b"".join(np.asarray(state, "<f4").tobytes() for state in states.values())
        entry["states"] = [len(states), base64.b64encode(data).decode()]
    return json.dumps(entry).encode() + b"\n"


def _decode(line: bytes) -> tuple[str, list[TokenScores]] | None:
    """What `_encode` wrote; None for anything else."""
    try:
        entry: Any = json.loads(line) if line.endswith(b"\n") else None
        key, targets = entry["key"], entry["targets"]
        data = base64.b64decode(entry["data"], validate=True)
        if 12 * sum(targets) != len(data):
            return None
        states: list[Any] = [None]  # what -1 stands for
        state_of = entry.get("state_of", [-1] * len(targets))
        if "states" in entry:
            S, text = entry["states"]
            found = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
            states = [*found.reshape(S, -1).astype(np.float32), None]
        start, scores = 0, []
        for T, of in zip(targets, state_of, strict=True):
            three: list[np.ndarray] = []
            for dtype in _DTYPES:
                three.append(np.frombuffer(data, dtype, T, start).astype(dtype.newbyteorder("=")))
                start += 4 * T
            scores.append(TokenScores(three[0], three[1], three[2], states[of]))
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return key, scores
