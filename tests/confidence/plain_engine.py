"""The engine's interface without its cleverness: one pair a row, logits at every position."""

import jax
import numpy as np

from calib_jax.confidence.engine import TokenScores


class PlainEngine:
    """Scores pairs one by one through ``Model.logits``: the oracle of the real engine."""

    def __init__(self, model):
        self.model = model

    def score(self, groups, on_group=None, check=lambda: None):
        results = []
        for i, group in enumerate(groups):
            scores = [self._score(pair) for pair in group]
            if on_group:
                on_group(i, scores)
            check()
            results.append(scores)
        return results

    def _score(self, pair):
        T, L = pair.num_targets, len(pair.tokens)
        if not T:
            return TokenScores(*(np.zeros(0, d) for d in (np.float32, np.float32, np.int32)))
        padded = np.zeros((1, -(-L // 64) * 64), np.int32)
        padded[0, : L - 1] = pair.tokens[:-1]
        logits = np.asarray(self.model.logits(padded))[0, L - 1 - T : L - 1]
        log_probs = np.asarray(jax.nn.log_softmax(logits.astype(np.float64)), np.float32)
        targets = np.asarray(pair.tokens[L - T :])
        return TokenScores(
            log_probs[np.arange(T), targets],
            log_probs.max(axis=-1),
            log_probs.argmax(axis=-1).astype(np.int32),
        )
