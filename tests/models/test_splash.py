"""The splash kernel, interpreted on a CPU, against XLA's path."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import UserError, api, make_mesh
from calib_jax.models import attention, splash
from calib_jax.models.attention import Forest, attend, forest_sight
from calib_jax.models.decoder import Decoder
from calib_jax.models.hf_config import parse_config
from calib_jax.parallel import mesh as meshes
from calib_jax.plan import costs, topology
from tests.conftest import TINY
from tests.models.conftest import random_params

B, L, H, G, C = 4, 256, 4, 2, 64


@functools.cache
def arrays():
    rng = np.random.default_rng(0)
    shapes = [(B, L, H, C), (B, L, G, C), (B, L, G, C), (B, L, H, C)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def segments(length=L):
    """Rows of sequences of other lengths, and padding that is one token each."""
    lengths = [[100, 60, 40], [length], [1, 130], [64, 64, 64]]
    positions, ends = np.zeros((B, length), np.int32), np.zeros((B, length), np.int32)
    for b, row in enumerate(lengths):
        place = 0
        for n in row:
            positions[b, place : place + n] = np.arange(n)
            place += n
            ends[b, place - n : place] = place
        ends[b, place:] = np.arange(place, length) + 1
    return Forest(positions, ends, ends)


CASES = {
    "causal": {},
    "window": {"window": 100},
    "packed, windowed, capped": {"packed": True, "window": 50, "softcap": 5.0, "scale": 0.3},
}


@pytest.fixture
def several_blocks(monkeypatch):
    monkeypatch.setattr(splash, "_BLOCKS", (128,))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_xla_path(case, several_blocks):
    settings = dict(CASES[case])
    q, k, v, weights = arrays()
    forest = segments() if settings.pop("packed", False) else None
    sight = None if forest is None else forest_sight(forest, None)

    def ours(q, k, v):
        ids = None if forest is None else forest.segments
        return splash.splash_attention(q, k, v, segments=ids, interpret=True, **settings)

    def theirs(q, k, v):
        return attend(q, k, v, sight=sight, **settings)

    def both(function):
        out, pull = jax.vjp(function, q, k, v)
        return out, *pull(weights)

    for mine, other in zip(jax.jit(both, static_argnums=0)(ours), both(theirs), strict=True):
        np.testing.assert_allclose(mine, other, atol=3e-5)


def test_a_mesh_splits_rows_and_heads():
    q, k, v, _ = arrays()
    ids = segments().segments
    with meshes.use(make_mesh((2, 2, 2))):
        kernel = functools.partial(splash.splash_attention, interpret=True)
        out = jax.jit(kernel)(q, k, v, segments=ids)
        assert {s.data.shape for s in out.addressable_shards} == {(1, L, H // 2, C)}
    alone = attend(q, k, v, sight=forest_sight(segments(), None))
    np.testing.assert_allclose(out, alone, atol=3e-5)


def test_the_decoder_takes_it_for_long_rows_of_whole_sequences(monkeypatch):
    """Trees, prefixes and short rows stay on XLA's path; the results are the same."""
    monkeypatch.setattr(splash, "SHORTEST", 256)
    calls = []

    def interpreted(*args, **settings):
        calls.append(settings)
        return kernel(*args, **settings, interpret=True)

    kernel = splash.splash_attention
    monkeypatch.setattr(splash, "splash_attention", interpreted)
    raw = {**TINY, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}
    config = parse_config(raw, "config.json")
    params = {"params": random_params(config)}
    tokens = np.random.default_rng(0).integers(0, 320, (B, L), dtype=np.int32)
    forest = segments()
    tree = Forest(forest.positions, forest.ends)

    def run(implementation, *inputs):
        return Decoder(config, attention=implementation).apply(params, *inputs)

    for inputs, used in [
        ((tokens, forest), True),
        ((tokens, tree), False),
        ((tokens[:, :128],), False),
    ]:
        calls.clear()
        out = run("splash", *inputs)
        assert bool(calls) == used
        np.testing.assert_allclose(out, run("xla", *inputs), atol=2e-4)


def test_which_rows_fit():
    assert splash.fits((8, 1024, 32, 128), None)
    assert splash.fits((8, 1152, 32, 64), 4096)
    assert not splash.fits((8, 512, 32, 128), None)
    assert not splash.fits((8, 1100, 32, 128), None)
    assert not splash.fits((8, 1024, 32, 96), None)
    assert not splash.fits((8, 1024, 32, 128), jnp.int32(3))
    with meshes.use(make_mesh((2, 2, 2))):
        assert splash.fits((8, 1024, 32, 128), None)
        assert not splash.fits((6, 1024, 32, 128), None)


@pytest.mark.parametrize("window", [None, 1, 2, 100, 128, 129, 130, 300, 512])
@pytest.mark.parametrize("block", [128, 256])
def test_block_pairs_against_the_mask(window, block):
    length = 512
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    seen = (j <= i) & (i - j < (window or length))
    pairs = seen.reshape(length // block, block, length // block, block).any(axis=(1, 3)).sum()
    assert splash.block_pairs(length, block, window) == pairs


def test_flops_of_the_kernels():
    q, k = (2, 16, 2048, 128), (2, 4, 2048, 128)
    operands = [(1, 4, 4), (1, 4, 4), q, k, k, (2048, 128)]
    scope = "jit(f)/splash_10_pairs_of_512_in_2048x128/splash_mha_{}_residuals/pallas_call"
    pair = 2 * 16 * 10 * 512 * 512 * 128 * 2
    for phase, products in (("fwd", 2), ("dq", 3), ("dkv", 4)):
        assert splash.kernel_flops(scope.format(phase), operands) == products * pair
    assert splash.kernel_flops("jit(f)/another/pallas_call", operands) is None


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_it_compiles_for_a_tpu():
    """Forward and backward, packed and windowed, over rows and heads of eight chips."""
    found = topology.find("v5e-8")
    mesh = make_mesh((1, 4, 2), topology.devices(found))
    rows = jax.NamedSharding(mesh, jax.P("fsdp"))

    def at(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=rows)

    def loss(q, k, v, ids):
        out = splash.splash_attention(q, k, v, segments=ids, window=600)
        return out.astype(jnp.float32).sum()

    q, k = at(jnp.bfloat16, 4, 1024, 4, 128), at(jnp.bfloat16, 4, 1024, 2, 128)
    with meshes.use(mesh):
        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        text = program.lower(q, k, k, at(jnp.int32, 4, 1024)).compile().as_text()
    # One row and two heads a chip; three pairs of blocks of 512; 2 + 3 + 4 products.
    assert costs.count(text).kernel_flops == 2 * 3 * 512 * 512 * 128 * 2 * (2 + 3 + 4)


def test_when_it_is_chosen(monkeypatch):
    config = parse_config({**TINY, "hidden_size": 256}, "config.json")  # heads of 64
    odd = parse_config(TINY, "config.json")  # heads of 8
    with pytest.raises(UserError, match="needs a TPU; this is a cpu"):
        api._attention("splash", config, "float32")
    assert api._attention("auto", config, "float32") == "xla"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert api._attention("auto", config, "float32") == "splash"
    assert api._attention("xla", config, "float32") == "xla"
    assert api._attention("auto", odd, "float32") == "xla"
    with pytest.raises(UserError, match="these have 8"):
        api._attention("splash", odd, "float32")


def test_attend_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'xla', 'cudnn' or 'splash'"):
        attention.attend(*arrays()[:3], implementation="flash")
