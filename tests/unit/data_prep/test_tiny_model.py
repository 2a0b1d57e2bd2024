"""The quick start's model and tokenizer, as the Auto classes load them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from data_prep import tasks, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "model"
    tiny_model.build(path, seed=3)
    return path


@pytest.fixture(scope="module")
def tokens(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_every_byte_is_one_token_with_its_own_id(tokens):
    ascii_text = "".join(map(chr, range(128)))
    assert tokens(ascii_text)["input_ids"] == list(range(128))
    assert tokens.decode(list(range(128))) == ascii_text
    text = "".join(map(chr, range(256))) + "€ 𝄞\r\n\n  it's 123"
    assert tokens(text)["input_ids"] == list(text.encode())
    assert tokens.decode(tokens(text)["input_ids"]) == text
    # Bytes that no UTF-8 text holds have a token too.
    assert tokens.convert_ids_to_tokens(list(range(256))) == tiny_model.byte_alphabet()
    assert len(set(tiny_model.byte_alphabet())) == 256


def test_merges_make_tokens_behind_the_specials(tmp_path):
    """Learned with Qwen2's pre-tokenizer: no merge joins two words or two digits; and they survive saving."""
    text = "Ana has 12 pens.\n\nThe answer is \\boxed{12}."
    merges = tiny_model.learn_merges([text] * 9 + ["Ana"], 20)
    assert len(merges) == 20 and tiny_model.learn_merges([text], 0) == []
    tiny_model.build(tmp_path / "model", merges=merges)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokens) == 279 == AutoConfig.from_pretrained(tmp_path / "model").vocab_size
    assert tokens.convert_tokens_to_ids(["A", "<|endoftext|>", "<|im_end|>"]) == [65, 256, 258]
    ids = tokens(text)["input_ids"]
    assert tokens.decode(ids) == text and max(ids) > 258 and len(ids) < len(text)
    assert {"1", "2"} <= set(tokens.tokenize(text))
    assert ids == tiny_model.tokenizer(merges)(text)["input_ids"]


def test_alphabet_is_that_of_byte_level_bpe():
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(tiny_model.byte_alphabet()) == set(ByteLevel.alphabet())


def test_specials(tokens):
    assert tokens.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [256, 257, 258]
    assert (tokens.pad_token_id, tokens.eos_token_id, tokens.bos_token_id) == (256, 258, None)
    assert tokens.decode([257, 65, 258, 256], skip_special_tokens=True) == "A"


def test_chat_template(tokens):
    ids = tokens.apply_chat_template(
        [{"role": "user", "content": "7 5 1 > 2"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert ids == [257, *b"user\n7 5 1 > 2", 258, *b"\n", 257, *b"assistant\n"]
    turns = [{"role": r, "content": c} for r, c in (("system", "S"), ("user", "U"), ("assistant", "A"))]
    assert tokens.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    )


def test_model(folder, tokens):
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert config.model_type == "qwen2"
    assert config.vocab_size == len(tokens) == 259
    assert config.hidden_size // config.num_attention_heads == 32
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (3, 128, 384)
    assert config.max_position_embeddings == 512
    assert config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == 674_176
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.eos_token_id, generation.pad_token_id) == (258, 256)


def test_llama(tmp_path, tokens):
    """The same tokenizer, although the architecture is another one, and five times the parameters."""
    tiny_model.build(tmp_path / "model", seed=3, shape="llama")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert config.model_type == "llama" and config.head_dim == 32
    # Embeddings, 4 layers of attention and MLP, two norms each, and the last one.
    expected = 259 * 256 + 4 * (4 * 256**2 + 3 * 256 * 768 + 2 * 256) + 256
    assert sum(p.numel() for p in model.parameters()) == expected == 3_476_480
    own, text = AutoTokenizer.from_pretrained(tmp_path / "model"), "7 5 1 > 2 €  it's\n"
    assert own(text)["input_ids"] == list(text.encode()) == tokens(text)["input_ids"]
    assert own.decode(own(text)["input_ids"]) == text
    assert (own.eos_token_id, own.pad_token_id, own.bos_token_id) == (258, 256, None)
    assert own.chat_template == tokens.chat_template
    assert {*tiny_model.SHAPES} == {*tasks.MODELS}


def test_seed_decides_the_weights(folder, tmp_path):
    tiny_model.build(tmp_path / "same", seed=3)
    tiny_model.build(tmp_path / "other", seed=4)
    weights = [(path / "model.safetensors").read_bytes() for path in (folder, tmp_path / "same", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]


def test_existing_folder_is_not_overwritten(folder):
    with pytest.raises(FileExistsError, match="already exists"):
        tiny_model.build(folder)
