"""The job ``plan``: would this run fit that hardware, and how long would a step take?"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.models import splash
from calib_jax.models.config import ModelConfig
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.parallel.mesh import batch_shards, make_mesh
from calib_jax.parallel.shards import check_mesh
from calib_jax.plan import topology as topologies
from calib_jax.plan.programs import Compiled, Plan
from calib_jax.plan.topology import GIB, Topology
from calib_jax.provenance import reads
from calib_jax.reports.result import Result
from calib_jax.reports.views import plan as views
from calib_jax.runs.run import Run, say
from calib_jax.training.em import objective_of

# Of what is left beside the arguments, so much is asked of the second compilation; and of what the
# straight line through two says, so much of the third.
_SECOND, _THIRD = 0.6, 0.98


def main(run: Run) -> None:
    """Compiles the E-step and the M-step ahead of time, prints what they take, writes summary.json.

    At most four programs are compiled: the E-step, the M-step, and the M-step at two more batch
    sizes, from which the largest that fits is known.

    Raises:
      UserError: bad input, or TPUs' compiler is missing.
      Stopped: SIGTERM; nothing is kept.
    """
    config = run.config
    check_config(config)
    topology = topologies.find(config.plan.topology)
    model = dimensions(config)
    if config.prompt.max_length > model.max_length:
        raise UserError(
            f"config.prompt.max_length is {config.prompt.max_length}, the length that is planned "
            f"for; expected 1 to the model's {model.max_length}."
        )
    mesh = make_mesh(config.mesh.shape, topologies.devices(topology))
    check_mesh(model, mesh)
    _check_attention(config.model.attention, model, topology)
    plan = Plan(config, model, topology, mesh)
    if jax.process_index() != 0:
        return

    def compiled(what: str, compile_: Callable[[], Compiled]) -> Compiled:
        run.stop.check()
        say(f"Compiling the {what} for {topology.name}")
        began = time.monotonic()
        result = compile_()
        say(f"  {result.needed / GIB:.2f} GiB a chip, {time.monotonic() - began:.0f} s")
        return result

    batch = config.train.batch_size
    m_step = compiled(f"M-step, {batch} questions", lambda: plan.m_step(batch))
    run.claim()
    e_step = compiled("E-step", plan.e_step)
    needs_e_step = objective_of(config, batch).needs_e_step
    largest, sure = largest_batch(
        m_step,
        batch,
        config.train.microbatches * batch_shards(mesh),
        topology.hbm,
        lambda size: compiled(f"M-step, {size} questions", lambda: plan.m_step(size)),
    )
    own = {
        "model": config.plan.model or config.model.name,
        "method": config.method,
        "training": _training(config),
        "attention": plan.attention,
        "topology": topology.name,
        "mesh": dict(mesh.shape),
        "hbm_gib_per_chip": max(m_step.needed, e_step.needed) / GIB,
        "hbm_limit_gib": topology.hbm / GIB,
        "fits": max(m_step.needed, e_step.needed) <= topology.hbm,
        "flops": _flops(m_step, mesh.size),
        "ideal_flops": m_step.ideal,
        "max_batch": largest,
        "max_batch_compiled": sure,
        "m_step": _figures(m_step, topology, mesh.size),
        "e_step": _figures(e_step, topology, mesh.size),
        "notes": _notes((m_step, e_step), topology, needs_e_step),
        "wall_seconds": time.monotonic() - run.started,
    }
    run.finish(Result(own), views.view)


def _check_attention(asked: str, model: ModelConfig, topology: Topology) -> None:
    """Raises UserError for an implementation that cannot be compiled for that hardware."""
    why = None
    if asked == "splash":
        why = splash.refusal(model) if topology.kind == "tpu" else "is for TPUs"
    elif asked == "cudnn":
        why = "cannot be compiled without the GPU"
    if why:
        raise UserError(
            f"config.model.attention is {asked!r}, which {why} (config.plan.topology is "
            f"{topology.name}). Choose 'auto' or 'xla'."
        )


def dimensions(config: ml_collections.ConfigDict) -> ModelConfig:
    """The model's dimensions: a folder's ``config.json``, or what stands in the config itself.

    Raises:
      UserError: neither is there, or what is there is not handled.
    """
    if config.plan.model:
        folder = Path(config.plan.model).expanduser()
        reads(folder / "config.json")
        return parse_config(read_config(folder), str(folder / "config.json"))
    raw = config.plan.dimensions.to_dict()
    if not raw:
        raise UserError(
            "config.plan.model names no folder with config.json, and config.plan.dimensions is "
            "empty: give one of the two, or a preset of configs/plan.py."
        )
    return parse_config(raw, "config.plan.dimensions")


def largest_batch(
    first: Compiled,
    batch: int,
    unit: int,
    limit: int,
    step: Callable[[int], Compiled],
) -> tuple[int, bool]:
    """The largest batch whose step fits, from at most two more compilations.

    Args:
      first: the step at ``batch`` questions.
      unit: batches are multiples of it.
      limit: bytes of a chip.
      step: compiles the step at another batch.

    Returns:
      The batch, 0 if none fits; and whether a step of that size has been compiled and fits. Memory
      is taken to grow by as much for every question; where the third compilation does not fit after
      all, the batch is an estimate between it and the largest that does.
    """
    seen = {batch: first.needed}
    if first.needed > limit:
        second = unit
    else:
        assert first.memory is not None  # else nothing would be needed
        room, grown = limit - first.memory.arguments, max(1, first.memory.temporaries)
        second = max(2 * batch, int(_SECOND * batch * room / grown))
    second = max(unit, second // unit * unit)
    if second in seen:
        return 0, False
    seen[second] = step(second).needed
    if min(seen.values()) > limit:
        return 0, False
    (low, least), (high, most) = sorted(seen.items())
    slope = max(1.0, (most - least) / (high - low))
    third = int(low + _THIRD * (limit - least) / slope) // unit * unit
    if third not in seen and third >= unit:
        seen[third] = step(third).needed
    compiled = max(size for size, needed in seen.items() if needed <= limit)
    beyond = [size for size in seen if size > compiled]
    if third not in beyond:
        return compiled, True
    # Memory grew faster than the line said: one through what fits and what does not is closer.
    slope = (seen[third] - seen[compiled]) / (third - compiled)
    between = int(compiled + _THIRD * (limit - seen[compiled]) / slope) // unit * unit
    return (between, False) if compiled < between < min(beyond) else (compiled, True)


def _training(config: ml_collections.ConfigDict) -> str:
    if config.train.method != "lora":
        return "full, AdamW in float32"
    base = config.model.quantize or config.model.dtype
    return f"LoRA r {config.train.lora.rank}" + (f" on {base}" if config.model.quantize else "")


def _flops(step: Compiled, chips: int) -> float | None:
    return None if step.costs is None else step.costs.flops * chips


def _figures(step: Compiled, topology: Topology, chips: int) -> dict[str, Any]:
    """One step, as plain numbers; None for what an unfinished compilation does not tell."""
    memory, costs, flops = step.memory, step.costs, _flops(step, chips)
    seconds, bound = _roofline(step, topology)
    return {
        "rows": step.rows,
        "length": step.length,
        "arguments_gib": None if memory is None else memory.arguments / GIB,
        "temporaries_gib": None if memory is None else memory.temporaries / GIB,
        "hbm_gib_per_chip": step.needed / GIB,
        "headroom_gib": (topology.hbm - step.needed) / GIB,
        "flops": flops,
        "kernel_flops": None if costs is None else costs.kernel_flops * chips,
        "ideal_flops": step.ideal,
        "flops_ratio": None if flops is None else flops / step.ideal,
        "collectives": None
        if costs is None
        else {
            kind: {"count": c.count, "gib": c.bytes / GIB, "sent_gib": c.sent / GIB}
            for kind, c in sorted(costs.collectives.items())
        },
        "sent_gib": None if costs is None else costs.sent_bytes / GIB,
        "hbm_traffic_gib": None if costs is None else costs.memory_bytes / GIB,
        "seconds": seconds,
        "bound": bound,
        "tokens_per_second": seconds and step.rows * step.length / seconds,
    }


def _roofline(step: Compiled, topology: Topology) -> tuple[float | None, str | None]:
    """The longest of computing, reading and sending, as if each went on beside the others."""
    flops, hbm, links = topology.flops, topology.hbm_bandwidth, topology.ici_bandwidth
    if step.costs is None or flops is None or hbm is None or links is None:
        return None, None
    times = {
        "computing": step.costs.flops / flops,
        "memory": step.costs.memory_bytes / hbm,
        "links": step.costs.sent_bytes / links,
    }
    bound = max(times, key=lambda name: times[name])
    return times[bound], bound


def _notes(steps: tuple[Compiled, ...], topology: Topology, needs_e_step: bool) -> list[str]:
    notes = []
    if not needs_e_step:
        notes.append(
            "this loss needs no E-step; its figures are those of scoring before and after training."
        )
    if topology.kind != "tpu":
        notes.append(
            f"{topology.name} is compiled for by the CPU's compiler: memory is near that of "
            "the real one, and no time is estimated."
        )
    if any(step.costs is None for step in steps):
        notes.append(
            "the compiler stopped at a step that does not fit; of it only the memory is known."
        )
    unknown = {name for step in steps if step.costs for name in step.costs.unknown_kernels}
    if unknown:
        notes.append(f"kernels whose operations are not counted: {', '.join(sorted(unknown))}.")
    return notes
