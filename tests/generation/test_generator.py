"""Answers token by token against the full forward pass, and what must not change them."""

import dataclasses

import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.errors import UserError
from calib_jax.generation import Generator, Sampling
from calib_jax.models.lora import LoraConfig, lora_shapes, merge_lora

ROOM = 12
LENGTHS = (5, 31, 18)
DRAWN = Sampling(temperature=1.0)


def prompts_of(vocab, lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, vocab, n).astype(np.int32) for n in lengths]


def generate(model, prompts, sampling=None, names=None, **options):
    options = {"max_new_tokens": ROOM, "batch_size": 4, **options}
    answers = Generator(model, sampling or Sampling(), **options).generate(prompts, names)
    return [answer.tokens for answer in answers]


def greedy_of(model, prompts, answers):
    """What the full forward pass finds most probable at every place of these very answers."""
    whole = [np.concatenate([p, a]).astype(np.int32) for p, a in zip(prompts, answers, strict=True)]
    padded = np.zeros((len(whole), max(map(len, whole))), np.int32)
    for row, tokens in zip(padded, whole, strict=True):
        row[: len(tokens)] = tokens
    best = np.asarray(model.logits(padded)).argmax(-1)
    return [
        tuple(row[len(p) - 1 : len(w) - 1].tolist())
        for row, p, w in zip(best, prompts, whole, strict=True)
    ]


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gpt_neox"])
def test_greedy_is_the_argmax_of_the_full_forward_pass(golden, family):
    """Soft caps, windows of 24 (rows grow to 43), local ropes, norms of heads, parallel blocks."""
    model = load_model(golden / family)
    prompts = prompts_of(model.config.vocab_size)
    answers = generate(model, prompts)
    assert [len(answer) for answer in answers] == [ROOM] * 3
    assert answers == greedy_of(model, prompts, answers)


def test_greedy_against_transformers(golden):
    torch = pytest.importorskip("torch")
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(golden / "gemma2").eval()
    model = load_model(golden / "gemma2")
    prompts = prompts_of(model.config.vocab_size)
    for prompt, ours in zip(prompts, generate(model, prompts, stops=[2]), strict=True):
        out = theirs.generate(
            torch.from_numpy(prompt[None]).long(),
            max_new_tokens=ROOM,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )
        answer = out[0, len(prompt) :].tolist()
        assert ours == tuple(answer[: answer.index(2)] if 2 in answer else answer)


def test_equal_prompts_are_computed_once_and_answered_as_ever(tiny_model):
    """Three answers to each prompt of a batch, one block cut short, as after a stop."""
    model = load_model(tiny_model)
    prompts = [p for p in prompts_of(300, (9, 20, 3)) for _ in range(3)][:-1]
    names = [f"{i // 3}#{i % 3}" for i in range(8)]
    apart = generate(model, prompts, DRAWN, names)
    assert len(set(apart)) == 8
    assert generate(model, prompts, DRAWN, names, copies=3, batch_size=2) == apart
    assert generate(model, prompts[1:], DRAWN, names[1:], copies=3) == apart[1:]


def test_company_changes_nothing(tiny_model):
    """Alone, beside others and in another order: the same draws."""
    model = load_model(tiny_model)
    prompts, names = prompts_of(300, (9, 20, 3, 14, 31, 6)), list("abcdef")
    together = dict(zip(names, generate(model, prompts, DRAWN, names), strict=True))
    for i in (0, 3):
        assert generate(model, prompts[i : i + 1], DRAWN, names[i : i + 1]) == [together[names[i]]]
    backwards = generate(model, prompts[::-1], DRAWN, names[::-1])
    assert dict(zip(names[::-1], backwards, strict=True)) == together
    # The name and the seed do make a difference.
    assert generate(model, prompts[:1], DRAWN, ["other"]) != [together["a"]]
    assert generate(model, prompts[:1], DRAWN, ["a"], seed=1) != [together["a"]]


def test_a_stop_ends_an_answer_and_its_row_alone(tiny_model):
    model = load_model(tiny_model)
    prompts = prompts_of(300)
    free = generate(model, prompts, DRAWN)
    stop = free[0][4]
    answers = Generator(
        model, DRAWN, max_new_tokens=ROOM, batch_size=4, stops=[stop, 319]
    ).generate(prompts)
    for answer, whole in zip(answers, free, strict=True):
        ends = [i for i, token in enumerate(whole) if token in (stop, 319)]
        assert answer.stopped == bool(ends)
        assert answer.tokens == (whole[: ends[0]] if ends else whole)
    assert answers[0].stopped


def test_the_models_length_ends_an_answer(tiny_model, monkeypatch):
    model = load_model(tiny_model)  # 512 tokens
    generator = Generator(model, DRAWN, max_new_tokens=ROOM, batch_size=4)
    assert [generator.limit(n) for n in (1, 500, 505, 511, 512)] == [ROOM, ROOM, 7, 1, 0]
    with pytest.raises(UserError, match="'b'.*512 tokens.*no room"):
        generator.check(prompts_of(300, (511, 512)), ["prompt 'a'", "prompt 'b'"])
    prompts = prompts_of(300)
    whole = generate(model, prompts, DRAWN)
    monkeypatch.setattr(generator, "limit", lambda length: length % 7)
    answers = generator.generate(prompts)
    assert [answer.tokens for answer in answers] == [whole[0][:5], whole[1][:3], whole[2][:4]]
    assert not any(answer.stopped for answer in answers)


def test_adapters(tiny_model):
    """Beside the weights or merged in: one model, one answer."""
    model = load_model(tiny_model)
    lora = LoraConfig(rank=2, alpha=4.0, targets=("q_proj", "down_proj"))
    rng = np.random.default_rng(0)
    adapters = {
        name: {key: rng.normal(0, 0.3, shape).astype(np.float32) for key, (shape, _) in ab.items()}
        for name, ab in lora_shapes(model.config, lora).items()
    }
    beside = dataclasses.replace(model, lora=lora, adapters=adapters)
    merged = dataclasses.replace(model, params=merge_lora(model.params, adapters, lora))
    prompts = prompts_of(300)
    expected, plain = generate(merged, prompts, DRAWN), generate(model, prompts, DRAWN)
    assert generate(beside, prompts, DRAWN) == expected != plain


def test_weights_that_are_no_numbers(tiny_model):
    model = load_model(tiny_model)
    params = {**model.params, "final_norm": model.params["final_norm"] * np.nan}
    with pytest.raises(UserError, match="prompt 0.*not numbers"):
        generate(dataclasses.replace(model, params=params), prompts_of(300, (5,)), DRAWN)


def test_a_token_that_the_model_has_not(tiny_model):
    with pytest.raises(UserError, match="token 320"):
        generate(load_model(tiny_model), [np.array([1, 320], np.int32)])
