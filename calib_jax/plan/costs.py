"""What a compiled program computes, moves and sends, loops counted as often as they run.

XLA's own cost analysis counts a loop's body once and knows nothing of custom kernels. Here every
instruction is counted from the optimised program's text: matrix products and convolutions wherever
they stand (in fusions, in library calls), attention kernels, collectives, and bytes of memory.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable

from calib_jax.models import splash
from calib_jax.plan.hlo import (
    Arguments,
    Computation,
    Instruction,
    Program,
    Shape,
    loop_arguments,
    matched,
    parse,
    trip_count,
)

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}
_CUBLAS = ("__cublas$gemm", "__cublas$lt$matmul", "__onednn$matmul")


@dataclasses.dataclass
class Collective:
    """One kind of communication, on one device.

    Attributes:
      count: how often it is done.
      bytes: of the whole array that is gathered, reduced or sent, summed.
      sent: bytes that a ring sends over each device's links for it.
    """

    count: float = 0
    bytes: float = 0
    sent: float = 0


@dataclasses.dataclass
class Costs:
    """Of one run of a program, on one device.

    Attributes:
      flops: of matrix products, convolutions and attention kernels; two for a multiply-add.
      kernel_flops: those of attention kernels among them.
      memory_bytes: read from and written to HBM, an estimate: what every fusion reads and writes.
      collectives: by kind.
      dynamic_loops: loops whose number of rounds is decided at run time.
      unknown_kernels: custom kernels that nothing is known of; they are not counted.
    """

    flops: float = 0
    kernel_flops: float = 0
    memory_bytes: float = 0
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    dynamic_loops: int = 0
    unknown_kernels: set[str] = dataclasses.field(default_factory=set)

    @property
    def sent_bytes(self) -> float:
        return sum(c.sent for c in self.collectives.values())

    def add(self, other: "Costs", times: float) -> None:
        """Adds another part of the program, run so many times."""
        self.flops += times * other.flops
        self.kernel_flops += times * other.kernel_flops
        self.memory_bytes += times * other.memory_bytes
        self.dynamic_loops += other.dynamic_loops
        self.unknown_kernels |= other.unknown_kernels
        for kind, theirs in other.collectives.items():
            ours = self.collectives.setdefault(kind, Collective())
            ours.count += times * theirs.count
            ours.bytes += times * theirs.bytes
            ours.sent += times * theirs.sent


KernelFlops = Callable[[str, list[tuple[int, ...]]], int | None]


def count(
    text: str,
    *,
    dynamic_trips: int = 1,
    kernel_flops: KernelFlops = splash.kernel_flops,
) -> Costs:
    """Counts a compiled program.

    Args:
      text: of the optimised program, ``compiled.as_text()``: for TPUs, CPUs or GPUs.
      dynamic_trips: rounds of a loop whose number is decided at run time.
      kernel_flops: (JAX's name of the operation, shapes of the operands) -> operations of a
        custom kernel, None for one that it does not know.

    Returns:
      The costs on one device; those of a program over n devices are n times as much.
    """
    program = parse(text)
    return _Counter(program, dynamic_trips, kernel_flops).computation(program.entry, [], False)


@dataclasses.dataclass
class _Counter:
    program: Program
    dynamic_trips: int
    kernel_flops: KernelFlops
    loop: str = ""  # the loop's body that is being counted
    chains: set = dataclasses.field(default_factory=set)

    def computation(self, name: str, arguments: Arguments, fused: bool) -> Costs:
        """One run of a computation; within a fusion nothing is read from or written to HBM."""
        where, costs = self.program.computations[name], Costs()
        for x in where:
            self.instruction(where, x, arguments, fused, costs)
        return costs

    def instruction(
        self, where: Computation, x: Instruction, arguments: Arguments, fused: bool, costs: Costs
    ) -> None:
        if x.opcode in _FREE or x.opcode.endswith(("-done", "-update")):
            return
        kind = x.opcode.removesuffix("-start")
        if x.opcode == "while":
            trips = trip_count(self.program, where, x, arguments)
            costs.dynamic_loops += trips is None
            inner = loop_arguments(self.program, where, x, arguments)
            outside, self.loop = self.loop, x.called("body")[0]
            body = self.computation(self.loop, inner, fused)
            self.loop = outside
            costs.add(body, self.dynamic_trips if trips is None else trips)
            return
        if x.opcode == "conditional":
            names = x.called("branch_computations", "true_computation", "false_computation")
            branches = [self.computation(name, [], fused) for name in names]
            costs.add(max(branches, key=lambda c: (c.flops, c.memory_bytes)), 1)
            return
        if x.opcode in ("call", "async-start", "fusion"):
            within = fused or x.opcode == "fusion"
            for name in x.called("calls", "to_apply"):
                costs.add(self.computation(name, [], within), 1)
            if x.opcode != "fusion":
                return
        elif x.opcode == "dot":
            costs.flops += _dot(where, x)
        elif x.opcode == "convolution":
            costs.flops += _convolution(where, x)
        elif x.opcode == "custom-call":
            self.custom_call(where, x, costs)
        elif kind in COLLECTIVES:
            # TPUs do one communication in pieces, beside several fusions of a chain.
            chain = re.search(r'channel_id=(\d+).*chain_id="(\d+)"', x.attributes)
            if chain is None or (key := (*chain.groups(), self.loop)) not in self.chains:
                if chain is not None:
                    self.chains.add(key)
                _collective(where, x, kind, costs)
        if not fused:
            costs.memory_bytes += _traffic(self.program, where, x)

    def custom_call(self, where: Computation, x: Instruction, costs: Costs) -> None:
        target = matched(r'custom_call_target="([^"]*)"', x.attributes)[1]
        if target.startswith(_CUBLAS):
            costs.flops += _library_product(where, x)
        elif target.startswith("__cudnn$fmha"):
            costs.flops += (flops := _cudnn_attention(where, x, target))
            costs.kernel_flops += flops
        elif target == "tpu_custom_call":
            shapes = [shape.dims for shape in where.operand_shapes(x)]
            known = self.kernel_flops(x.op_name, shapes)
            if known is None:
                costs.unknown_kernels.add(x.op_name or x.name)
            costs.flops += known or 0
            costs.kernel_flops += known or 0


def _numbers(text: str, key: str) -> list[int]:
    found = re.search(rf"{key}=\{{([\d,]*)\}}", text)
    return [int(n) for n in found[1].split(",") if n] if found else []


def _dot(where: Computation, x: Instruction) -> int:
    left = where.operand_shapes(x)[0].dims
    contracted = math.prod(left[i] for i in _numbers(x.attributes, "lhs_contracting_dims"))
    return 2 * x.shapes[0].size * contracted


def _library_product(where: Computation, x: Instruction) -> int:
    """A product that a library computes: contracted axes stand in the call's settings."""
    left = where.operand_shapes(x)[0].dims
    found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', x.attributes)
    axes = [int(n.strip('" ')) for n in found[1].split(",")] if found else [len(left) - 1]
    return 2 * x.shapes[0].size * math.prod(left[i] for i in axes)


def _cudnn_attention(where: Computation, x: Instruction, target: str) -> int:
    """q kᵀ and p v over all pairs, half of them if causal; five products in the backward pass."""
    q, k = (shape.dims for shape in where.operand_shapes(x)[:2])
    # [B, L, H, C], or [B, H, L, C]: the product of all but C is the same.
    keys = max(k[1:3]) if q[1:3] != k[1:3] else max(q[1:3])
    causal = "CAUSAL" in x.attributes
    return (5 if "Backward" in target else 2) * 2 * math.prod(q) * keys // (2 if causal else 1)


def _convolution(where: Computation, x: Instruction) -> int:
    """TPUs' products: a multiply-add for every place where the kernel meets an entry that exists.

    Axes that XLA lays into the window are batches or contractions in disguise; padding and the
    holes of a dilation meet nothing.
    """
    left, right = (shape.dims for shape in where.operand_shapes(x)[:2])
    out = x.shapes[0].dims
    labels = matched(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    window = re.search(r"window=\{([^}]*)\}", x.attributes)
    settings = dict(re.findall(r"(\w+)=(\S+)", window[1] if window else ""))

    def setting(key: str, axis: int, default: int) -> int:
        return int(settings[key].split("x")[axis]) if key in settings else default

    total = right[labels[2].index("i")] * out[labels[3].index("b")] * out[labels[3].index("f")]
    for axis in range(len(labels[1]) - 2):
        name = str(axis)
        size, kernel = left[labels[1].index(name)], right[labels[2].index(name)]
        low = int(settings["pad"].split("x")[axis].split("_")[0]) if "pad" in settings else 0
        stride = setting("stride", axis, 1)
        holes, kernel_holes = setting("lhs_dilate", axis, 1), setting("rhs_dilate", axis, 1)
        length = (size - 1) * holes + 1
        meets = 0
        for k in range(kernel):
            # Output places o with 0 <= o · stride + k · kernel_holes − low < length that hit no
            # hole: every one, unless the input has holes.
            offset = k * kernel_holes - low
            if holes == 1:
                first = max(0, -(offset // stride))
                last = min(out[labels[3].index(name)] - 1, (length - 1 - offset) // stride)
                meets += max(0, last - first + 1)
            else:
                places = (o * stride + offset for o in range(out[labels[3].index(name)]))
                meets += sum(0 <= place < length and place % holes == 0 for place in places)
        total *= meets
    groups = re.search(r"batch_group_count=(\d+)", x.attributes)
    return 2 * total // (int(groups[1]) if groups else 1)


def _group_size(attributes: str) -> int:
    """Devices that one collective runs over; 2 for a permutation, 1 where nothing is said."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        # An axis, or a part of one: 'a', or 'a':(2)4.
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[name]) for name, part in parts)
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return found[1].count(",") + 1
    return 2 if "source_target_pairs" in attributes else 1


def _collective(where: Computation, x: Instruction, kind: str, costs: Costs) -> None:
    given = sum(shape.bytes for shape in where.operand_shapes(x))
    n = _group_size(x.attributes)
    whole = given * n if kind == "all-gather" else given
    share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(kind, (n - 1) / n)
    ours = costs.collectives.setdefault(kind, Collective())
    ours.count += 1
    ours.bytes += whole
    ours.sent += share * whole
    costs.memory_bytes += _far(where.operand_shapes(x)) + _far(x.shapes[-1:])


def _far(shapes: Iterable[Shape]) -> int:
    return sum(shape.bytes for shape in shapes if not shape.near)


def _traffic(program: Program, where: Computation, x: Instruction) -> int:
    """Bytes between HBM and the chip: operands and results, of slices only what is touched.

    Collectives are counted by ``_Counter``.
    """
    if x.opcode.removesuffix("-start") in COLLECTIVES:
        return 0
    if x.opcode.endswith("-start"):  # of a copy or a slice: from and to, one of them mostly near
        moved = min((shape.bytes for shape in x.shapes[:2]), default=0)
        return moved * sum(not shape.near for shape in x.shapes[:2])
    if x.opcode in ("dynamic-slice", "gather", "slice", "broadcast", "iota"):
        return _far(x.shapes) * (1 if x.opcode in ("broadcast", "iota") else 2)
    if x.opcode == "dynamic-update-slice":
        return 2 * _far(where.operands(x)[1].shapes)
    if x.opcode != "fusion":
        return _far(x.shapes) + _far(where.operand_shapes(x))
    callee = program.computations[x.called("calls")[0]]
    root = callee.root
    results = callee.operands(root) if root.opcode == "tuple" else [root]
    total = sum(
        _written(callee, result, shape)
        for result, shape in zip(results, x.shapes, strict=False)
        if not shape.near
    )
    outer = where.operands(x)
    for inner in callee:
        if inner.opcode == "parameter" and int(inner.inside) < len(outer):
            shapes = outer[int(inner.inside)].shapes
            if _far(shapes):
                total += min(_far(shapes), _read(program, callee, inner.name, _far(shapes)))
    return total


def _written(callee: Computation, result: Instruction, shape: Shape) -> int:
    """What a fusion writes of one of its results: a slice, if the rest stays as it is."""
    while result.opcode in ("bitcast", "copy") and callee.operands(result):
        result = callee.operands(result)[0]
    if result.opcode == "parameter" or result.opcode in COLLECTIVES:
        return 0
    if result.opcode == "dynamic-update-slice":
        return callee.operands(result)[1].shapes[0].bytes
    return shape.bytes


def _read(program: Program, callee: Computation, name: str, whole: int) -> int:
    """What a fusion reads of its parameter ``name``, at most ``whole`` bytes."""
    total = 0
    for user in callee.users(name):
        if user.opcode in ("dynamic-slice", "gather"):
            total += user.shapes[0].bytes
        elif user.opcode == "bitcast":
            total += _read(program, callee, user.name, whole)
        elif user.opcode == "fusion":
            inner = program.computations[user.called("calls")[0]]
            for place, operand in enumerate(user.operands):
                if operand == name:
                    total += _read(program, inner, inner.parameter(place).name, whole)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # changed in place
        elif user.opcode != "tuple" and user.opcode not in COLLECTIVES:
            return whole
    return total
