"""The tiny policies before any training, and their byte-level tokenizer, with merges or not.

A Qwen2 of 674 k parameters, or a Llama five times as large, for what should hold for more than one model.

Small enough for a CPU, yet nothing about it is special to verl, vLLM or transformers:

- head_dim is 32, the minimum of vLLM's CPU attention;
- vocab_size equals len(tokenizer): vLLM masks ids beyond the tokenizer and the actor does not, so spare rows in the
  embedding would show as a constant gap between rollout and actor log_prob;
- without merges every UTF-8 byte is a token whatever the pre-tokenizer is (AutoTokenizer replaces it for model_type
  qwen2), and the token id of a byte is the byte; merges are learned with Qwen2's pre-tokenizer and come behind.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Tokenizer,
)

from data_prep.files import atomic_directory
from data_prep.tasks import INITIALIZER_RANGE

END_OF_TEXT, IM_START, IM_END = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MAX_POSITIONS = 512


@dataclass(frozen=True)
class Shape:
    """An architecture and its sizes."""

    config: type[PreTrainedConfig]
    hidden: int
    mlp: int
    layers: int
    heads: int
    fields: tuple[tuple[str, object], ...] = ()
    """More of the configuration."""


SHAPES = {
    "qwen2": Shape(Qwen2Config, hidden=128, mlp=384, layers=3, heads=4, fields=(("use_sliding_window", False),)),
    "llama": Shape(LlamaConfig, hidden=256, mlp=768, layers=4, heads=8),
}
"""674 k and 3.5 M parameters."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML as Qwen writes it, without Qwen's default system message."""


def byte_alphabet() -> list[str]:
    """The 256 printable characters that represent bytes in byte-level BPE, in byte order (as in GPT-2)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    alphabet, spare = [], 256
    for byte in range(256):
        if byte in printable:
            alphabet.append(chr(byte))
        else:
            alphabet.append(chr(spare))
            spare += 1
    return alphabet


def tokenizer(merges: Sequence[tuple[str, str]] = ()) -> Qwen2Tokenizer:
    """A tokenizer of 259 tokens (ids 0..255 are the bytes, 256..258 the specials), plus one for every merge."""
    vocab = {symbol: byte for byte, symbol in enumerate(byte_alphabet())}
    vocab |= {special: 256 + i for i, special in enumerate(SPECIALS)}
    vocab |= {left + right: len(vocab) + i for i, (left, right) in enumerate(merges)}
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=list(merges),
        unk_token=None,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[IM_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def learn_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges of byte-pair encoding on `texts`, fewer if the texts have no more; [] for 0."""
    if count == 0:
        return []
    plain = tokenizer()
    learned = plain.train_new_from_iterator([texts], vocab_size=len(plain) + count, show_progress=False)
    return [tuple(pair) for pair in json.loads(learned.backend_tokenizer.to_str())["model"]["merges"]]


def config(
    tokens: Qwen2Tokenizer, initializer_range: float = INITIALIZER_RANGE, shape: str = "qwen2"
) -> PreTrainedConfig:
    """The configuration of a name of SHAPES: heads of 32, tied embeddings, float32."""
    sizes = SHAPES[shape]
    return sizes.config(
        vocab_size=len(tokens),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        initializer_range=initializer_range,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        dtype="float32",
        **dict(sizes.fields),
    )


def build(
    path: str | Path,
    seed: int = 0,
    merges: Sequence[tuple[str, str]] = (),
    initializer_range: float = INITIALIZER_RANGE,
    shape: str = "qwen2",
) -> None:
    """Write an untrained model and its tokenizer to the new folder `path`; the same seed gives the same weights."""
    tokens = tokenizer(merges)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config(tokens, initializer_range, shape), trust_remote_code=False)
    save(model, tokens, path)


def save(model: PreTrainedModel, tokens: Qwen2Tokenizer, path: str | Path) -> None:
    """Write a complete Hugging Face folder (model, tokenizer, generation_config), completely or not at all."""
    model.generation_config = GenerationConfig(eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    with atomic_directory(path) as partial:
        model.save_pretrained(partial)
        tokens.save_pretrained(partial)
