"""Token statistics on their way through verl: packed, nested, padded."""

from __future__ import annotations

import torch
from tensordict import TensorDict

from paec_loss import token_statistics
from recipe.paec.actor.batches import (
    NUCLEUS,
    NUCLEUS_FIELDS,
    OUTPUT_NAMES,
    VERL_NAMES,
    pack,
    queued_statistics,
    response_statistics,
    unpack,
)

PROMPTS, RESPONSES, VOCAB = (3, 1, 2), (2, 4, 1), 70_000


def nested(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def test_statistics_arrive_as_they_left():
    """A row predicts the token after it, so a response's statistics are those of the rows one earlier."""
    torch.manual_seed(0)
    lengths = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    logits = torch.randn(sum(lengths), VOCAB)
    logits[0] = 0.0  # a nucleus of tens of thousands of tokens, whose number float32 holds exactly
    statistics = token_statistics(logits, torch.randint(VOCAB, (sum(lengths),)), top_p=0.8)
    assert {*VERL_NAMES, *NUCLEUS_FIELDS, "vocab_size"} == {*vars(statistics)}
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    output = unpack(pack(statistics), offsets)
    assert tuple(output) == OUTPUT_NAMES
    assert [output[name].dim() for name in OUTPUT_NAMES] == [2, 2, 3] and output[NUCLEUS].shape[2] == 5
    data = TensorDict(
        {"prompts": nested([torch.ones(n) for n in PROMPTS]), "responses": nested([torch.ones(n) for n in RESPONSES])},
        batch_size=3,
    )
    found = response_statistics(output, data, VOCAB)
    assert found.vocab_size == VOCAB and found.nucleus_size.dtype == torch.int64
    for name in (*VERL_NAMES, *NUCLEUS_FIELDS):
        values = getattr(found, name)
        assert values.shape == (3, 4), name
        for row, (first, prompt, response) in enumerate(zip(offsets, PROMPTS, RESPONSES, strict=False)):
            start = first + prompt - 1
            assert torch.equal(values[row, :response], getattr(statistics, name)[start : start + response]), name
            assert (values[row, response:] == 0).all()
    for field, name in (("log_prob", "old_log_probs"), ("entropy", "entropy")):  # cut to the responses by verl
        rows = [row[:n] for row, n in zip(getattr(found, field), RESPONSES, strict=True)]
        data[name] = nested(rows)
    data[NUCLEUS] = nested([row.clone() for row in output[NUCLEUS].unbind()])
    queued = queued_statistics(data, VOCAB)
    for name in (*VERL_NAMES, *NUCLEUS_FIELDS):
        assert torch.equal(getattr(queued, name), getattr(found, name)), name
