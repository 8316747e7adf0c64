"""The text of a compiled program, read: computations, instructions, and how often loops run."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_TRIPS = re.compile(r'known_trip_count"?\s*[:=]\s*\{\s*"n"\s*:\s*"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's type.

    Attributes:
      dtype: XLA's name, such as "bf16".
      dims: its sizes.
      near: whether it lies in the chip's own fast memory and not in HBM.
    """

    dtype: str
    dims: tuple[int, ...]
    near: bool = False

    @property
    def size(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def bytes(self) -> int:
        bits = _BITS.get(self.dtype)
        if bits is None:  # f32, bf16, s8, f8e4m3fn, c64
            bits = int(matched(r"\d+", self.dtype)[0])
        return -(-self.size * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation.

    Attributes:
      name, opcode: as the text has them.
      shapes: of its result, one for each array of a tuple.
      operands: names of the instructions that it reads, in order.
      inside: what stands between the parentheses.
      attributes: what follows them.
      root: whether it is its computation's result.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inside: str
    attributes: str
    root: bool

    @property
    def op_name(self) -> str:
        """The JAX scopes and the primitive that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *keys: str) -> list[str]:
        """The computations that these attributes name."""
        names = []
        for key in keys:
            for found in re.finditer(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes):
                names += [name.strip(" %") for name in found[1].strip("{}").split(",")]
        return names


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the text."""

    name: str
    instructions: dict[str, Instruction]
    _users: dict[str, list[Instruction]] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def root(self) -> Instruction:
        return next(x for x in reversed(self.instructions.values()) if x.root)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def parameter(self, index: int) -> Instruction:
        """The parameter of that number."""
        return next(x for x in self if x.opcode == "parameter" and int(x.inside) == index)

    def users(self, name: str) -> list[Instruction]:
        """The instructions that read it."""
        if not self._users:
            for x in self:
                for operand in dict.fromkeys(x.operands):
                    self._users.setdefault(operand, []).append(x)
        return self._users.get(name, [])

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that it reads."""
        return [self.instructions[x] for x in instruction.operands if x in self.instructions]

    def operand_shapes(self, instruction: Instruction) -> list[Shape]:
        """The arrays that it reads, tuples laid flat."""
        return [shape for operand in self.operands(instruction) for shape in operand.shapes]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program; ``computations`` by name."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Reads ``compiled.as_text()``.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, pending = None, ""
    body: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if body is None:
            if head := _HEAD.match(line):
                body = {}
                computations[head[2]] = Computation(head[2], body)
                entry = head[2] if head[1] else entry
        elif _INSTRUCTION.match(line) or line == "}" or line.startswith("}, execution_thread"):
            if pending:
                instruction = _instruction(pending)
                body[instruction.name] = instruction
            pending = line
            if line[0] == "}":
                body, pending = None, ""
        elif pending:  # metadata of custom kernels go over several lines
            pending += line
    if entry is None:
        raise ValueError("the text holds no entry computation: it is no compiled program.")
    return Program(computations, entry)


def matched(pattern: str | re.Pattern[str], text: str) -> re.Match[str]:
    """The first match of a pattern that the format of the text promises."""
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in {text!r}"
    return found


def _instruction(line: str) -> Instruction:
    head = matched(_INSTRUCTION, line)
    start = head.end()
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    kind = line[start:end]
    shapes = tuple(
        Shape(dtype, tuple(int(d.strip("<=")) for d in dims.split(",") if d), "S(1)" in layout)
        for dtype, dims, layout in _SHAPE.findall(kind)
    )
    open_ = line.index("(", end)
    close = _closing(line, open_)
    inside = line[open_ + 1 : close - 1]
    opcode = line[end:open_].strip()
    names = () if opcode == "constant" else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(head[2], opcode, shapes, names, inside, line[close:], bool(head[1]))


def _closing(line: str, start: int) -> int:
    """One past the parenthesis that closes the one at ``start``."""
    depth = 0
    for i in range(start, len(line)):
        depth += (line[i] == "(") - (line[i] == ")")
        if not depth:
            return i + 1
    raise ValueError(f"unbalanced parentheses in {line[:200]!r}.")


# Values of scalars, as far as they can be known without running the program: an int; a Slot, an
# entry of a loop's state; a Step, such an entry and what is added to it; a list, a tuple's entries
# still to be asked for; a tuple (direction, left, right), a comparison; None, unknown.
@dataclasses.dataclass(frozen=True)
class _Slot:
    index: int


@dataclasses.dataclass(frozen=True)
class _Step:
    slot: _Slot
    by: int


class _Carry:
    """A loop's state as its condition and body see it."""


Arguments = list[Callable[[], Any]]
_SAME = ("copy", "convert", "bitcast", "reshape", "copy-start", "copy-done", "broadcast")


def trip_count(
    program: Program, computation: Computation, loop: Instruction, arguments: Arguments
) -> int | None:
    """How often a while loop's body runs; None where that is decided at run time.

    Args:
      computation: where the loop stands.
      arguments: values of that computation's parameters, as ``loop_arguments`` gives them.
    """
    if found := _TRIPS.search(loop.attributes):
        return int(found[1])
    condition = program.computations[loop.called("condition")[0]]
    compared = _value(program, condition, condition.root, [_Carry])
    if not isinstance(compared, tuple):
        return None
    direction, left, right = compared
    if direction in ("GT", "GE"):
        direction, left, right = {"GT": "LT", "GE": "LE"}[direction], right, left
    if not isinstance(left, _Slot) or direction not in ("LT", "LE"):
        return None
    state = _value(program, computation, computation.operands(loop)[0], arguments)
    if not isinstance(state, list):
        return None
    start = state[left.index]()
    end = state[right.index]() if isinstance(right, _Slot) else right
    body = program.computations[loop.called("body")[0]]
    after = _value(program, body, body.root, [_Carry])
    step = after[left.index]() if isinstance(after, list) else None
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    if not isinstance(step, _Step) or step.slot != left or step.by < 1:
        return None
    return max(0, -(-(end + (direction == "LE") - start) // step.by))


def loop_arguments(
    program: Program, computation: Computation, loop: Instruction, arguments: Arguments
) -> Arguments:
    """The values of a loop body's parameters: what the loop does not change, the rest unknown."""
    body = program.computations[loop.called("body")[0]]
    after = _value(program, body, body.root, [_Carry])
    before = _value(program, computation, computation.operands(loop)[0], arguments)
    if not isinstance(after, list) or not isinstance(before, list):
        return [lambda: None]

    def entry(index: int) -> Any:
        return before[index]() if after[index]() == _Slot(index) else None

    return [lambda: [lambda i=i: entry(i) for i in range(len(before))]]


def _value(program: Program, where: Computation, x: Instruction, arguments: Arguments) -> Any:
    def operand(i: int) -> Any:
        return _value(program, where, where.instructions[x.operands[i]], arguments)

    if x.opcode == "constant":
        return int(x.inside) if re.fullmatch(r"-?\d+", x.inside) else None
    if x.opcode == "parameter":
        index = int(x.inside)
        return arguments[index]() if index < len(arguments) else None
    if x.opcode in _SAME:
        return operand(0)
    if x.opcode == "tuple":
        return [lambda i=i: operand(i) for i in range(len(x.operands))]
    if x.opcode == "get-tuple-element":
        index = int(matched(r"index=(\d+)", x.attributes)[1])
        whole = operand(0)
        if isinstance(whole, _Carry):
            return _Slot(index)
        return whole[index]() if isinstance(whole, list) and index < len(whole) else None
    if x.opcode == "add":
        left, right = operand(0), operand(1)
        if isinstance(left, int):
            left, right = right, left
        if isinstance(left, _Slot) and isinstance(right, int):
            return _Step(left, right)
        return left + right if isinstance(left, int) and isinstance(right, int) else None
    if x.opcode == "compare":
        direction = matched(r"direction=(\w+)", x.attributes)[1]
        return direction, operand(0), operand(1)
    if x.opcode in ("fusion", "call"):
        callee = program.computations[x.called("calls", "to_apply")[0]]
        given: Arguments = [functools.partial(operand, i) for i in range(len(x.operands))]
        return _value(program, callee, callee.root, given)
    return None
