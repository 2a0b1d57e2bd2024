"""Origin of a file of samples: an evaluation of this recipe, whose protocol it then keeps, or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.files import sha256
from recipe.paec.common.errors import UserError
from recipe.paec.evaluate.folder import EVALUATION, GENERATION, JOURNAL, SCORES
from recipe.paec.evaluate.journal import read_journal

DIGEST = "samples_sha256"
"""Field of an evaluation's provenance: hash of the samples.jsonl that it has written."""
GENERATED = ("model", "revision", "model_fingerprint", "run", "step", "protocol", "seed", "generation")
"""Fields of the provenance that say how responses were generated; grading does not change them."""


def own_origin(file: Path, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The provenance of the generation of these samples, None if they are not known to be this recipe's.

    They are if `file` is byte for byte the samples.jsonl that the evaluation in its folder has written (then the
    hashes of prompts and references, `benchmarks`, hold too), or if the journal next to it has exactly these responses.
    """
    scores, identity = _read(file.parent / SCORES), _read(file.parent / EVALUATION)
    recorded = scores.get("provenance") or {}
    if recorded.get(DIGEST) == sha256(file) and recorded.keys() >= {*GENERATED, "benchmarks"}:
        own = recorded["protocol"].keys() > {"name"}
        return {key: recorded[key] for key in (*GENERATED, "benchmarks")} if own else None
    if not {"model", "protocol", "seed"} <= identity.keys() or not _journaled(file.parent / JOURNAL, samples):
        return None
    same = recorded.get("model_fingerprint") == identity["model"]
    return {
        **{key: recorded.get(key) if same else None for key in ("model", "revision", "run", "step")},
        "model_fingerprint": identity["model"],
        "protocol": identity["protocol"],
        "seed": identity["seed"],
        "generation": _read(file.parent / GENERATION) or None,
    }


def _journaled(journal: Path, samples: Sequence[Mapping[str, Any]]) -> bool:
    try:
        responses = {key: (line["response"], line["seed"]) for key, line in read_journal(journal).items()}
    except UserError:
        return False
    given = {(s["benchmark"], s["problem"], s["sample"]): (s["response"], s["seed"]) for s in samples}
    return bool(given) and responses == given


def _read(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
