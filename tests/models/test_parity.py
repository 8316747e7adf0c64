"""Our logits are those of PyTorch transformers."""

import numpy as np
import pytest

from calib_jax import load_model

FAMILIES = ("llama2", "llama31", "mistral", "olmo2")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def reference(golden, family):
    """transformers' logits at every eighth position, see golden/README.md."""
    return np.load(golden / family / "logits.npy")


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=["one device", "2x2x2"])
def test_logits_equal_those_of_transformers(family, mesh, reference, golden_logits):
    ours = golden_logits(family, mesh)[:, 7::8]
    assert ours.shape == reference.shape and reference.std() > 1
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama31", "olmo2"], indirect=True)
def test_bfloat16_logits_are_near(family, reference, load_golden, golden_logits):
    """Bound: a root-mean-square error of 4 % of the logits' spread (measured 2.3 % at most)."""
    assert load_golden(family, None, "bfloat16").params["embed"].dtype == "bfloat16"
    ours = golden_logits(family, None, "bfloat16")[:, 7::8]
    assert ours.dtype == np.float32
    error = np.sqrt(np.mean((ours - reference) ** 2)) / reference.std()
    assert 1e-4 < error < 0.04


COMMON = {"hidden_size": 48, "intermediate_size": 40, "vocab_size": 97, "initializer_range": 0.15}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 24,
}
AWKWARD = {
    "llama, tied, 3 queries a key, wide heads, scaled rope": (
        "Llama",
        {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3,
        },
    ),
    "llama, one head, one layer, large epsilon": (
        "Llama",
        {
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "num_hidden_layers": 1,
            "rms_norm_eps": 0.1,
        },
    ),
    "mistral, tied, one key head, window of 7, narrow heads": (
        "Mistral",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 6,
            "sliding_window": 7,
            "tie_word_embeddings": True,
        },
    ),
    "mistral without a window": (
        "Mistral",
        {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None},
    ),
    "olmo2, tied, grouped queries": (
        "Olmo2",
        {"num_attention_heads": 6, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_settings_agree_with_a_fresh_transformers_model(case, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    family, settings = AWKWARD[case]
    settings = {"num_hidden_layers": 2, "pad_token_id": None, **COMMON, **settings}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "norm" in name:  # transformers starts them at one, which hides mistakes
                weight.uniform_(0.5, 1.5)
    theirs.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 97, (2, 40), dtype=np.int32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    ours = load_model(tmp_path).logits(tokens)
    assert expected.std() > 0.3
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
