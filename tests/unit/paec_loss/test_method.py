"""The interface itself: its page, its template, hooks that only call super(), and what a class may say of itself."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from batches import assert_any_split, mini_batch_loss, random_batch, random_rollouts, update_of

from paec_loss import BatchMethod, Method, MethodStack, PAECConfig, Sampling
from paec_loss import method as page
from paec_loss.methods import METHODS, find
from paec_loss.methods import __main__ as catalogue
from paec_loss.methods.paec import PAEC

HOOKS = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")}
HOOKS -= {"at", "overrides"}


def template() -> str:
    """The method that the page shows: what is indented below its heading."""
    below = page.__doc__.split("A complete method:\n", 1)[1]
    return textwrap.dedent(re.match(r"(?:\n|    .*\n)+", below)[0]).strip() + "\n"


def test_the_template_works(tmp_path, monkeypatch):
    assert len([line for line in template().splitlines() if line.strip()]) <= 15
    (tmp_path / "my_template.py").write_text(template(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    kind = find("my_template.Calm")
    calm = kind(top=0.3)
    assert_any_split(calm)
    _, tokens = random_batch()
    seen = calm.token_advantages(tokens, calm.prepare(tokens, update_of(tokens, calm)), update_of(tokens, calm))
    left = (seen == 0)[tokens.response_mask]
    ordered = tokens.masked(tokens.entropy).sort().values
    assert 0 < left.sum() <= 0.3 * len(ordered) + 1
    assert tokens.masked(tokens.entropy)[left].min() == ordered[-int(left.sum())]
    none = SimpleNamespace(masked=lambda values: values, entropy=torch.zeros(0))
    many = SimpleNamespace(masked=lambda values: values, entropy=torch.arange(2**24 + 2, dtype=torch.int32))
    assert calm.prepare(none, None) == 0.0, "a rank, or a mini-batch, may have no token"
    assert kind(top=0.25).prepare(many, None) == round(0.75 * (2**24 + 2)) - 1, "torch.quantile takes 2**24 elements"
    with pytest.raises(ValueError, match=r"method.top=0: must be in \(0, 1\]; it is the share of the mini-batch's"):
        kind(top=0)


def test_the_docs_show_the_same_table_and_template():
    text = (Path(__file__).parents[3] / "docs" / "methods.md").read_text(encoding="utf-8")
    shown = [block for block in re.findall(r"```python\n(.*?)```", text, flags=re.S) if "class Calm" in block]
    assert [ast.dump(ast.parse(block)) for block in shown] == [ast.dump(ast.parse(template()))]
    table = page.__doc__.split("    I want to change ...", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table]
    below = text.split("| I want to change ... | override ... | acts on |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    assert [line.strip("|").split("|")[:2] for line in below] == [[f" {cell} " for cell in row] for row in rows]
    for row, line in zip(rows, below, strict=True):
        hook, letter = row[1].strip("`"), line.strip("| ").split("|")[-1].strip()
        assert letter == catalogue.HOOKS.get(hook, "O")


def test_the_page_names_every_hook_and_every_need():
    top = page.__doc__.split("A complete method:\n")[0]
    assert HOOKS == {name for name in HOOKS if f"`{name}`" in top}
    assert "`needs`" in top and "override ..." in top.splitlines()[2]
    assert {need for method in METHODS.values() for need in method.needs} <= page.NEEDS.keys()


def calls_super(name: str):
    def hook(self, *arguments):
        return getattr(BatchMethod, name)(self, *arguments)

    return hook


Same = dataclass(frozen=True)(type("Same", (BatchMethod,), {name: calls_super(name) for name in HOOKS}))


def test_hooks_that_call_super_change_nothing():
    """The base hooks are neutral: a method that overrides all of them has the loss and the advantages of `none`."""
    logits, tokens = random_batch()
    same, none = Same(), METHODS["none"]()
    assert all(same.overrides(hook) and not none.overrides(hook) for hook in HOOKS)
    losses = [mini_batch_loss(method, tokens) for method in (same, none)]
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in losses]
    assert losses[0] == losses[1] and torch.equal(*gradients) and gradients[0].abs().max() > 0
    stack, rollouts = MethodStack([same]), random_rollouts()
    assert torch.equal(stack.rewards(rollouts), rollouts.rewards)
    assert torch.equal(stack.advantages(rollouts), rollouts.advantages)
    assert (stack.trackers(), stack.sampling({})) == ({}, None)
    updates = [update_of(tokens, stack)]
    assert stack.metrics([None], stack.local_sums(tokens, [None], updates), updates) == {}


def test_what_a_hook_that_calls_super_makes_the_run_do():
    stack = MethodStack([Same()])
    assert stack.acts_in_actor and stack.own_surrogate and stack.needs_rollouts and stack.sources() == {"exact"}
    with pytest.raises(ValueError, match="and clip_higher each bring a clip range"):
        MethodStack([Same(), METHODS["clip_higher"]()])


def defined(**attributes) -> type[Method]:
    return type("Mine", (Method,), attributes)


def test_needs_are_words_of_one_list():
    assert defined(needs={"text", "reference"}).needs == {"text", "reference"}
    sentence = "Mine.needs={'clusters'}: 'clusters' must be one of text, token_texts, answer_ids, reference, curriculum"
    sentence += ", rewards"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        defined(needs={"clusters"})
    with pytest.raises(TypeError, match=r"""^Mine.needs='text': is a text: write needs = \{"text"\}$"""):
        defined(needs="text")


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("needs_reference", True, 'write needs = {"reference"}'),
        ("curriculum", True, 'write needs = {"curriculum"}'),
        ("report", lambda *_: [], "it is now called local_sums, and returns a dict"),
        ("carry", lambda *_: None, "this hook no longer exists"),
    ],
)
def test_former_names_are_refused(name, value, remedy):
    with pytest.raises(TypeError, match=f"^Mine.{name} has no effect: {re.escape(remedy)}$"):
        defined(**{name: value})


@dataclass(frozen=True)
class Sharper(PAEC):
    rho: float = 0.9


def test_another_default_keeps_meaning_and_range():
    assert (Sharper().rho, PAEC().rho, PAECConfig) == (0.9, 0.8, PAEC)
    assert Sharper(rho=0).rho == 0.0 and type(Sharper(rho=0).rho) is float
    with pytest.raises(ValueError, match=r"^method.rho=1: must be in \[0, 1\); it is the quantile of the score"):
        Sharper(rho=1)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_the_prompts(share):
    assert Sampling(0, 0.5) != Sampling(1, 0.5)
    with pytest.raises(
        ValueError, match=rf"^Sampling.share={share}: must be in \[0, 1\], the share of a step's prompts$"
    ):
        Sampling(share, 1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_of_sampling(temperature):
    with pytest.raises(ValueError, match=f"^Sampling.temperature={temperature}: must be positive and finite$"):
        Sampling(0.5, temperature)
