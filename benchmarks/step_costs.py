"""What the E-step and the M-step compute against what the model needs, and what logits take.

Programs are compiled, not run, and counted as the job "plan" counts them: no weights, no memory.
Bars: operations at most 1.15 times the ideal for the E-step and 1.2 for the LoRA M-step, layers
computed again counted on both sides; and memory of the M-step that does not grow with the product
of vocabulary and length, also where every position is predicted (SFT2).

    JAX_PLATFORMS=cpu python benchmarks/step_costs.py [--model golden_8b] [--topology cpu-64gib]
    JAX_PLATFORMS=cpu python benchmarks/step_costs.py --topology v5e-8   # libtpu; minutes a line
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calib_jax.jobs.plan import dimensions
from calib_jax.parallel.mesh import make_mesh
from calib_jax.plan import topology as topologies
from calib_jax.plan.programs import Compiled, Plan
from configs import plan as presets

E_BAR, M_BAR = 1.15, 1.2
VOCABULARIES, LENGTHS = (32_000, 128_000), (256, 1024)
MIB = 2**20


def plan_of(model: str, topology: str, rows: int, length: int, **train) -> Plan:
    config = presets.get_config(f"{model}@{topology}")
    config.train.batch_size, config.prompt.max_length = rows, length
    # The engine's own budget on an accelerator: the LM head is read in pieces that fit it.
    config.batch.token_budget = 16384
    config.train.update(train)
    found = topologies.find(topology)
    mesh = make_mesh(config.mesh.shape, topologies.devices(found))
    return Plan(config, dimensions(config), found, mesh)


def ratio(name: str, step: Compiled, chips: int, bar: float) -> None:
    spent = step.costs.flops * chips
    verdict = "within" if spent <= bar * step.ideal else "ABOVE"
    print(
        f"{name:22} {step.rows:4} x {step.length:<5} {spent / 1e12:10.3f} TFLOP, ideal "
        f"{step.ideal / 1e12:10.3f}: {spent / step.ideal:.3f} ({verdict} {bar})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=presets.DIMENSIONS, default="golden_8b")
    parser.add_argument("--topology", default="cpu-64gib")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, default=0, help="fewer layers; 0 for the model's")
    args = parser.parse_args()

    def built(rows: int = args.rows, length: int = args.length, **train) -> Plan:
        plan = plan_of(args.model, args.topology, rows, length, **train)
        layers = args.layers or plan.model.num_layers
        return dataclasses.replace(plan, model=dataclasses.replace(plan.model, num_layers=layers))

    chips = built().mesh.size
    print(f"{args.model}, {built().model.num_layers} layers, for {args.topology}")
    ratio("E-step", built().e_step(), chips, E_BAR)
    ratio("M-step, LoRA, SFT1", built().m_step(args.rows), chips, M_BAR)
    ratio("M-step, LoRA, SFT2", built(sft="sft2").m_step(args.rows), chips, M_BAR)

    print(
        f"\nTemporaries of the M-step with SFT2 in MiB a chip, {args.rows} rows, 2 layers; in "
        "parentheses the logits of all positions, which are never held"
    )
    print(f"{'vocabulary':>12}" + "".join(f"{f'length {n}':>26}" for n in LENGTHS))
    for V in VOCABULARIES:
        cells = []
        for L in LENGTHS:
            plan = built(length=L, sft="sft2")
            small = dataclasses.replace(plan.model, vocab_size=V, num_layers=2)
            step = dataclasses.replace(plan, model=small).m_step(args.rows)
            logits = args.rows * L * V * 4 / chips / MIB
            cells.append(f"{step.memory.temporaries / MIB:,.0f} ({logits:,.0f})")
        print(f"{V:12,}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
