"""Which colour a method has: GRPO and PAEC the same in every picture, the others in the order in which they come."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import chain, count

from recipe.paec.compare.evaluations import without_seed

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, distinguishable with every kind of colour vision; after the last of them, the next dash pattern."""
OWN = {"none": 0, "paec": 1}
"""Method -> its colour, which no other method has while another is left."""
OTHER_NAMES = {"grpo": "none", "grpo + paec": "paec", "grpo+paec": "paec"}


def _parts(name: str) -> list[str]:
    """The parts of the name of a run or of a row, without its seed."""
    return [OTHER_NAMES.get(part, part) for part in re.split("[-,]", without_seed(name).strip().lower())]


def places(names: Sequence[str], methods: Sequence[str | None] = (), taken: Collection[int] = ()) -> list[int]:
    """The place of each line's style in a picture: a colour of COLOURS, from their number on one with dashes.

    Args:
        names: of the lines; a name with a part `none`, GRPO or `paec` is of that method. Of several lines of such a
            method its own colour goes to the one that is named after nothing else.
        methods: of the lines, where they are known.
        taken: places that are used already.
    """
    known = methods or [next((part for part in _parts(name) if part in OWN), None) for name in names]
    found: dict[int, int] = {}
    for method, place in OWN.items():
        of_method = [i for i, one in enumerate(known) if one == method]
        plain = [i for i in of_method if _parts(names[i])[-1] == method]
        if of_method and place not in taken:
            found[(plain or of_method)[0]] = place
    free = chain(range(len(OWN), len(COLOURS)), OWN.values(), count(len(COLOURS)))
    left = (place for place in free if place not in taken and place not in found.values())
    return [found[i] if i in found else next(left) for i in range(len(names))]
