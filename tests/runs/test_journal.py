"""The journal: every bit comes back, and whatever is cut off it, a whole beginning remains."""

import dataclasses

import numpy as np
import pytest

from calib_jax.confidence.engine import TokenScores
from calib_jax.questions.pairs import Pair
from calib_jax.runs.journal import Journal, fingerprint

HEADER = {"model": "m", "pairs": "p"}


def group(seed, lengths):
    rng = np.random.default_rng(seed)

    def floats(T):
        # Every bit pattern but those of NaN: subnormals, -0.0 and infinities too.
        values = rng.integers(0, 2**32, T, dtype=np.uint64).astype(np.uint32).view(np.float32)
        return np.where(np.isnan(values), np.float32("-inf"), values)

    return [TokenScores(floats(T), floats(T), rng.integers(0, 2**31, T, np.int32)) for T in lengths]


GROUPS = {"a/1": group(0, [1, 3]), "é\n\u2028": group(1, [0, 40]), "b": group(2, [])}


def equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("log_probs", "top_log_probs", "top_tokens"):
            x, y = getattr(one, name), getattr(other, name)
            assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


def test_states_come_back_once_for_all_that_share_one(tmp_path):
    first, second = np.arange(1000, dtype=np.float32) / 7, -np.ones(1000, np.float32)
    plain = group(3, [1, 1, 2, 0])
    states = first, first, second, None
    given = [
        dataclasses.replace(one, state=state) for one, state in zip(plain, states, strict=True)
    ]
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    journal.write("a", given)
    journal.write("b", plain)
    journal.close()
    assert (tmp_path / "j.jsonl").stat().st_size < 2 * 4000 * 1.5  # not three times
    done = Journal(tmp_path / "j.jsonl", HEADER).done
    for one, state in zip(done["a"], states, strict=True):
        if state is None:
            assert one.state is None
        else:
            assert one.state.dtype == np.float32 and one.state.tobytes() == state.tobytes()
    assert all(one.state is None for one in done["b"])
    equal(done["a"], given)


def write(path):
    journal = Journal(path, HEADER)
    for key, scores in GROUPS.items():
        journal.write(key, scores)
    journal.close()
    return path.read_bytes()


def test_bit_for_bit(tmp_path):
    write(tmp_path / "x" / "j.jsonl")
    journal = Journal(tmp_path / "x" / "j.jsonl", HEADER)
    assert list(journal.done) == list(GROUPS) and not journal.replaced and not journal.cut
    for key, scores in GROUPS.items():
        equal(journal.done[key], scores)
    journal.remove()
    assert not (tmp_path / "x" / "j.jsonl").exists()


def test_cut_off_anywhere_and_written_on(tmp_path):
    path = tmp_path / "j.jsonl"
    whole = write(path)
    ends = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, HEADER)
        kept = max(0, int((ends <= end).sum()) - 1)
        assert list(journal.done) == list(GROUPS)[:kept]
        assert journal.cut == (end - ends[kept] if end >= ends[0] else 0)
        assert not journal.replaced
        for key in list(GROUPS)[kept:]:
            journal.write(key, GROUPS[key])
        journal.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("bad", [b"\x00" * 30 + b"\n", b"{}\n", b'{"key": "x"}\n', b"[1]\n"])
def test_a_damaged_line_ends_what_is_kept(tmp_path, bad):
    path = tmp_path / "j.jsonl"
    lines = write(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], bad, *lines[2:]]))
    journal = Journal(path, HEADER)
    assert list(journal.done) == ["a/1"] and journal.cut == len(bad + b"".join(lines[2:]))
    journal.close()
    assert path.read_bytes() == b"".join(lines[:2])


def test_another_header_starts_anew(tmp_path):
    path = tmp_path / "j.jsonl"
    write(path)
    journal = Journal(path, {**HEADER, "model": "other"})
    assert journal.replaced and not journal.done
    journal.close()
    assert path.read_bytes().count(b"\n") == 1
    assert not Journal(path, {**HEADER, "model": "other"}).replaced


def test_the_fingerprint_is_of_keys_tokens_and_targets():
    def pair(tokens, targets):
        return Pair(np.array(tokens, np.int32), targets)

    base = fingerprint(["a", "b"], [[pair([1, 2], 1)], [pair([3], 1)]])
    others = [
        fingerprint(["a", "c"], [[pair([1, 2], 1)], [pair([3], 1)]]),
        fingerprint(["a", "b"], [[pair([1, 3], 1)], [pair([3], 1)]]),
        fingerprint(["a", "b"], [[pair([1, 2], 2)], [pair([3], 1)]]),
        fingerprint(["a", "b"], [[pair([1, 2], 1), pair([3], 1)], []]),
        fingerprint(["b", "a"], [[pair([1, 2], 1)], [pair([3], 1)]]),
    ]
    assert len({base, *others}) == 6
    assert base == fingerprint(["a", "b"], [[pair([1, 2], 1)], [pair([3], 1)]])
