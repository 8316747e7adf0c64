"""Do 95 % intervals hold the truth where rows come in clusters, and do tests keep their size?

G clusters of rows that share a passage: the logits of a row are 1.5 (sqrt(rho) of the cluster's
normals + sqrt(1 - rho) of its own), answers are drawn from softmax(logits) by a normal copula of
correlation rho within the cluster, and the model reports softmax(2 logits). A second model, for
the paired differences, reports softmax(1.5 logits + 0.7 noise), noise of the same correlation.
The truth is the metric over two million independent rows. Printed, as Markdown: the coverage (and
mean width) of

    rows      rows redrawn (accuracy: Wilson's interval)
    strata    rows redrawn within their cluster, which is what groups= once meant
    clusters  whole clusters redrawn, at the level as it is (accuracy: the percentile interval)
    now       clusters=, with ``expanded_level`` (accuracy: ``share_interval``)

and how often a calibrated model (softmax(logits)) is rejected at 5 % by conf-ECE's test with
independent answers and with ``cluster_consistency_test``.

    python benchmarks/clusters.py [--draws 1000] [--resamples 400] [--tests 300] [--quick]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.metrics import intervals
from calib_jax.metrics.clusters import units_of

# Clusters, rows of each, correlation within them.
WORLDS = (
    (20, 10, 0.5),
    (20, 10, 0.0),
    (40, 5, 0.5),
    (100, 2, 0.0),
    (100, 2, 0.5),
    (200, 1, 0.0),
    (8, 25, 0.5),
)
ALONE = {"accuracy": metrics.accuracy, "conf_ece": metrics.conf_ece, "nll": metrics.nll}
PAIRED = {"accuracy": metrics.accuracy, "nll": metrics.nll}


def sample(key, count, size, rho):
    """Logits and the other model's noise [N, 4], and answers [N], cluster by cluster."""
    keys = jax.random.split(key, 6)

    def mixed(shared, own, width):
        common = jnp.repeat(jax.random.normal(shared, (count, width)), size, axis=0)
        single = jax.random.normal(own, (count * size, width))
        return jnp.sqrt(rho) * common + jnp.sqrt(1 - rho) * single

    logits = 1.5 * mixed(keys[0], keys[1], 4)
    # From the likeliest option on, so that a cluster is right or wrong together.
    order = jnp.argsort(-logits, axis=1)
    total = jnp.cumsum(jnp.take_along_axis(jax.nn.softmax(logits), order, axis=1), axis=1)
    share = jax.scipy.stats.norm.cdf(mixed(keys[2], keys[3], 1))
    place = jnp.clip((total < share).sum(axis=1), 0, 3)
    answers = jnp.take_along_axis(order, place[:, None], axis=1)[:, 0].astype(jnp.int32)
    return logits, 0.7 * mixed(keys[4], keys[5], 4), answers


def both(logits, noise):
    return jax.nn.softmax(2 * logits), jax.nn.softmax(1.5 * logits + noise)


def truths():
    logits, noise, answers = sample(jax.random.key(2**31), 2_000_000, 1, 0.0)
    first, second = both(logits, noise)
    found = {name: float(fn(first, answers)) for name, fn in ALONE.items()}
    for name, fn in PAIRED.items():
        found[f"difference of {name}"] = float(fn(second, answers)) - found[name]
    return found


def coverage(world, truth, draws, resamples):
    """name of the figure -> name of the rule -> [draws] (held, width)."""
    count, size, rho = world
    cluster = np.repeat(np.arange(count), size)
    plain, whole = units_of(len(cluster)), units_of(len(cluster), None, cluster)
    plans = {"rows": plain.plan, "clusters": whole.plan}
    if size > 1:
        plans["strata"] = units_of(len(cluster), cluster).plan
    fns = tuple(ALONE.values()), tuple(PAIRED.values())

    @jax.jit
    def run(key):
        def one(number):
            logits, noise, answers = sample(jax.random.fold_in(key, number), count, size, rho)
            first, second = both(logits, noise)
            right = metrics.correctness(first, answers)
            values = {}
            for name, plan in plans.items():
                rest = answers, None, plan, number.astype(jnp.uint32), resamples
                alone = intervals._resampled(fns[0], (first,), (None,), *rest)
                pair = intervals._resampled(fns[1], (first, second), (None, None), *rest)
                values[name] = (alone, pair)
            return values, right

        return jax.lax.map(one, jnp.arange(draws))

    drawn, rights = jax.device_get(run(jax.random.key(count)))
    found = {}
    for p, names in enumerate((list(ALONE), list(PAIRED))):
        for i, name in enumerate(names):
            title = f"difference of {name}" if p else name
            rules = {n: (n, 0.95) for n in ("rows", "strata", "clusters")}
            rules["now"] = ("clusters", whole.level(0.95))
            for rule, (plan, level) in rules.items():
                if plan not in drawn:  # every row a stratum of its own: no width at all
                    found.setdefault(title, {})[rule] = np.zeros((draws, 2))
                    continue
                values = drawn[plan][p][i].astype(np.float64)
                if title == "accuracy" and rule in ("rows", "now"):
                    given = (None if rule == "rows" else cluster,)
                    ends = np.array([metrics.share_interval(r, *given) for r in rights]).T
                else:
                    signed = bool(p)
                    ends = intervals.interval(
                        values[:, :-1].T, values[:, -1], level, "bias_aware", signed
                    )
                low, high = ends
                held = (low <= truth[title]) & (truth[title] <= high)
                found.setdefault(title, {})[rule] = np.column_stack([held, high - low])
    return found


def size_of_tests(world, tests):
    """The share of calibrated samples that each test rejects at 5 %."""
    count, size, rho = world
    cluster, rejected = np.repeat(np.arange(count), size), np.zeros(2)
    draw = jax.jit(lambda key: sample(key, count, size, rho))
    for number in range(tests):
        logits, _, answers = draw(jax.random.key(number))
        arrays = np.asarray(jax.nn.softmax(logits)), np.asarray(answers)
        options = {"num_draws": 399, "seed": number}
        alone = metrics.consistency_test(metrics.conf_ece, *arrays, **options)
        together = metrics.cluster_consistency_test(*arrays, cluster, **options)
        rejected += np.array([alone.p_value, together.p_value]) <= 0.05
    return rejected / tests


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="100 draws, 40 tests")
    args = parser.parse_args()
    draws, tests = (100, 40) if args.quick else (args.draws, args.tests)
    truth = truths()
    print(f"{draws} draws, {args.resamples} resamples; coverage (mean width) of 95 % intervals\n")
    print("| clusters | metric | rows | strata | clusters | now |\n|---|---|---|---|---|---|")
    for world in WORLDS:
        title = f"{world[0]} of {world[1]}, rho {world[2]}"
        for name, rules in coverage(world, truth, draws, args.resamples).items():
            cells = [f"{v[:, 0].mean():.3f} ({v[:, 1].mean():.3f})" for v in rules.values()]
            print(f"| {title} | {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{tests} calibrated samples: share rejected at 5 %\n")
    print("| clusters | independent answers | cluster_consistency_test |\n|---|---|---|")
    for world in WORLDS:
        alone, together = size_of_tests(world, tests)
        print(f"| {world[0]} of {world[1]}, rho {world[2]} | {alone:.3f} | {together:.3f} |")


if __name__ == "__main__":
    main()
