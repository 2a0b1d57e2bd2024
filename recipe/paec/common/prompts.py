"""From chat messages to prompt tokens, the same way in the checks before a run or an evaluation and in generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError


def load_tokenizer(folder: str | Path, chat_template: str | None, name: str, remedy: str):
    """The tokenizer of a local model folder, with `chat_template` instead of its own if one is given.

    UserError if it cannot be loaded or has no chat template: `name` begins the sentence, `remedy` ends the second.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: the tokenizer cannot be loaded: {error}") from None
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if tokenizer.chat_template is None:
        raise UserError(f"{name}: the tokenizer has no chat template: {remedy}")
    return tokenizer


def template_kwargs(config: Any) -> dict[str, Any]:
    """What a run's configuration tells the chat template."""
    return OmegaConf.to_container(OmegaConf.select(config, "data.apply_chat_template_kwargs") or OmegaConf.create({}))


def encode(tokenizer: Any, messages: Iterable[Mapping[str, str]], **kwargs: Any) -> list[int]:
    """Token ids of a prompt, up to where the response begins.

    `kwargs`: what else the chat template is told, such as enable_thinking (`data.apply_chat_template_kwargs`).
    """
    return tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        **{**kwargs, "add_generation_prompt": True, "tokenize": True, "return_dict": False},
    )
