"""Row lengths: what they must hold, and that they compute little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.confidence.shapes import Flops, Shapes, cached_lengths, row_lengths
from calib_jax.models.config import ModelConfig, Rope
from calib_jax.models.table import parameter_table

FLOPS = Flops(token=1000, key=1, read=100)


def one_row(length):
    return 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=80),
    st.integers(1, 5),
    st.sampled_from([8, 128]),
)
def test_row_lengths_hold_every_item(sizes, most, multiple):
    lengths = row_lengths(sizes, most, multiple, FLOPS, one_row)
    assert 1 <= len(lengths) <= most and list(lengths) == sorted(set(lengths))
    assert lengths[-1] >= max(sizes) and all(n % multiple == 0 for n in lengths)


def test_small_items_are_packed_rather_than_padded():
    free = Flops(token=1000, key=0, read=100)
    (length,) = row_lengths([50] * 1000, 5, 8, free, one_row)
    assert length >= 200  # four of them and more in a row


def test_attention_across_items_is_not_free():
    dear = Flops(token=1000, key=100, read=100)
    assert max(row_lengths([50] * 1000, 5, 8, dear, one_row)) < 200


def test_a_ragged_last_batch_counts():
    """Two lengths would be two batches where one is enough."""
    sizes = [100] * 3 + [200]
    assert len(row_lengths(sizes, 5, 8, FLOPS, lambda length: 64)) == 1


def test_cached_lengths_pair_prefixes_with_rows():
    families = [(600, [90] * 100), (640, [110] * 100), (2500, [400] * 80)]
    shapes = cached_lengths(families, 2, 8, FLOPS)
    assert [prefix for prefix, _ in shapes] == [640, 2504]
    assert shapes[0][1] >= 256 and shapes[1][1] >= 400
    assert Shapes((128, 256), shapes).count == 5 and Shapes((128,)).count == 1


def test_one_very_long_item_does_not_lengthen_the_rows():
    assert cached_lengths([(100, [50] * 1000 + [3000])], 2, 8, FLOPS)[0][1] < 3000


@pytest.mark.parametrize("gated", [True, False])
def test_flops_of_a_token_are_two_for_each_weight(gated):
    config = ModelConfig(
        "llama",
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_length=128,
        norm_eps=1e-5,
        rope=Rope(1e4),
        tie_embeddings=True,
        gated=gated,
    )
    rows = [row for row in parameter_table(config) if row.kind == "projection" and row.stacked]
    flops = Flops.of(config)
    weights = config.num_layers * sum(np.prod(row.shape[-2:]) for row in rows)
    assert flops.token == 2 * weights
    assert flops.read == 2 * 64 * 320 and flops.key == 4 * 3 * 64
