import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.metrics import validate

GOOD = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])


def changed(row, values):
    probs = GOOD.copy()
    probs[row] = values
    return probs


def test_good_arrays_pass(draw):
    validate(GOOD, [0, 1, 2])
    validate(np.zeros((0, 4)), np.zeros(0, int))
    validate(np.zeros((0, 4)), [])
    mask = GOOD > 0
    validate(GOOD, [0, 1, 0], mask)
    for num_options in (1, 2, 26):
        probs, answers = draw(200, num_options)
        for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
            validate(jnp.asarray(probs, dtype), jnp.asarray(answers))


@pytest.mark.parametrize(
    ("probs", "answers", "mask", "message"),
    [
        (GOOD[0], [0], None, r"shape \[N, K\]"),
        (GOOD, [0, 1], None, r"answers must have shape \(3,\)"),
        (GOOD, [0.0, 1.0, 2.0], None, "answers must be integers"),
        (GOOD > 0.3, [0, 1, 2], None, "probs must be floating"),
        (GOOD, [0, 1, 2], np.ones((3, 2), bool), "mask must be bool"),
        (GOOD, [0, 1, 2], np.ones((3, 3)), "mask must be bool"),
        (changed(1, np.nan), [0, 1, 2], None, r"row 1 .*option 0 is nan \(1 bad row of 3\)"),
        (changed(2, [-0.1, 0.6, 0.5]), [0, 1, 2], None, "row 2 .*option 0 is -0.1"),
        (changed(1, [0, 1.5, 0]), [0, 1, 2], None, "row 1 .*option 1 is 1.5"),
        (GOOD * 0.99, [0, 1, 2], None, r"row 0 sums to 0.99.*\(3 bad rows of 3\)"),
        (GOOD, [0, 1, 3], None, r"row 2 has answer 3, outside 0\.\.2"),
        (GOOD, [0, -1, 3], None, r"row 1 has answer -1.*\(2 bad rows of 3\)"),
        (GOOD, [0, 1, 2], GOOD > 0, "row 2 has answer 2, which is a masked option"),
        (GOOD, [0, 1, 0], GOOD > 0.15, r"row 1 .*option 0 is 0.1 .*masked options must hold 0"),
        (changed(0, 0), [0, 1, 0], changed(0, 0) > 0, "row 0 has no valid option"),
    ],
)
def test_bad_arrays_are_named(probs, answers, mask, message):
    with pytest.raises(ValueError, match=message):
        validate(probs, answers, mask)


def test_tolerance_follows_the_dtype_or_the_caller():
    probs = GOOD[:2] * 1.005
    with pytest.raises(ValueError, match="sums to 1.005"):
        validate(probs, [0, 1])
    validate(probs, [0, 1], tolerance=0.01)
    with pytest.raises(ValueError, match="sums to"):
        validate(probs.astype(np.float16), [0, 1])
    validate(jnp.asarray(probs, jnp.bfloat16), [0, 1])
