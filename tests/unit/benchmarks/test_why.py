"""What is seen inside a training: kinds of tokens, the mask's mass, gradients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.lab import figures, why
from paec_loss import PAEC, position_mask, token_statistics
from recipe.lab import grpo


def test_kinds_of_a_response():
    text = "7-5=2,10*2=20;(7-5)*10"
    found = [why.KINDS[kind] for kind in why.kinds_of(text, len(text) + 1)]
    first, second = ["first number", "operator", "second number", "punctuation", "result"], ["punctuation"]
    assert found[:6] == first + second
    assert found[6:14] == ["first number"] * 2 + first[1:4] + ["result"] * 2 + second
    assert found[14:] == ["expression"] * 8 + ["end"]
    for bad, tokens in (("7-5=2;7-5", 10), ("", 1), (text, len(text)), ("7-5=2,1*2=2;", 13)):
        assert {why.KINDS[kind] for kind in why.kinds_of(bad, tokens)} == {"other"}, "cut off, or of another form"


def test_sums_over_tokens():
    torch.manual_seed(0)
    logits, inside = torch.randn(2, 3, 5) * 3, torch.tensor([[True, True, True], [True, True, False]])
    logits[0, 1] = torch.tensor([9.0, 0, 0, 0, 0])  # a nucleus of one token
    statistics = token_statistics(logits, torch.zeros(2, 3, dtype=torch.int64), top_p=PAEC().top_p)
    kinds, right = torch.tensor([[0, 1, 1], [0, 6, 0]]), torch.tensor([True, False])
    watch = why.Watch()
    watch.tokens(statistics, inside, kinds, right)
    found = watch.means()
    entropy, mask = statistics.entropy.double(), position_mask(statistics, inside, PAEC()).double()
    assert found["share"] == pytest.approx([0.4, 0.4, 0, 0, 0, 0, 0.2, 0])
    assert found["entropy"][1] == pytest.approx((entropy[0, 1] + entropy[0, 2]).item() / 2, abs=1e-5)
    assert found["mask"][0] == pytest.approx((mask[0, 0] + mask[1, 0]).item() / 2, abs=1e-5)
    total = mask[inside].sum().item()
    assert found["mass"][6] == pytest.approx(mask[1, 1].item() / total, abs=1e-5)
    assert sum(found["mass"]) == pytest.approx(1, abs=1e-4)
    assert found["right"] == pytest.approx(entropy[0].mean().item(), abs=1e-5)
    assert found["wrong"] == pytest.approx(entropy[1, :2].mean().item(), abs=1e-5)
    alone = (statistics.nucleus_size == 1) & inside
    assert alone[0, 1] and found["single"] == pytest.approx(mask[alone].sum().item() / total, abs=1e-5)
    assert "ratio" not in found


def test_gradients_by_hand():
    watch = why.Watch()
    watch.gradients(torch.tensor([0.0, 3.0]), torch.tensor([4.0, 3.0]))  # policy (4, 0): at right angles
    watch.gradients(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0]))  # policy (2, 0): against it
    watch.sums |= {"count": np.ones(8), "entropy": np.ones(8), "mask": np.ones(8)}
    watch.sums |= dict.fromkeys(("right", "wrong", "single"), np.ones(2))
    found = watch.means()
    assert (found["ratio"], found["cosine"]) == (pytest.approx((3 / 4 + 1 / 2) / 2), pytest.approx(-0.5))
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    other = torch.zeros(1, requires_grad=True)
    assert why.flat_gradient((p**2).sum(), [p, other]).tolist() == [2.0, 4.0, 0.0]
    assert why.flat_gradient(torch.tensor(1.0), [p]).tolist() == [0.0, 0.0]


def test_a_watched_step_is_a_step(small, task):
    """The same parameters bit for bit, and the term's gradient is there once the floor can act."""
    settings = small("method=paec", "method.anchor_steps=1", "method.rho_min=0.999", "method.lambda_low=1000")
    plain, seen, watch = grpo.started(settings), grpo.started(settings), why.Watch()
    for _ in range(2):
        grpo.step(plain, settings, task)
        why.watched_step(seen, settings, task, watch)
    for name, parameter in plain.policy.parameters.items():
        assert torch.equal(parameter, seen.policy.parameters[name]), name
    found = watch.means()
    assert found["ratio"] > 0 and -1 <= found["cosine"] <= 1
    assert sum(found["share"]) == pytest.approx(1, abs=1e-4) and found["share"][why.KINDS.index("operator")] > 0.05


def test_steps_are_whole_windows(capsys):
    with pytest.raises(SystemExit):
        why.main(["--steps", "40"])
    assert "--steps 40: must be a positive multiple of 25" in capsys.readouterr().err


def test_the_page(tmp_path):
    for method, seed, entropy in (("none", 1, 0.1), ("none", 2, 0.3), ("paec", 1, 0.4)):
        window = {name: [entropy + i / 8 for i in range(8)] for name in ("share", "entropy", "mask", "mass")}
        windows = {name: [value, value] for name, value in window.items()} | {"step": [25, 50]}
        numbers = {name: [entropy, 0.5] for name in ("right", "wrong", "single", "ratio", "cosine")}
        record = {"method": method, "seed": seed, "date": "2026-11-29", "cores": 2, **windows, **numbers}
        (tmp_path / f"{method}-seed{seed}.json").write_text(json.dumps(record))
    assert why.section(tmp_path) == "", "PAEC's second seed is missing"
    (tmp_path / "none-seed2.json").rename(tmp_path / "other.txt")
    text = why.section(tmp_path)
    assert "| operator | 0.53 | 0.53 | 0.225 | 0.225 | 0.525 |" in text
    assert "| PAEC: token entropy of wrong responses | 0.400 | 0.500 |" in text
    # Kinds 0.4, 0.525, 0.65 and then 0.775, 0.9 and 1.15 for result, punctuation and end.
    assert "158% of the mask's mass is at the numbers and operators" in text and "282.5% at results" in text
    assert "of PAEC's term is 0.400 of the policy loss's then and 0.50 in the last" in text
    figures.draw_why(why.read(tmp_path), tmp_path / "why.svg")
    drawn = (tmp_path / "why.svg").read_text()
    assert all(f"<!-- {words} -->" in drawn for words in ("operator, PAEC", "punctuation", "share of the tokens"))
    assert "seeds 1, means" in text and "2 cores, no GPU, 2026-11-29." in text
