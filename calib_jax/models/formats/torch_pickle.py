"""Reads the pickle inside PyTorch's zip files without being able to execute anything.

A pickle is a program for a stack machine whose ``REDUCE`` calls whatever function it names. The
machine below knows the opcodes that ``torch.save`` writes for a state dict and, instead of looking
functions up, four names: three that describe a tensor, and ``OrderedDict``. No name is ever
imported and nothing of the file is ever called, so everything else ends in an error.
"""

import dataclasses
import pickle
import struct
from collections.abc import Callable
from typing import Any

from calib_jax.errors import UserError

# torch's storage classes and what their elements are.
STORAGES = {
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.DoubleStorage": ("float64", 8),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}
_MAX_AXES = 32


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of elements that tensors are views of: its file in the zip, dtype, and length."""

    key: str
    dtype: str
    itemsize: int
    numel: int


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor: elements of a storage by offset, size and stride, all in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name that the pickle mentions; only a label."""

    name: str


class _Damaged(Exception):
    pass


def read_pickle(program: bytes, where: str) -> dict[str, View]:
    """The tensors of a state dict that ``torch.save`` wrote, by name.

    Raises:
      UserError: the pickle is damaged, or asks for anything but plain tensors.
    """
    try:
        result = _Machine(program, where).run()
    except UserError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        # A stack that runs empty, a memo that was never filled, a short argument, bad UTF-8.
        raise UserError(
            f"{where}: the pickle is damaged ({type(error).__name__}). Download it again."
        ) from None
    except _Damaged as error:
        raise UserError(f"{where}: the pickle is damaged ({error}). Download it again.") from None
    if not isinstance(result, dict):
        raise UserError(f"{where}: holds no table of tensors. Is this a model's state dict?")
    for name, value in result.items():
        if not isinstance(value, View):
            raise UserError(
                f"{where}: {name[:100]!r} is no tensor. A state dict is read, not a training "
                "checkpoint that contains one."
            )
    return result


class _Machine:
    """The stack machine: one method an opcode that needs more than a line."""

    def __init__(self, program: bytes, where: str):
        self.program = program
        self.where = where
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}  # a table, so that a huge index allocates nothing

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == pickle.STOP:
                result = self.stack.pop()
                if self.stack or self.marks or self.at != len(self.program):
                    raise _Damaged("it leaves something behind")
                return result
            step = _STEPS.get(code)
            if step is None:
                raise UserError(
                    f"{self.where}: the pickle uses opcode {_opcode_name(code)}, which no state "
                    "dict of tensors needs; the file may be hostile. Use safetensors."
                )
            step(self)

    # Arguments that follow an opcode.

    def take(self, count: int) -> bytes:
        if count > len(self.program) - self.at:
            raise _Damaged("it ends early")
        self.at += count
        return self.program[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.program.index(b"\n", self.at)
        return self.take(end + 1 - self.at)[:-1].decode("ascii")

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def pop_tuple(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise _Damaged("its stack runs empty")
        del self.stack[len(self.stack) - count :]
        self.push(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _Damaged("it sets items of something else than a table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise _Damaged("a key is no text")
            if key in target:
                raise _Damaged(f"the key {key[:100]!r} appears twice")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Damaged("it appends to something else than a list")
        self.stack[-1].extend(items)

    def build(self) -> None:
        # torch's _metadata: the version of each module, as attributes of the state dict.
        state = self.stack.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise _Damaged("it sets attributes of something else than a table")

    # Names, and what is made of them.

    def find(self, module: Any, name: Any) -> None:
        known = f"{module}.{name}" if type(module) is type(name) is str else ""
        if known not in STORAGES and known not in _CALLS:
            raise UserError(
                f"{self.where}: the pickle asks for {(known or 'an unnamed object')[:100]!r}, "
                "which is no part of a tensor; the file may be hostile. Use safetensors."
            )
        self.push(_Global(known))

    def reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or function.name not in _CALLS:
            raise _Damaged("it calls something that is no function")
        if not isinstance(args, tuple):
            raise _Damaged("it calls without arguments")
        self.push(_CALLS[function.name](*args))

    def storage(self) -> None:
        match self.stack.pop():
            case ("storage", _Global(name=kind), str(key), str(), int(numel)) if (
                kind in STORAGES and type(numel) is int and numel >= 0
            ):
                self.push(Storage(key, *STORAGES[kind], numel))
            case _:
                raise _Damaged("a storage is not described as torch does")


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _grad: Any = None,
    _hooks: Any = None,
    metadata: Any = None,
) -> View:
    """``torch._utils._rebuild_tensor_v2``. Metadata would hold the bits for lazy negation."""
    plain = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not isinstance(storage, Storage) or not plain or len(size) > _MAX_AXES or metadata:
        raise _Damaged("a tensor is not described as torch does")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in (offset, *size, *stride)):
        raise _Damaged("a tensor's size or stride is no count")
    return View(storage, offset, size, stride)


def _parameter(tensor: Any, _grad: Any, _hooks: Any) -> View:
    """``torch._utils._rebuild_parameter``: the tensor itself."""
    if not isinstance(tensor, View):
        raise _Damaged("a parameter is no tensor")
    return tensor


def _table() -> dict[str, Any]:
    """``collections.OrderedDict``, without arguments."""
    return {}


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}

_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.BININT: lambda m: m.push(m.number("<i")),
    pickle.BININT1: lambda m: m.push(m.number("<B")),
    pickle.BININT2: lambda m: m.push(m.number("<H")),
    pickle.LONG1: lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
    pickle.BINUNICODE: lambda m: m.push(m.take(m.number("<I")).decode("utf-8")),
    pickle.SHORT_BINUNICODE: lambda m: m.push(m.take(m.number("<B")).decode("utf-8")),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.pop_mark())),
    pickle.TUPLE1: lambda m: m.pop_tuple(1),
    pickle.TUPLE2: lambda m: m.pop_tuple(2),
    pickle.TUPLE3: lambda m: m.pop_tuple(3),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.APPEND: lambda m: m.append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.append(m.pop_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.SETITEM: lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    pickle.SETITEMS: lambda m: m.set_items(m.pop_mark()),
    pickle.BINPUT: lambda m: m.memo.update({m.number("<B"): m.stack[-1]}),
    pickle.LONG_BINPUT: lambda m: m.memo.update({m.number("<I"): m.stack[-1]}),
    pickle.MEMOIZE: lambda m: m.memo.update({len(m.memo): m.stack[-1]}),
    pickle.BINGET: lambda m: m.push(m.memo[m.number("<B")]),
    pickle.LONG_BINGET: lambda m: m.push(m.memo[m.number("<I")]),
    pickle.GLOBAL: lambda m: m.find(m.line(), m.line()),
    pickle.STACK_GLOBAL: lambda m: m.find(m.stack.pop(-2), m.stack.pop()),
    pickle.REDUCE: _Machine.reduce,
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.storage,
}


def _opcode_name(code: bytes) -> str:
    names = [key for key, value in vars(pickle).items() if key.isupper() and value == code]
    return names[0] if names else repr(code)
