"""Counting compiled programs: against hand counts, XLA's own analysis, and unrolled loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import make_mesh
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.hf_config import parse_config
from calib_jax.parallel import mesh as meshes
from calib_jax.plan import costs
from tests.conftest import TINY
from tests.models.conftest import random_params


def compiled(function, *inputs, **settings):
    return jax.jit(function, **settings).lower(*inputs).compile()


def count(function, *inputs, **settings):
    return costs.count(compiled(function, *inputs).as_text(), **settings)


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products_without_loops_as_xla_counts_them():
    def function(a, b, c):
        return jnp.einsum("bij,bjk->bik", a, b) @ c

    program = compiled(function, f32(3, 40, 50), f32(3, 50, 60), f32(60, 70))
    ours = costs.count(program.as_text())
    assert ours.flops == 2 * 3 * 40 * 60 * (50 + 70)
    assert ours.flops == pytest.approx(program.cost_analysis()["flops"], rel=1e-3)


def test_a_scan_counts_as_often_as_it_runs():
    def function(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    inputs = f32(8, 64), f32(7, 64, 64)
    assert count(function, *inputs).flops == 7 * 2 * 8 * 64 * 64
    assert compiled(function, *inputs).cost_analysis()["flops"] < 2 * (2 * 8 * 64 * 64)
    # Forward, and the two products of the backward pass.
    gradient = jax.grad(lambda x, w: function(x, w).sum(), argnums=(0, 1))
    assert count(gradient, *inputs).flops == 3 * 7 * 2 * 8 * 64 * 64


def test_loops_in_loops_and_steps_of_two():
    def inner(i, x):
        return jnp.tanh(x @ x)

    def function(x):
        return jax.lax.fori_loop(0, 5, lambda i, x: jax.lax.fori_loop(2, 5, inner, x), x)

    assert count(function, f32(32, 32)).flops == 15 * 2 * 32**3

    def by_twos(x):
        def body(state):
            return state[0] + 2, inner(0, state[1])

        return jax.lax.while_loop(lambda state: state[0] < 9, body, (1, x))[1]

    assert count(by_twos, f32(32, 32)).flops == 4 * 2 * 32**3


def test_loops_decided_at_run_time_are_named_and_counted_as_told():
    def function(n, x):
        return jax.lax.fori_loop(0, n, lambda i, x: jnp.tanh(x @ x), x)

    inputs = jax.ShapeDtypeStruct((), jnp.int32), f32(32, 32)
    once = count(function, *inputs)
    assert once.dynamic_loops == 1 and once.flops == 2 * 32**3
    assert count(function, *inputs, dynamic_trips=6).flops == 6 * once.flops


def test_the_dearest_branch_counts():
    def function(choice, x):
        return jax.lax.switch(choice, [lambda x: x, lambda x: x @ x, lambda x: x @ x @ x], x)

    inputs = jax.ShapeDtypeStruct((), jnp.int32), f32(32, 32)
    assert count(function, *inputs).flops == 2 * 2 * 32**3


@functools.cache
def decoder(num_layers):
    config = parse_config({**TINY, "num_hidden_layers": num_layers}, "config.json")
    return Decoder(config, remat=False), {"params": random_params(config)}


def forward_flops(config, rows, length):
    D, F, C = config.hidden_size, config.intermediate_size, config.head_dim
    H, G, V = config.num_heads, config.num_kv_heads, config.vocab_size
    layer = 2 * D * (2 * H * C + 2 * G * C + 3 * F) + 4 * length * H * C
    return rows * length * (config.num_layers * layer + 2 * D * V)


@pytest.mark.parametrize("num_layers", [2, 5])
def test_a_model_against_the_arithmetic(num_layers):
    model, variables = decoder(num_layers)

    def logits(variables, tokens):
        return head_logits(model.config, variables["params"], model.apply(variables, tokens))

    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
    assert count(logits, variables, tokens).flops == forward_flops(model.config, 4, 64)


def test_a_two_layer_model_scanned_as_unrolled(monkeypatch):
    """Training, with layers computed again: the loop counts what its copies count."""
    config = decoder(2)[0].config
    model, variables = Decoder(config), decoder(2)[1]
    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)

    def loss(variables, tokens):
        hidden = model.apply(variables, tokens)
        return head_logits(config, variables["params"], hidden).mean()

    scanned = count(jax.grad(loss), variables, tokens)
    scan = jax.lax.scan
    monkeypatch.setattr(jax.lax, "scan", lambda *a, **k: scan(*a, **(k | {"unroll": 2})))
    program = compiled(jax.grad(loss), variables, tokens)
    assert " while(" not in program.as_text()
    unrolled = costs.count(program.as_text())
    assert scanned.flops == pytest.approx(unrolled.flops, rel=0.03)
    # XLA's own analysis adds the operations of single entries.
    assert unrolled.flops < program.cost_analysis()["flops"] < 1.3 * unrolled.flops


def test_a_mesh_shares_the_products_and_sends_what_it_must():
    mesh = make_mesh((1, 4, 2))

    def layer(x, w):
        return jnp.tanh(x @ w) @ w.T

    def function(x, weights):
        return jax.lax.scan(lambda x, w: (layer(x, w), None), x, weights)[0]

    def at(shape, spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec))

    with meshes.use(mesh):
        inputs = at((64, 32), jax.P("fsdp", None)), at((3, 32, 48), jax.P(None, None, "tensor"))
        ours = count(function, *inputs)
    assert ours.flops * 8 == 3 * 2 * (2 * 64 * 32 * 48)
    # x wᵀ is summed over the two halves of w: 16 rows a device, in each of three rounds.
    reduced = ours.collectives["all-reduce"]
    assert reduced.count == 3
    assert reduced.bytes == reduced.sent == 3 * 16 * 32 * 4


TPU = """\
HloModule jit_f, is_scheduled=true

%body (p: (s32[], bf16[2,2048,16,128])) -> (s32[], bf16[2,2048,16,128]) {
  %p = (s32[]{:T(128)}, bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %one = s32[]{:T(128)} constant(1)
  %x = bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)} get-tuple-element(%p), index=1
  %w = bf16[128,128,1,1]{1,0,3,2:T(8,128)(2,1)} constant({...})
  %next = s32[]{:T(128)} add(%i, %one)
  %convolution.7 = bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)} convolution(%x, %w), window={size=1x1}, dim_labels=0b1f_io01->0b1f, metadata={op_name="jit(f)/dot_general"}
  %table = s8[1,4,4]{2,1,0} constant({...})
  %q = bf16[2,16,2048,128]{3,2,1,0:T(8,128)(2,1)} bitcast(%x)
  %kernel = (f32[512,128]{1,0:T(8,128)}, bf16[2,16,2048,128]{3,2,1,0}) custom-call(%table, %q, %q, %q), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(f)/splash_10_pairs_of_512_in_2048x128/splash_mha_fwd_residuals/pallas_call"}
  %other = bf16[2]{0} custom-call(%x), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/mystery/pallas_call"}
  %gathered = bf16[16,2048,16,128]{3,2,1,0} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
  %sent = bf16[2,2048,16,128]{3,2,1,0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  ROOT %out = (s32[]{:T(128)}, bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)}) tuple(%next, %convolution.7)
}

%condition (p.1: (s32[], bf16[2,2048,16,128])) -> pred[] {
  %bound = s32[]{:T(128)} constant(32)
  %p.1 = (s32[]{:T(128)}, bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

ENTRY %main (x.1: bf16[2,2048,16,128]) -> (s32[], bf16[2,2048,16,128]) {
  %x.1 = bf16[2,2048,16,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %start = s32[]{:T(128)} constant(2)
  %state = (s32[]{:T(128)}, bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)}) tuple(%start, %x.1)
  ROOT %while.1 = (s32[]{:T(128)}, bf16[2,2048,16,128]{3,1,2,0:T(8,128)(2,1)S(1)}) while(%state), condition=%condition, body=%body
}
"""  # noqa: E501


def test_what_a_tpus_program_looks_like():
    """Products are convolutions, trip counts are in no attribute, kernels span several lines."""
    ours = costs.count(TPU)
    kernel = 2 * 16 * 10 * 512 * 512 * 128 * 4
    assert ours.kernel_flops == 30 * kernel
    assert ours.flops == 30 * (kernel + 2 * 2 * 2048 * 16 * 128 * 128)
    assert ours.unknown_kernels == {"jit(f)/mystery/pallas_call"}
    size = 2 * 2048 * 16 * 128 * 2
    assert vars(ours.collectives["all-gather"]) == {
        "count": 30,
        "bytes": 30 * 8 * size,
        "sent": 30 * 7 * size,
    }
    assert vars(ours.collectives["collective-permute"]) == {
        "count": 30,
        "bytes": 30 * size,
        "sent": 30 * size,
    }


@pytest.mark.parametrize(
    ("strides", "padding", "left_holes", "right_holes"),
    [
        ((1, 1), "VALID", (1, 1), (1, 1)),
        ((2, 3), "SAME", (1, 1), (1, 2)),
        ((1, 1), [(2, 1), (0, 3)], (3, 1), (1, 1)),
    ],
)
def test_convolutions_meet_only_entries_that_exist(strides, padding, left_holes, right_holes):
    """Against a convolution of ones in float64: every output is its number of multiply-adds."""

    def function(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            left_holes,
            right_holes,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x, w = np.ones((2, 9, 8, 3), np.float32), np.ones((3, 2, 3, 5), np.float32)
    assert count(function, x, w).flops == 2 * float(function(x, w).sum())


def test_no_program():
    with pytest.raises(ValueError, match="no entry computation"):
        costs.count("nothing of the kind")
