"""PyTorch's .bin: equal to what torch wrote, and unable to execute what a hostile file asks for."""

import codecs
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.models.formats import open_source
from calib_jax.models.formats.torch_bin import TorchBinSource

GOLDEN = Path(__file__).parents[2] / "golden" / "torch"
REFUSED = ("columns", "expanded", "position_ids", "mask")


@pytest.fixture
def expected():
    return np.load(GOLDEN / "expected.npz")


def whole(source, name):
    return source.read(name, (slice(None),) * len(source.shape(name)))


def test_what_torch_wrote(expected):
    source = TorchBinSource(GOLDEN)
    assert source.names() == set(expected.files)
    assert [path.name for path in source.files] == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ]
    assert source.bytes_read == 0
    for name in sorted(source.names() - set(REFUSED)):
        assert source.shape(name) == expected[name].shape
        np.testing.assert_array_equal(whole(source, name).astype(np.float64), expected[name])
    assert "00001" in source.where("embed.weight") and "00002" in source.where("scalar")


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("embed.weight", np.float32),
        ("float16", np.float16),
        ("bfloat16", ml_dtypes.bfloat16),
        ("float64", np.float64),
    ],
)
def test_dtypes(name, dtype):
    source = TorchBinSource(GOLDEN)
    assert source.dtype(name) == dtype and whole(source, name).dtype == dtype


@pytest.mark.parametrize("name", ["embed.weight", "transposed", "rows", "bfloat16"])
def test_slices_and_their_bytes(expected, name):
    source = TorchBinSource(GOLDEN)
    index = (slice(1, 3), slice(1, 2))
    np.testing.assert_array_equal(
        source.read(name, index).astype(np.float64), expected[name][index]
    )
    assert source.bytes_read <= 2 * 2 * source.dtype(name).itemsize


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_are_refused_only_when_used(name):
    source = TorchBinSource(GOLDEN)
    for use in (source.shape, source.dtype, lambda name: whole(source, name)):
        with pytest.raises(UserError, match=f"pytorch_model.*tensor '{name}'"):
            use(name)


def test_state_dict_with_attributes(expected):
    source = TorchBinSource(GOLDEN / "single")
    assert source.names() == {"weight", "bias"}
    np.testing.assert_array_equal(whole(source, "weight"), expected["linear.weight"])


def test_the_format_before_zip_is_refused():
    with pytest.raises(UserError, match=r"before PyTorch 1\.6.*weights_only=True"):
        TorchBinSource(GOLDEN / "legacy")


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="no pytorch_model.bin"):
        TorchBinSource(tmp_path)
    folder = shutil.copytree(GOLDEN, tmp_path / "m")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UserError, match=r"00002-of-00002.bin: named by .*index.json but missing"):
        TorchBinSource(folder)


def test_one_tensor_in_two_files(tmp_path):
    for name in ("pytorch_model.bin", "pytorch_model-1.bin"):
        shutil.copy(GOLDEN / "single" / "pytorch_model.bin", tmp_path / name)
    with pytest.raises(UserError, match="mixes two checkpoints"):
        TorchBinSource(tmp_path)


# Files made by hand.


def zipped(folder, program, storages=(), compression=zipfile.ZIP_STORED, extra=()):
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", compression) as archive:
        archive.writestr("m/data.pkl", program)
        for key, data in storages:
            archive.writestr(f"m/data/{key}", data)
        for name, data in extra:
            archive.writestr(name, data)
    return folder


def refusal(folder):
    with pytest.raises(UserError) as error:
        TorchBinSource(folder)
    message = str(error.value)
    assert str(folder / "pytorch_model.bin") in message and len(message) < 800
    return message


class Tensor:
    """Pickles as torch pickles a tensor."""

    def __init__(self, *args, call="torch._utils _rebuild_tensor_v2"):
        self.args, self.call = args, call


class Storage:
    def __init__(self, *pid):
        self.pid = pid


class Global(str):
    pass


def program(value) -> bytes:
    """A pickle of nested values, with the opcodes of torch's protocol 2."""
    match value:
        case Global():
            return b"c" + value.replace(" ", "\n").encode() + b"\n"
        case Tensor():
            return program(Global(value.call)) + program(value.args) + b"R"
        case Storage():
            return program(value.pid) + b"Q"
        case tuple():
            return b"(" + b"".join(map(program, value)) + b"t"
        case dict():
            inner = b"".join(program(k) + program(v) for k, v in value.items())
            return b"}(" + inner + b"u"
        case _:
            return pickle.dumps(value, 2)[2:-1]


def state(value) -> bytes:
    return b"\x80\x02" + program(value) + b"."


FLOATS = ("storage", Global("torch FloatStorage"), "0", "cpu", 6)
ORDERED = Tensor(call="collections OrderedDict")
DATA = np.arange(6, dtype=np.float32)


def tensor(offset=0, size=(2, 3), stride=(3, 1), storage=FLOATS, more=(False, ORDERED)):
    return Tensor(Storage(*storage), offset, size, stride, *more)


def test_by_hand(tmp_path):
    values = {
        "a": tensor(),
        "p": Tensor(tensor(), True, ORDERED, call="torch._utils _rebuild_parameter"),
        "t": tensor(size=(3, 2), stride=(1, 3)),
        "old": Tensor(Storage(*FLOATS), 1, (5,), (1,), call="torch._utils _rebuild_tensor"),
    }
    source = TorchBinSource(zipped(tmp_path, state(values), [("0", DATA.tobytes())]))
    for name, value in {
        "a": DATA.reshape(2, 3),
        "p": DATA.reshape(2, 3),
        "t": DATA.reshape(2, 3).T,
        "old": DATA[1:],
    }.items():
        np.testing.assert_array_equal(whole(source, name), value)


@pytest.mark.parametrize(
    "value",
    [
        3, "text", [], (), {"a": 3}, {"a": {"b": tensor()}}, {3: tensor()},
        {"a": tensor(offset=1)}, {"a": tensor(offset=-1)}, {"a": tensor(offset=2**40)},
        {"a": tensor(size=(2, 4), stride=(4, 1))}, {"a": tensor(size=(2,))},
        {"a": tensor(size=(-2, -3))}, {"a": tensor(size=(2.0, 3))}, {"a": tensor(size=[2, 3])},
        {"a": tensor(size=(2**61, 2**61), stride=(2**61, 1))},
        {"a": tensor(size=(0, 2**62))}, {"a": tensor(size=(1,) * 40, stride=(1,) * 40)},
        {"a": tensor(stride=(3, True))}, {"a": tensor(more=(False, ORDERED, {"neg": True}))},
        {"a": tensor(storage=FLOATS[:-1])}, {"a": tensor(storage=(*FLOATS[:-1], 2**40))},
        {"a": tensor(storage=(*FLOATS[:-1], 5))}, {"a": tensor(storage=(*FLOATS[:-1], -6))},
        {"a": tensor(storage=(*FLOATS[:2], "9", "cpu", 6))},
        {"a": tensor(storage=(*FLOATS[:2], "../data.pkl", "cpu", 6))},
        {"a": tensor(storage=("module", *FLOATS[1:]))},
        {"a": tensor(storage=("storage", "torch.FloatStorage", "0", "cpu", 6))},
        {"a": tensor(storage=("storage", Global("collections OrderedDict"), "0", "cpu", 6))},
        {"a": Tensor(3, call="torch._utils _rebuild_parameter")},
        {"a": Tensor(3, False, ORDERED, call="torch._utils _rebuild_parameter")},
        {"a": Tensor(call="torch FloatStorage")},
        {"a": Global("collections OrderedDict")},
        Tensor((("a", tensor()),), call="collections OrderedDict"),
    ],
)  # fmt: skip  # a case on a line
def test_what_is_no_table_of_tensors(tmp_path, value):
    refusal(zipped(tmp_path, state(value), [("0", DATA.tobytes())]))


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


HOSTILE = {
    "os.system by GLOBAL": (b"\x80\x02cos\nsystem\nX\x0b\0\0\0touch pwned\x85R.", "os.system"),
    "os.system by STACK_GLOBAL": (pickle.dumps({"a": Evil()}, 4), f"{os.name}.system"),
    "the same, protocol 2": (pickle.dumps({"a": Evil()}, 2), f"{os.name}.system"),
    "protocol 0": (pickle.dumps({"a": Evil()}, 0), "opcode"),
    "INST": (b"(X\x0b\0\0\0touch pwnedios\nsystem\n.", "opcode INST"),
    "OBJ": (b"(cos\nsystem\nX\x0b\0\0\0touch pwnedo.", "os.system"),
    "OBJ of an allowed name": (b"(ccollections\nOrderedDict\no.", "opcode OBJ"),
    "EXT1": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "EXT4": (b"\x80\x02\x84\x01\0\0\0.", "opcode EXT4"),
    "NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "opcode NEWOBJ_EX"),
    "PERSID": (b"\x80\x02Pos.system\n.", "opcode PERSID"),
    "BYTEARRAY8": (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.", "opcode BYTEARRAY8"),
    "BINBYTES8": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "opcode BINBYTES8"),
    "BINUNICODE8": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.", "opcode BINUNICODE8"),
    "LONG4": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "opcode LONG4"),
    "BINUNICODE beyond the end": (b"\x80\x02X\xff\xff\xff\xffa.", "ends early"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "builtins.eval": (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "builtins.eval"),
    "attribute of an allowed module": (b"\x80\x02ctorch._utils\nos.system\n.", "os.system"),
    "torch.load": (b"\x80\x02ctorch\nload\n.", "torch.load"),
    "dotted name": (b"\x80\x04\x8c\x05torch\x8c\x14FloatStorage.__new__\x93.", "__new__"),
    "a global from no text": (b"\x80\x04NN\x93.", "unnamed"),
    "BUILD of a tensor's attributes": (b"\x80\x02)}b.", "attributes"),
    "left on the stack": (b"\x80\x02}}.", "behind"),
    "goes on after STOP": (b"\x80\x02}.}.", "behind"),
    "no STOP": (b"\x80\x02}", "ends early"),
    "empty": (b"", "ends early"),
    "empty stack": (b"\x80\x02R.", "damaged"),
    "mark missing": (b"\x80\x02t.", "damaged"),
    "memo missing": (b"\x80\x02h\x07.", "damaged"),
    "set on a tuple": (b"\x80\x02)X\x01\0\0\0aNs.", "table"),
    "bad UTF-8": (b"\x80\x02X\x01\0\0\0\xff.", "damaged"),
    "key twice": (b"\x80\x02}(X\x01\0\0\0aNX\x01\0\0\0aNu.", "twice"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    codecs.lookup("cp437")  # which zipfile imports to read any file's names
    modules = set(sys.modules)
    attack, reason = HOSTILE[kind]
    assert reason in refusal(zipped(tmp_path, attack))
    assert not (tmp_path / "pwned").exists()
    assert set(sys.modules) == modules, "a name of the file was imported"


def test_the_attack_would_work_on_pickle(tmp_path, monkeypatch):
    """The test above could fail: the same bytes do execute where nothing is restricted."""
    monkeypatch.chdir(tmp_path)
    for name in ("os.system by GLOBAL", "os.system by STACK_GLOBAL", "protocol 0", "INST"):
        pickle.loads(HOSTILE[name][0])
        (tmp_path / "pwned").unlink()


@pytest.mark.parametrize(
    "body",
    [
        b"Nr\xff\xff\xff\xff.",  # LONG_BINPUT: C's unpickler allocates the memo up to this index
        b"(" + b")" * 100000 + b"t.",
        b")" + b"\x85" * 50000 + b".",  # depth: nothing may recurse
        b"N\x94"
        + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(200))
        + b".",  # doubles with each step where anything walks it
    ],
)
def test_programs_that_grow(tmp_path, body):
    zipped(tmp_path, b"\x80\x04" + body)
    tracemalloc.start()
    refusal(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_zip_bombs(tmp_path):
    huge = zipped(tmp_path, state({"a": tensor()}), [("0", bytes(1 << 20))], zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(huge)
    assert "its pickle has" in refusal(zipped(tmp_path, bytes(5 << 20)))


def test_zip_that_lies(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    zipped(tmp_path, state({"a": tensor()}), [("0", DATA.tobytes())])
    good = path.read_bytes()
    end = good.rindex(b"PK\x05\x06")
    directory = good.index(b"PK\x01\x02")
    second = good.index(b"PK\x01\x02", directory + 1)

    def patched(at, data):
        path.write_bytes(good[:at] + data + good[at + len(data) :])
        return refusal(tmp_path)

    assert "another size" in patched(second + 20, struct.pack("<II", 20, 20))
    assert "truncated" in patched(second + 20, struct.pack("<II", 1 << 31, 1 << 31))
    assert "not where" in patched(second + 42, struct.pack("<I", 8))
    assert "truncated" in patched(second + 42, struct.pack("<I", 1 << 31))
    assert "encrypted" in patched(second + 8, struct.pack("<H", 1))
    for at in (end + 12, end + 16, directory, directory + 6, directory + 28, end):
        patched(at, b"\xff\xff")


def test_entries_of_the_zip(tmp_path):
    storages = [("0", DATA.tobytes())]
    good = state({"a": tensor()})
    assert "data.pkl" in refusal(zipped(tmp_path, good, storages, extra=[("n/data.pkl", good)]))
    message = refusal(zipped(tmp_path, good, storages, extra=[("m/byteorder", b"big")]))
    assert "little-endian" in message
    TorchBinSource(zipped(tmp_path, good, storages, extra=[("m/byteorder", b"little")]))
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(tmp_path, good, storages * 2)
    assert "twice" in refusal(tmp_path)


def test_no_pickle_is_loaded_anywhere():
    """The readers take the pickle module's opcode names and nothing else of it."""
    package = Path(sys.modules[TorchBinSource.__module__].__file__).parent
    for path in package.glob("*.py"):
        text = path.read_text()
        assert "pickle.load" not in text and "Unpickler" not in text, path


def test_equal_to_torch(tmp_path):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    tensors = {}
    for i in range(40):
        shape = rng.integers(1, 6, rng.integers(0, 4)).tolist()
        value = torch.randn(shape).to(
            [torch.float32, torch.float16, torch.bfloat16, torch.float64][i % 4]
        )
        tensors[f"t{i}"] = (
            value.permute(tuple(reversed(range(len(shape))))) if i % 3 == 0 else value
        )
    tensors["tied"] = tensors["t1"]
    for protocol in (2, 4, 5):
        torch.save(tensors, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
        source = TorchBinSource(tmp_path)
        assert source.names() == set(tensors)
        for name, value in tensors.items():
            np.testing.assert_array_equal(
                whole(source, name).astype(np.float64), value.double().numpy()
            )


def test_golden_equals_torchs_own_reading(expected):
    torch = pytest.importorskip("torch")
    index = json.loads((GOLDEN / "pytorch_model.bin.index.json").read_text())["weight_map"]
    for file in set(index.values()):
        data = torch.load(io.BytesIO((GOLDEN / file).read_bytes()), weights_only=True)
        for name, value in data.items():
            np.testing.assert_array_equal(value.detach().double().numpy(), expected[name])


def test_chosen_beside_other_layouts(tmp_path):
    """A repository's .bin is the model where its safetensors are not in Hugging Face's layout."""
    shutil.copy(GOLDEN / "single" / "pytorch_model.bin", tmp_path)
    for name in ("consolidated.safetensors", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert isinstance(open_source(tmp_path), TorchBinSource)
