"""Methods together: in the order given, whatever the split, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from batches import (
    CLIP,
    assert_any_split,
    detached,
    grpo,
    mini_batch_loss,
    random_batch,
    random_rollouts,
    rows,
    update_of,
)
from data_parallel_worker import trained
from ranks import torchrun

from paec_loss import Method, MethodStack, Update, token_statistics
from paec_loss.methods import METHODS
from paec_loss.methods.aepo import AEPO
from paec_loss.methods.canon import CANON
from paec_loss.methods.empg import EMPG
from paec_loss.methods.empo import EMPO
from paec_loss.methods.ettrl_advantage import ETTRLAdvantage
from paec_loss.methods.hicra import HICRA
from paec_loss.methods.paec import PAEC
from paec_loss.methods.pear import PEAR
from paec_loss.methods.seed_grpo import SEEDGRPO
from paec_loss.stack import BEFORE_THE_LOSS


def test_sums_reach_metrics_by_name():
    """PAEC's metrics of a mini-batch come from the sums of its parts, added by name."""
    _, tokens = random_batch()
    stack = MethodStack([METHODS["entropy_bonus"](), PAEC()])
    updates = [replace(update_of(tokens, stack), tracker_signal={"floor": 2.0})] * 2
    contexts = stack.prepare({"step": tokens}, updates)
    sums = stack.local_sums(tokens, contexts, updates)
    assert list(sums) == ["paec"] and sums["paec"]["tokens"] == int(tokens.response_mask.sum())
    found = stack.metrics(contexts, sums, updates)
    assert found["paec/update_selected_entropy"] == pytest.approx(contexts[1].before, rel=1e-12)
    assert found["paec/update_mask_mass"] == sums["paec"]["mass"] / sums["paec"]["tokens"]
    doubled = {"paec": {name: 2 * value for name, value in sums["paec"].items()}}
    assert stack.metrics(contexts, doubled, updates) == pytest.approx(found, rel=1e-12)


FORKING, KL_COV = METHODS["forking_tokens"](rho=0.5), METHODS["kl_cov"](ratio=0.3)
ADVANTAGE, STEER = METHODS["entropy_advantage"](), METHODS["steer"]()
BONUS, HIGHER = METHODS["entropy_bonus"](coefficient=0.1), METHODS["clip_higher"]()
SENT = METHODS["sent"](ratio=0.3)


@pytest.mark.parametrize(
    "methods", [[ADVANTAGE, STEER, BONUS], [FORKING, KL_COV, ADVANTAGE, BONUS], [ADVANTAGE, SENT, HIGHER]]
)
def test_any_split(methods):
    assert_any_split(methods)


def test_terms_add_up():
    _, tokens = random_batch()
    plain, first, second = (mini_batch_loss(m, tokens).item() for m in (METHODS["none"](), BONUS, SENT))
    assert mini_batch_loss([BONUS, SENT], tokens).item() == pytest.approx(first + second - plain, rel=1e-12)


def test_advantages_pass_from_one_to_the_next():
    """STEER behind entropy_advantage weighs, and takes its maximum over, the advantages that that one leaves."""
    _, tokens = random_batch()
    update = update_of(tokens, STEER)
    shaped = replace(tokens, advantages=ADVANTAGE.token_advantages(tokens, None, update))
    context = STEER.prepare(detached(shaped), update)
    expected = STEER.token_advantages(shaped, context, update)
    stack = MethodStack([ADVANTAGE, STEER])
    contexts = stack.prepare({"exact": detached(tokens)}, [update, update])
    assert contexts == [None, context] and context != STEER.prepare(detached(tokens), update)
    found = stack.token_advantages(tokens, contexts, [update, update])
    inside = tokens.response_mask
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-12, atol=0)


@pytest.mark.parametrize("owner", [METHODS["bapo"](), KL_COV, FORKING, METHODS["archer"]()])
def test_the_loss_does_not_depend_on_the_place_of_its_owner(owner):
    """It prepares on the advantages that it is a loss of, wherever it stands beside methods that change them."""
    _, tokens = random_batch()
    names = [name for name, kind in sorted(METHODS.items()) if kind().overrides("token_advantages")]
    signals = {"repo_r": {"zeta": 0.5}, "stare": {"positive": 1.1, "negative": 0.9}}
    compared = 0
    for name in names:
        other, found = METHODS[name](), []
        for methods in ([owner, other], [other, owner]):
            try:
                stack = MethodStack(methods)
            except ValueError as error:
                assert re.search("policy loss|clip range", str(error))
                break
            updates = stack.updates(update_of(tokens, stack), {name: signals.get(name, {})})
            found.append(stack.loss(tokens, updates).item())
        if len(found) == 2:
            assert found[0] == pytest.approx(found[1], rel=1e-12), name
            compared += 1
    assert compared > 1


def test_bapo_is_balanced_at_the_advantages_of_its_loss():
    """Advantages that entropy_advantage enlarges fivefold change the bounds, behind bapo as well."""
    _, tokens = random_batch(4)
    shaping, bapo = METHODS["entropy_advantage"](alpha=5.0), METHODS["bapo"]()
    update = update_of(tokens, bapo)
    stack = MethodStack([bapo, shaping])
    bounds, _ = stack.prepare({"exact": detached(tokens)}, [update, update])
    shaped = replace(detached(tokens), advantages=shaping.token_advantages(tokens, None, update))
    assert bounds == bapo.prepare(shaped, update) != bapo.prepare(detached(tokens), update)


@dataclass(frozen=True)
class InPlace(Method):
    """Changes what it is given, and returns it."""

    def rewards(self, rollouts):
        return rollouts.rewards.mul_(2)

    def advantages(self, rollouts):
        return rollouts.advantages.add_(rollouts.rewards.neg_()[:, None])

    def response_value(self, rollouts):
        return rollouts.rewards.add_(rollouts.advantages.zero_()[:, 0])

    def token_advantages(self, tokens, context, update):
        return tokens.advantages.mul_(3)

    def local_sums(self, tokens, context, update):
        return {"advantages": tokens.total(tokens.advantages).item()}


def test_a_hook_may_change_what_it_is_given_in_place():
    """Nobody else sees it: each result is of the values given."""
    stack, rollouts = MethodStack([InPlace()]), random_rollouts()
    rewards, advantages = rollouts.rewards.clone(), rollouts.advantages.clone()
    assert torch.equal(stack.rewards(rollouts), 2 * rewards)
    assert torch.equal(stack.advantages(rollouts), advantages - rewards[:, None])
    assert torch.equal(stack.response_value(rollouts), rewards.float())
    assert torch.equal(rollouts.rewards, rewards) and torch.equal(rollouts.advantages, advantages)
    _, tokens = random_batch()
    given, updates = tokens.advantages.clone(), [update_of(tokens, stack)]
    contexts = stack.prepare({"exact": detached(tokens), "step": tokens}, updates)
    sums = stack.local_sums(tokens, contexts, updates)
    assert sums[stack.names[0]]["advantages"] == tokens.total(given).item()
    assert torch.equal(stack.token_advantages(tokens, contexts, updates), 3 * given)
    assert torch.equal(tokens.advantages, given)


def test_a_term_sees_what_its_statistics_saw():
    """SENT's covariance behind entropy_advantage is of the same advantages as its threshold."""
    _, tokens = random_batch()
    update = update_of(tokens, SENT)
    shaped = replace(tokens, advantages=ADVANTAGE.token_advantages(tokens, None, update))
    expected = SENT.loss_term(shaped, SENT.prepare(detached(shaped), update), update)
    stack = MethodStack([ADVANTAGE, SENT])
    contexts = stack.prepare({"exact": detached(tokens)}, [update, update])
    assert stack.loss_term(tokens, contexts, [update, update]).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["kl_cov", "hapo"], "kl_cov and hapo each bring a policy loss"),
        (["clip_cov", "steer"], "clip_cov and steer each bring a clip range"),
        (["kl_cov", "clip_higher"], "clip_higher brings a clip range, and kl_cov a policy loss without one:"),
        (["empo", "pear"], "empo and pear each bring a reward"),
        (["paec", "clip_higher", "paec"], "also=paec: paec is already active"),
    ],
)
def test_refused(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        MethodStack([METHODS[name]() for name in names])


@pytest.mark.parametrize("methods", [[ADVANTAGE, STEER, BONUS], [FORKING, KL_COV], [SENT], [METHODS["none"]()]])
def test_the_loss_in_one_piece(methods):
    _, tokens = random_batch()
    stack = MethodStack(methods)
    loss = stack.loss(tokens, update_of(tokens, stack))
    torch.testing.assert_close(loss, mini_batch_loss(methods, tokens, [[2, 4], [0], [5, 1, 3]]), rtol=1e-12, atol=0)


def codes_of_the_page(call: str = "stack.loss(") -> list[str]:
    """The examples of docs/methods.md with this call: two of `stack.loss`, and one of its parts."""
    page = (Path(__file__).parents[3] / "docs" / "methods.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.S) if call in block]


def test_the_page_shows_it():
    """The code of docs/methods.md, run unchanged."""
    code, _ = codes_of_the_page()
    logits, tokens = random_batch()
    given = dict(logits=logits, labels=torch.zeros(tokens.response_mask.shape, dtype=torch.long))
    given |= dict(old_log_prob=tokens.old_log_prob, advantages=tokens.advantages, response_mask=tokens.response_mask)
    exec(code, given)
    given["loss"].backward()
    assert torch.isfinite(given["loss"]) and logits.grad.abs().max() > 0


def test_the_page_shows_paec_over_two_steps():
    """Step 1 measures the anchor; step 2 is below the floor of .8 of it, and its loss and gradient have the penalty."""
    _, code = codes_of_the_page()
    found: dict = {}
    exec(code, found)
    stack, update, tokens = found["stack"], found["update"], found["tokens"]
    floor, hbar = found["signals"]["paec"]["floor"], found["metrics"]["paec/selected_entropy"]
    assert floor == pytest.approx(0.8 * found["metrics"]["paec/anchor"], rel=1e-12) and hbar < floor - 0.03
    without = stack.loss(tokens, stack.updates(update, {}))  # lambda_ent = .001 alone
    assert (found["loss"] - without).item() == pytest.approx(-2 * (floor - hbar) * hbar, rel=1e-5)
    assert stack.loss(tokens, replace(update, tracker_signal={"floor": floor})) == found["loss"]


@pytest.mark.parametrize("names", [["paec"], ["clip_cov", "entropy_bonus"], ["forking_tokens"]])
def test_the_page_shows_micro_batches(names):
    """Behind the second example, in the first update of another step: the gradient of `stack.loss` in one piece."""
    (_, two_steps), (loop,) = codes_of_the_page(), codes_of_the_page("stack.loss_term(")
    found: dict = {}
    exec(two_steps, found)
    logits, stack = found["logits"], MethodStack([METHODS[name]() for name in names])
    found |= {"stack": stack, "signals": {"paec": {"floor": 3.0}} if names == ["paec"] else {}}
    now = token_statistics(logits, found["labels"], top_p=stack.top_p)
    found |= {"start": now.detach(), "policy": lambda rows: logits[rows]}
    tokens = replace(found["tokens"], statistics=now, old_log_prob=now.log_prob.detach())
    updates = stack.updates(found["update"], found["signals"])
    (whole,) = torch.autograd.grad(stack.loss(tokens, updates), logits)
    exec(loop, found)
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(logits.grad, whole, rtol=1e-5, atol=1e-8)
    if names == ["paec"]:
        assert found["contexts"][0].coefficient > 0.05


def test_the_page_over_data_parallel_ranks(tmp_path):
    """Two ranks under DDP end with the weights of one process; the floor's gradient is part of them."""
    (loop,) = codes_of_the_page("stack.loss_term(")
    assert "torch.arange(8).split(2)" in loop and "loss.backward()" in loop
    (tmp_path / "loop.py").write_text(loop, encoding="utf-8")
    torchrun("data_parallel_worker.py", 2, tmp_path, timeout=500)
    weights, coefficient = trained(loop)
    assert coefficient < -0.1
    for rank in (0, 1):
        ours, same = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(ours, weights, rtol=1e-5, atol=1e-6)
        assert same == pytest.approx(coefficient, rel=1e-5)


def test_a_part_of_the_mini_batch_is_refused():
    """PAEC's Hbar would be that of the part, and the terms of all parts would be too large."""
    _, tokens = random_batch()
    count = int(tokens.response_mask.sum())
    for names in (["paec"], ["none"]):
        stack = MethodStack([METHODS[name]() for name in names])
        update = Update(3, 1, count, CLIP, {"floor": 2.0})
        assert torch.isfinite(stack.loss(tokens, update))
        part = rows(tokens, torch.tensor([0, 2]))
        with pytest.raises(ValueError) as caught:
            stack.loss(part, update)
        assert str(caught.value) == (
            f"update.tokens is {count}, and these responses have 12 tokens: stack.loss takes the whole mini-batch; for "
            "a part of it call stack.prepare with all of it first, then the hooks (docs/methods.md, "
            '"Micro-batches and ranks")'
        )


def test_statistics_of_another_nucleus():
    """They are refused where a method reads the nucleus, and taken where it is not known."""
    logits, tokens = random_batch()
    labels = torch.zeros(tokens.response_mask.shape, dtype=torch.long)
    update = Update(3, 1, int(tokens.response_mask.sum()), CLIP, {"floor": 2.0})

    def seen(top_p: float):
        return replace(tokens, statistics=token_statistics(logits, labels, top_p=top_p))

    stack = MethodStack([PAEC(), BONUS])
    right, wrong = seen(0.8), seen(1.0)
    assert torch.isfinite(stack.loss(right, update))
    sentence = (
        "the statistics have top_p=1.0, and paec and entropy_bonus a nucleus of 0.8: write token_statistics(..., "
        "top_p=stack.top_p)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        stack.loss(wrong, update)
    unknown = replace(wrong, statistics=replace(wrong.statistics))
    assert unknown.statistics.top_p is None and torch.isfinite(stack.loss(unknown, update))
    assert torch.equal(MethodStack([BONUS]).loss(right, update), MethodStack([BONUS]).loss(wrong, update))


@pytest.mark.parametrize("given", [["paec"], [PAEC], PAEC(), [], "paec", [PAEC(), None]])
def test_what_is_no_method(given):
    sentence = "methods must be Method instances, at least one: write MethodStack([METHODS['paec']()])"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        MethodStack(given)


class Undecorated(Method):
    """Its field is a class attribute, so that another value could not be given."""

    alpha: float = 0.1

    def loss_term(self, tokens, context, update):
        return self.alpha * tokens.total(tokens.entropy)


def test_a_class_of_ones_own_is_checked():
    name = f"{Undecorated.__module__}.Undecorated"
    with pytest.raises(TypeError, match=rf"^{re.escape(name)}: Undecorated has fields \(alpha\): write @dataclass"):
        MethodStack([Undecorated()])
    hookless = type("Hookless", (Method,), {"__module__": "own"})
    with pytest.raises(TypeError, match="^own.Hookless: overrides no hook, so it would train plain GRPO: override"):
        MethodStack([hookless()])


def test_a_method_that_acts_before_the_loss_needs_its_signal():
    """Methods whose floor, controller or advantages would be left out silently; an empty signal is one."""
    _, tokens = random_batch()
    update = Update(3, 1, int(tokens.response_mask.sum()), CLIP)
    acting = {"paec", "paec_dual", "paec_selective", "siren", "epo", "entropy_adaptive", "stare", "repo_r", "aer"}
    acting |= {"pass_at_k", "unlikeliness", "adaptive_clip", "ares", "aepo"}
    for name, kind in METHODS.items():
        stack = MethodStack([kind()])
        before = [hook for hook in BEFORE_THE_LOSS if stack.has(hook)]
        assert before or name not in acting
        if not before:
            assert torch.isfinite(stack.loss(tokens, update))
            continue
        with pytest.raises(ValueError, match=f"^{name} also acts before the loss: in each step call ") as raised:
            stack.loss(tokens, update)
        assert all(BEFORE_THE_LOSS[hook] in str(raised.value) for hook in before)
        with pytest.raises(ValueError, match=f"^{name} also acts before the loss"):
            stack.prepare({"exact": tokens, "step": tokens}, [update])
    for name in ("paec", "paec_dual", "siren", "epo", "pass_at_k"):  # which have none in the first steps, or never
        assert torch.isfinite(MethodStack([METHODS[name]()]).loss(tokens, replace(update, tracker_signal={})))


def test_every_method_has_its_own_signal():
    _, tokens = random_batch()
    stack = MethodStack([PAEC(), METHODS["repo_r"](), METHODS["entropy_bonus"]()])
    update = Update(3, 1, int(tokens.response_mask.sum()), CLIP)
    updates = stack.updates(update, {"repo_r": {"zeta": 0.5}, "paec": {"floor": 2.0}})
    assert [dict(one.tracker_signal) for one in updates] == [{"floor": 2.0}, {"zeta": 0.5}, {}]
    assert torch.isfinite(stack.loss(tokens, updates))
    with pytest.raises(ValueError, match="signals has floor, which is not a method of this stack: write signals = {"):
        stack.updates(update, {"floor": 2.0})


def test_one_signal_for_two_trackers():
    """siren would take PAEC's floor as its own; one tracker, or no signal yet, is no such case."""
    _, tokens = random_batch()
    update = Update(3, 1, int(tokens.response_mask.sum()), CLIP, {"floor": 2.0})
    stack = MethodStack([PAEC(), METHODS["siren"]()])
    with pytest.raises(ValueError, match=r"^tracker_signal would be read by paec and siren, .* give the loss stack"):
        stack.loss(tokens, update)
    each = stack.updates(update, {"paec": {"floor": 2.0}, "siren": {"floor": 1.0}})
    for accepted in (each, replace(update, tracker_signal={})):
        assert torch.isfinite(stack.loss(tokens, accepted))
    assert torch.isfinite(MethodStack([PAEC(), BONUS]).loss(tokens, update))


def test_a_number_of_every_response_that_is_missing():
    _, tokens = random_batch()
    stack = MethodStack([METHODS["aer"]()])
    update = stack.updates(update_of(tokens, stack), {"aer": {"alpha": 0.1}})
    assert torch.isfinite(stack.loss(tokens, update))
    with pytest.raises(ValueError, match=r"^aer needs a number of every response: write Tokens\(\.\.\., resp"):
        stack.loss(replace(tokens, response_value=None), update)


def test_a_clip_range_for_a_policy_loss_that_has_one():
    stack = MethodStack([METHODS["hapo"](), HIGHER])
    assert stack.clip(update_of(random_batch()[1], METHODS["none"]()).clip).high == 0.28


def test_the_order_is_that_of_the_stack():
    rollouts = random_rollouts()
    first, second = ETTRLAdvantage(), EMPG()
    expected = second.advantages(replace(rollouts, advantages=first.advantages(rollouts)))
    torch.testing.assert_close(MethodStack([first, second]).advantages(rollouts), expected, rtol=0, atol=0)
    assert (MethodStack([second, first]).advantages(rollouts) - expected).abs().max() > 0.01


@dataclass(frozen=True)
class Told(Method):
    """Adds what its tracker says to everything it makes on the driver."""

    def rewards(self, rollouts):
        return rollouts.rewards + rollouts.tracker_signal.get("told", 100.0)

    def advantages(self, rollouts):
        return rollouts.advantages + rollouts.tracker_signal.get("told", 100.0)

    def response_value(self, rollouts):
        return rollouts.rewards + rollouts.tracker_signal.get("told", 100.0)


@dataclass(frozen=True)
class Other(Method):
    """A second one that changes advantages, with a signal of its own."""

    def advantages(self, rollouts):
        return 2 * rollouts.advantages + rollouts.tracker_signal["told"]


def test_every_method_on_the_driver_has_its_own_signal():
    stack, rollouts = MethodStack([Told(), Other()]), random_rollouts()
    signals = dict(zip(stack.names, ({"told": 3.0}, {"told": 5.0}), strict=True))
    assert torch.equal(stack.rewards(rollouts, signals), rollouts.rewards + 3)
    assert torch.equal(stack.advantages(rollouts, signals), 2 * (rollouts.advantages + 3) + 5)
    assert torch.equal(stack.response_value(rollouts, signals), (rollouts.rewards + 3).float())
    assert rollouts.tracker_signal == {}
    alone = MethodStack([Told()])
    assert torch.equal(alone.rewards(rollouts), rollouts.rewards + 100)  # without trackers
    assert torch.equal(alone.advantages(rollouts, {"another": {"told": 1.0}}), rollouts.advantages + 100)


def test_a_tracker_that_reads_rewards():
    """`needs` says so; the others' rewards are not read."""
    memory, reads = METHODS["epo"](), METHODS["ares"]()
    assert not MethodStack([memory]).reads_rewards and MethodStack([memory, METHODS["pear"]()]).reads_rewards
    only_needs = type("OnlyNeeds", (Graded,), {"needs": {"rewards"}})()
    assert MethodStack([only_needs]).reads_rewards and "rewards" in MethodStack([memory, reads]).needs


def test_needs_are_collected():
    stack = MethodStack([SEEDGRPO(), EMPG(), AEPO()])
    assert stack.needs == {"answer_ids", "token_texts"}
    assert stack.needs_rollouts
    assert list(stack.trackers()) == ["aepo"]


def test_advantages_of_its_own_come_first():
    MethodStack([CANON(), HICRA(), EMPG()])
    with pytest.raises(ValueError, match="canon makes its own .* discard those of hicra and empg: name it first"):
        MethodStack([HICRA(), EMPG(), CANON()])
    with pytest.raises(ValueError, match="seed_grpo makes its own .* discard those of canon"):
        MethodStack([CANON(), SEEDGRPO()])


def test_one_reward():
    with pytest.raises(ValueError, match="pear and empo each bring a reward"):
        MethodStack([PEAR(), EMPO()])


def having(hook: str) -> list[str]:
    """Names of the catalogue's methods that override a hook."""
    return [name for name, kind in sorted(METHODS.items()) if kind().overrides(hook)]


@pytest.mark.parametrize("rewarding", having("rewards"))
def test_rewards_reach_the_advantages_of_every_method_beside_them(rewarding):
    """Or the pair is refused: pass_at_k would count all rewards above 0, whatever they mean."""
    rollouts = random_rollouts()
    answers = torch.tensor([0, 0, 1, 0, 2, 1, 0, 1, 0])  # in group 4: 0, 1, 2, 1, 0
    theta = {"theta": 0.5, **{f"target_{kind}": 2.0 for kind in ("easy", "medium", "hard")}}
    signal = theta | {f"alpha_{kind}": 0.5 for kind in ("easy", "medium", "hard")}
    rollouts = replace(rollouts, answer_ids=answers)

    def made(*names: str) -> torch.Tensor:
        stack = MethodStack([METHODS[name](**({"k": 1} if name == "pass_at_k" else {})) for name in names])
        signals = {"ares": signal} if "ares" in names else {}
        rewards = stack.rewards(rollouts, signals)
        estimate = torch.where(rollouts.response_mask, grpo(rewards, rollouts.group_id)[:, None], 0.0)
        return stack.advantages(replace(rollouts, rewards=rewards, advantages=estimate), signals)

    refused = []
    for name in having("advantages"):
        try:
            found = made(name, rewarding)
        except ValueError as error:
            assert str(error) == (
                f"{name} needs rewards of 1 for right and 0 for wrong responses, and {rewarding} makes others: leave "
                "one of them out"
            )
            refused.append(name)
            continue
        assert found.abs().max() > 0 and not torch.equal(found, made(name)), name
    assert refused == ([] if rewarding in ("spurious", "ttrl") else ["pass_at_k"])


@dataclass(frozen=True)
class Graded(Method):
    """Asks for the rewards, and has no hook on the driver."""

    needs = {"rewards"}

    def loss_term(self, tokens, context, update):
        return tokens.total(tokens.entropy) * 0


def test_a_method_that_asks_for_rewards_needs_the_responses():
    stack = MethodStack([Graded()])
    assert stack.reads_rewards and stack.needs_rollouts
    assert not MethodStack([BONUS]).needs_rollouts


def test_the_whole_vocabulary_is_a_nucleus_of_its_own():
    """Where a method has the field; a method without one takes the other's."""
    with pytest.raises(ValueError, match=re.escape("paec, siren need nuclei of different mass [0.8, 1.0]")):
        MethodStack([PAEC(top_p=1.0), METHODS["siren"]()]).top_p  # noqa: B018
    assert MethodStack([PAEC(top_p=1.0), METHODS["siren"](top_p=1.0)]).top_p == 1.0
    assert MethodStack([BONUS, PAEC(top_p=0.9)]).top_p == 0.9 and MethodStack([BONUS]).top_p == 1.0
