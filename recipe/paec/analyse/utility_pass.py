"""The scoring pass of `utility`: a model reads a response once, and the answer after each step before its last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data_prep.progress import with_progress
from paec_loss import token_statistics
from paec_loss.pieces import token_spans
from paec_loss.token_texts import token_pieces
from recipe.paec.analyse.utility import Sample, Scored, Scorer, Settings, step_ends
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import context_length, read_config
from recipe.paec.tokens.forward import (
    hugging_face,
    language_model,
    template_kwargs_of,
    text_responses,
    tokenizer_of,
)


@contextmanager
def scorer(settings: Settings) -> Iterator[Scorer]:
    """Scores samples with the model of `settings`.

    Raises:
        UserError: the model does not exist, is not complete, or has no tokenizer.
    """
    with hugging_face(settings.model) as (folder, _):
        tokenizer = tokenizer_of(folder, settings.model)
        yield Reader(language_model(folder), tokenizer, folder, settings).score


class Reader:
    """A model that reads responses and answers."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path, settings: Settings) -> None:
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._told = template_kwargs_of(settings.model)
        self._context = context_length(read_config(folder))
        self._vocabulary = model.config.get_text_config().vocab_size

    def score(self, samples: Sequence[Sample]) -> list[Scored | None]:
        """What the model makes of each sample; None for one that does not fit into its context.

        Raises:
            UserError: the tokenizer has tokens that the model lacks.
        """
        return [self._of_one(sample) for sample in with_progress(samples, label="utility", unit="responses")]

    @torch.no_grad()
    def _of_one(self, sample: Sample) -> Scored | None:
        from transformers import DynamicCache

        row = {"text": sample.response, "prompt": sample.prompt, "score": None, "chat": True}
        (response,) = text_responses([row], self._tokenizer, self._told)
        prompt, steps = list(response.prompt_ids), list(response.ids)
        # Without the last step: it states the answer, and after it the announcing text would come a second time.
        spans = [(end - 1, end) for end in step_ends(sample.response, self._settings.border)[:-1]]
        lengths = [0, *(stop for _, stop in token_spans(response.texts, spans))]
        told = {space: self._answer(space, sample.answer) for space in ("", " ")}
        if self._context and len(prompt) + len(steps) + max(len(ids) for ids, _ in told.values()) > self._context:
            return None
        if max(*prompt, *steps, *told[""][0], *told[" "][0]) >= self._vocabulary:
            raise UserError(f"--model {self._settings.model}: its tokenizer has more tokens than the model")
        cache = DynamicCache()
        self._read([*prompt, *steps[: lengths[-1]]], cache, 1)
        found = []
        for length in reversed(lengths):  # backwards: a cache can be cut, and then needs no copy
            before = "".join(response.texts[:length])
            ids, first = told[" " if before and not before[-1].isspace() else ""]
            cache.crop(len(prompt) + length)
            logits = self._read(ids, cache, len(ids))[first - 1 : -1]
            labels = torch.tensor(ids[first:], device=logits.device)
            of_it = token_statistics(logits, labels, top_p=1.0)
            found.append((float(of_it.entropy.double().mean()), -float(of_it.log_prob.double().mean())))
        entropy, surprisal = zip(*reversed(found), strict=True)
        return Scored(entropy, surprisal)

    def _read(self, ids: list[int], cache: Any, keep: int) -> torch.Tensor:
        """The logits after the last `keep` of `ids`, which follow what is in the cache and join it."""
        tokens = torch.tensor([ids], device=self._model.device)
        return self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits[0]

    def _answer(self, space: str, answer: str) -> tuple[list[int], int]:
        """Tokens of what stands before an answer and of the answer, and which is the answer's first."""
        before = space + self._settings.before
        ids = self._tokenizer.encode(before + answer, add_special_tokens=False)
        ((first, _),) = token_spans(token_pieces([ids], self._tokenizer)[0], [(len(before), len(before) + 1)])
        if first == 0:
            raise UserError(
                f"--before-answer {self._settings.before!r}: shares a token with the answer after it: give a longer "
                "text"
            )
        return ids, first
