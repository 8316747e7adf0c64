"""Which measured splits are in-domain: of what the training questions are of, by their content.

A split is in-domain where one of these holds, in this order:

1. the user says so (``config.data.in_domain``, ``config.data.out_of_domain``);
2. all its questions come from data sets that training questions come from, too
   (``sources.data_set`` says what one data set is: the same on the hub, not merely of one name);
3. at least ``SHARE`` of its texts, normalised, stand in the training sources before these are freed
   of them.

Which one decided is part of the summary. The share: between two splits of one of the packages' data
sets it is 0.2 to 4.6 % (which the second rule finds), between different data sets at most 0.2 %.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from calib_jax.errors import UserError
from calib_jax.questions.record import normalised

IN, OUT, UNKNOWN = "in", "out", ""
SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class Origins:
    """What is known of the content of a split, or of all training sources.

    Attributes:
      data_sets: see ``sources.data_set``; empty where none is known (preference pairs of a file).
      texts: normalised questions.
    """

    data_sets: frozenset[str]
    texts: frozenset[str]

    @classmethod
    def of(cls, data_sets: Iterable[str], asked: Iterable[str]) -> "Origins":
        """From data sets and questions as they are asked (``Question.asked``)."""
        return cls(frozenset(data_sets), frozenset(map(normalised, asked)))

    def __or__(self, other: "Origins") -> "Origins":
        """Of both together."""
        return Origins(self.data_sets | other.data_sets, self.texts | other.texts)


def decide(
    train: Origins,
    evals: Mapping[str, Origins],
    in_domain: Sequence[str] = (),
    out_of_domain: Sequence[str] = (),
) -> dict[str, dict]:
    """The domain of every split, and what decided it.

    Args:
      train: all training sources, before what is measured is removed from them.
      evals: split -> its origins, the whole of it: one data set or more, one text or more.
      in_domain, out_of_domain: names of splits that the user decides.

    Returns:
      split -> {"domain": "in", "out", or "" where nothing is known of the training data's origin
      and no text is shared; "decided_by": in words; "shared_texts", "texts": of its distinct texts,
      how many stand in the training sources, and how many there are}.

    Raises:
      UserError: a name that is no split's, or one in both lists.
    """
    named = _named(evals, in_domain, out_of_domain)
    found = {}
    for name, split in evals.items():
        shared, count = len(split.texts & train.texts), len(split.texts)
        share = shared / count
        texts = f"{shared:,} of its {count:,} texts ({share:.1%}) appear in the training sources"
        others = ", ".join(sorted(split.data_sets - train.data_sets))
        if name in named:
            domain, field = named[name]
            why = f"named in {field}"
        elif split.data_sets <= train.data_sets:
            same = ", ".join(sorted(split.data_sets))
            domain, why = IN, f"training has questions of the same data set, {same}"
        elif share >= SHARE:
            domain, why = IN, f"{texts}; {SHARE:.0%} or more make it in-domain"
        elif train.data_sets:
            domain, why = OUT, f"training has no questions of {others}, and {texts}"
        else:
            domain, why = UNKNOWN, f"the training data's origin is not known, and {texts}"
        found[name] = {
            "domain": domain,
            "decided_by": why,
            "shared_texts": shared,
            "texts": count,
        }
    return found


def _named(
    splits: Collection[str], in_domain: Sequence[str], out_of_domain: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Split -> (domain, the field that names it)."""
    named: dict[str, tuple[str, str]] = {}
    for domain, key, names in ((IN, "in_domain", in_domain), (OUT, "out_of_domain", out_of_domain)):
        field = f"config.data.{key}"
        for name in names:
            if name not in splits:
                raise UserError(f"{field} names {name!r}; choose from: {', '.join(splits)}.")
            if named.get(name, (domain, field))[0] != domain:
                raise UserError(
                    f"{name!r} appears in config.data.in_domain and in config.data.out_of_domain. "
                    "Leave it in one of them."
                )
            named[name] = domain, field
    return named
