"""The token page as one HTML file that needs nothing else: data, style and script are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paec_loss import PAEC
from recipe.paec.common import secrets
from recipe.paec.report.page import TEMPLATES as SHARED
from recipe.paec.report.page import embedded, policy_of, rounded, templates, text_of
from recipe.paec.tokens.forward import CANDIDATES
from recipe.paec.tokens.settings import Named
from recipe.paec.tokens.sources import Candidates, Response, Source
from recipe.paec.tokens.views import Details, View, details_of, difference_of, view_of

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Content:
    """Everything that a page shows."""

    title: str
    responses: Sequence[Response]
    sources: Sequence[Source]
    methods: Sequence[Named]


def config_of(methods: Sequence[Named]) -> PAEC:
    """Whose forms of entropy and competition the page shows: the first of PAEC's kind, else PAEC's defaults."""
    return next((named.method for named in methods if isinstance(named.method, PAEC)), PAEC())


def packed(values: Iterable[Any], kind: str) -> str:
    """Numbers as base64 of little-endian `kind`: f2, u4."""
    return base64.b64encode(np.concatenate([np.asarray(v).ravel() for v in values]).astype(f"<{kind}")).decode()


def _rows(values: torch.Tensor, lengths: Sequence[int]) -> list[np.ndarray]:
    """The first `lengths[i]` values of each row."""
    return [row[:length].detach().double().numpy() for row, length in zip(values, lengths, strict=True)]


def payload(content: Content) -> dict[str, Any]:
    """The data of a page.

    A reading is a response under one source; per-token columns hold all readings one after the other. A weight is NaN
    where the method has none.
    """
    words: dict[str, int] = {}
    texts = [[words.setdefault(text, len(words)) for text in one.texts] for one in content.responses]
    lengths = [len(one.ids) for one in content.responses]
    readings, start = [], 0
    for number, of in enumerate(content.sources):
        for row in of.rows:
            readings.append({"response": row, "source": number, "start": start})
            start += lengths[row]
    own = [[lengths[row] for row in of.rows] for of in content.sources]
    config = config_of(content.methods)
    details = [details_of(of, config) for of in content.sources]
    columns = {
        field.name: packed(
            [row for one, sizes in zip(details, own, strict=True) for row in _rows(getattr(one, field.name), sizes)],
            "f4" if field.name == "nucleus_size" else "f2",
        )
        for field in fields(Details)
    }
    candidates = _candidates(content, words)
    return {
        "title": content.title,
        "words": list(words),
        "texts": packed(texts, "u4"),
        "responses": [_response(one) for one in content.responses],
        "sources": [{"label": one.label, "note": one.note} for one in content.sources],
        "readings": readings,
        "columns": columns,
        "methods": [*(_method(named, content, own) for named in content.methods), *_difference(content, own)],
        "candidates": candidates,
    }


def _response(one: Response) -> dict[str, Any]:
    advantage = float(np.mean(one.advantages)) if one.advantages else None
    return {
        "key": one.key,
        "group": one.group,
        "step": one.step,
        "prompt": one.prompt,
        "score": one.score,
        "advantage": advantage,
        "length": len(one.ids),
    }


def _method(named: Named, content: Content, own: Sequence[Sequence[int]]) -> dict[str, Any]:
    views = [view_of(named, of, content.responses) for of in content.sources]
    known = next((view.weights for view in views if view.weights is not None), None)
    scored = any(view.score is not None for view in views)

    def rows(of_view: Any) -> list[np.ndarray]:
        return [row for view, sizes in zip(views, own, strict=True) for row in _rows_of(of_view(view), sizes)]

    return {
        "quantity": "weight",
        "name": named.name,
        "about": " ".join((type(named.method).__doc__ or "").split("\n\n")[0].split()),
        "neutral": known.neutral if known else 0,
        "meaning": known.meaning if known else "",
        "reasons": [view.reason for view in views],
        "weights": packed(rows(lambda view: view.weights and view.weights.values), "f2") if known else None,
        "scores": packed(rows(lambda view: view.score), "f2") if scored else None,
        "thresholds": [t for view, sizes in zip(views, own, strict=True) for t in _thresholds(view, sizes)],
    }


def _difference(content: Content, own: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """What is chosen and shown like a method: where vLLM and the actor disagree; empty if no record says so."""
    found = [difference_of(of) for of in content.sources]
    if all(one is None for one in found):
        return []
    rows = [row for one, sizes in zip(found, own, strict=True) for row in _rows_of(one, sizes)]
    return [
        {
            "quantity": "difference",
            "name": "vLLM minus actor",
            "about": "Log-prob that vLLM reported for the token it drew minus the actor's before the step's updates.",
            "neutral": 0,
            "meaning": "nats, 0: they agree",
            "reasons": ["needs a training step's record with vLLM's log-probs" if one is None else "" for one in found],
            "weights": packed(rows, "f2"),
            "scores": None,
            "thresholds": [None] * len(rows),
        }
    ]


def _rows_of(values: torch.Tensor | None, sizes: Sequence[int]) -> list[np.ndarray]:
    return [np.full(size, np.nan) for size in sizes] if values is None else _rows(values, sizes)


def _thresholds(view: View, sizes: Sequence[int]) -> list[float | None]:
    if view.threshold is None:
        return [None] * len(sizes)
    return [rounded(t) if np.isfinite(t) else None for t in view.threshold.tolist()]


def _candidates(content: Content, words: dict[str, int]) -> list[dict[str, str] | None]:
    """For each source, the candidates of all its readings: words and log-probs, CANDIDATES a token; None without."""
    found: list[dict[str, str] | None] = []
    for of in content.sources:
        if not of.candidates:
            found.append(None)
            continue
        found.append(
            {
                "words": packed([_filled(_numbered(one, words), 0) for one in of.candidates], "u4"),
                "log_probs": packed([_filled(one.log_probs, np.nan) for one in of.candidates], "f2"),
            }
        )
    return found


def _numbered(candidates: Candidates, words: dict[str, int]) -> np.ndarray:
    """[T, K] the candidates as numbers of their texts."""
    number = {i: words.setdefault(text, len(words)) for i, text in candidates.texts.items()}
    return np.vectorize(number.__getitem__, otypes=[np.int64])(candidates.ids)


def _filled(values: np.ndarray, empty: float) -> np.ndarray:
    """[T, CANDIDATES] of [T, K]: a vocabulary may have fewer."""
    return np.pad(values, ((0, 0), (0, CANDIDATES - values.shape[1])), constant_values=empty)


def render(content: Content, made: str) -> str:
    """The page.

    Args:
        content: what it shows.
        made: when and with what it was made.
    """
    style = "\n".join([text_of(SHARED / "page.css"), text_of(TEMPLATES / "tokens.css")])
    script = "\n".join([text_of(SHARED / "text.js"), text_of(TEMPLATES / "tokens.js")])
    text = (
        templates(TEMPLATES)
        .get_template("tokens.html")
        .render(
            title=content.title,
            policy=policy_of([script], style),
            style=style,
            script=script,
            data=embedded(payload(content)),
            made=made,
        )
    )
    return secrets.hide(text).replace(secrets.HIDDEN, "[hidden]")
