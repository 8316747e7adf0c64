"""TRL's DPO loss as an oracle: ``DPOTrainer._compute_loss`` on log-probabilities that are given."""

import types

import numpy as np


def trl_loss_and_gradient(torch, policy, reference, beta, smoothing):
    """The loss of N pairs and its gradient [N, 2] with respect to the policy's log-probabilities.

    TRL's "sigmoid" knows no label smoothing; its "aot" on one pair is cDPO's loss.
    """
    from trl import DPOTrainer

    leaf = torch.tensor(policy, requires_grad=True)
    given = torch.tensor(reference)
    if smoothing:
        values = [
            _loss(torch, DPOTrainer, leaf[i : i + 1], given[i : i + 1], beta, "aot", smoothing)
            for i in range(len(policy))
        ]
        loss = torch.stack(values).mean()
    else:
        loss = _loss(torch, DPOTrainer, leaf, given, beta, "sigmoid", 0.0)
    loss.backward()
    return loss.item(), np.asarray(leaf.grad)


def _loss(torch, trainer, policy, reference, beta, kind, smoothing):
    count = len(policy)

    def model(**inputs):
        one = torch.ones(2 * count, 1)
        # Answers of one token, the chosen ones first.
        return types.SimpleNamespace(
            log_probs=policy.T.reshape(-1, 1), entropy=one, mean_logits=one, is_top1=one.bool()
        )

    class Metrics(dict):
        def __missing__(self, key):
            return self.setdefault(key, [])

    itself = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        accelerator=types.SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
        ),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics={"train": Metrics()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.ones(2 * count, 2, dtype=torch.long),
        "attention_mask": torch.ones(2 * count, 2),
        "completion_mask": torch.tensor([[0, 1]] * (2 * count)),
        "ref_chosen_logps": reference[:, 0],
        "ref_rejected_logps": reference[:, 1],
    }
    result = trainer._compute_loss(itself, model, inputs, False)
    return result[0] if isinstance(result, tuple) else result
