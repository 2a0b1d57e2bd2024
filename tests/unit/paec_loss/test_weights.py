"""Which tokens a method singles out: what its own hooks say, or one sentence on what is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from batches import CLIP, random_batch, random_rollouts

from paec_loss import BatchMethod, Method, position_mask
from paec_loss.batch import Update
from paec_loss.methods import METHODS
from paec_loss.weights import Missing, NoWeights, at_nucleus, weights_of

LENGTHS = (5, 1, 7, 3, 0, 6)


def batch(advantages: bool = True):
    """(rollouts, response_id): random responses; without advantages they have no rewards either."""
    rollouts = random_rollouts(0)
    rollouts = replace(rollouts, statistics=rollouts.statistics.detach())
    if not advantages:
        rollouts = replace(rollouts, advantages=None, rewards=None, answer_ids=None)
    return rollouts, torch.arange(len(rollouts.response_mask))


def update_of(method: Method, rollouts) -> Update:
    return Update(step=3, seed=1, tokens=int(rollouts.response_mask.sum()), clip=method.clip(CLIP))


def weights(method: Method, advantages: bool = True):
    rollouts, numbers = batch(advantages)
    return weights_of(method, rollouts, numbers, update_of(method, rollouts)), rollouts


def test_paec_is_its_mask():
    method = METHODS["paec"]()
    found, rollouts = weights(method)
    assert torch.equal(found.values, position_mask(rollouts.statistics, rollouts.response_mask, method).double())
    assert found.neutral == 0 and 0 < found.values.max() <= 1


def test_forking_tokens_are_those_of_highest_entropy():
    found, rollouts = weights(METHODS["forking_tokens"](rho=0.5), advantages=False)
    inside = rollouts.response_mask
    chosen = found.values[inside] == 1
    assert chosen.sum() == -(-int(inside.sum()) // 2)
    assert rollouts.entropy[inside][chosen].min() >= rollouts.entropy[inside][~chosen].max()


def test_a_factor_of_the_advantages():
    """agentic_aepo: 1 + weight z, whatever the advantages are, and also where they are 0."""
    method = METHODS["agentic_aepo"](weight=0.5)
    (found, rollouts), (same, _) = weights(method), weights(method, advantages=False)
    inside = rollouts.entropy[rollouts.response_mask].double()
    expected = 1 + 0.5 * (inside - inside.mean()) / inside.std()
    torch.testing.assert_close(found.values[rollouts.response_mask], expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(found.values, same.values) and found.neutral == 1
    assert (found.values[~rollouts.response_mask] == 1).all()


def test_a_shift_of_the_advantages():
    """hicra adds alpha |A| at the tokens of its phrases, for credit and blame alike."""
    rollouts, numbers = batch(advantages=False)
    words = [["but", " wait", " so"] + ["x"] * 10] * len(rollouts.response_mask)
    texts = [row[: int(n)] for row, n in zip(words, rollouts.lengths, strict=True)]
    method = METHODS["hicra"](alpha=0.25)
    found = weights_of(method, replace(rollouts, token_texts=texts), numbers, update_of(method, rollouts))
    long = rollouts.lengths >= 3
    assert found.neutral == 0
    expected = torch.tensor([[0.25, 0.25, 0.0]]).double().expand(int(long.sum()), 3)
    assert len(expected) == 6
    torch.testing.assert_close(found.values[long][:, :3], expected)
    assert found.values[:, 3:].abs().max() < 1e-12


def test_a_factor_that_depends_on_the_advantages():
    method = METHODS["entropy_advantage"]()
    found, rollouts = weights(method)
    inside, own = rollouts.response_mask, rollouts.advantages.double()
    expected = 1 + torch.minimum(0.4 * rollouts.entropy.double(), own.abs() / 2) / own
    nonzero = inside & (own != 0)
    torch.testing.assert_close(found.values[nonzero], expected[nonzero])
    assert (found.values[inside & (own == 0)] == 1).all()
    with pytest.raises(Missing, match="^needs the advantages of the responses$"):
        weights(method, advantages=False)


def test_a_uniform_bonus_is_the_same_everywhere():
    found, rollouts = weights(METHODS["entropy_bonus"](), advantages=False)
    assert (found.values[rollouts.response_mask] == 1).all() and found.neutral == 0


def test_kl_cov_marks_its_tokens():
    method = METHODS["kl_cov"](ratio=0.2)
    found, rollouts = weights(method)
    assert found.values.sum() == int(0.2 * rollouts.response_mask.sum()) == 7


def test_sent_marks_low_entropy_without_a_reference():
    method = METHODS["sent"](low_entropy=0.5, ratio=0.2)
    found, rollouts = weights(method)
    inside = rollouts.response_mask
    chosen = found.values[inside]
    assert (chosen > 0).sum() == 18 and (chosen == 2.0).sum() == 3 and (chosen == 0.5).sum() == 15
    assert rollouts.entropy[inside][chosen > 0].max() <= rollouts.entropy[inside][chosen == 0].min()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none", "adds nothing to the surrogate"),
        ("clip_higher", "changes the clip range only: at ratio 1 no token is clipped"),
        ("pear", "changes rewards of whole responses"),
        ("cispo", "its policy loss is the plain policy gradient at ratio 1"),
    ],
)
def test_methods_without_weights(name, sentence):
    with pytest.raises(NoWeights) as error:
        weights(METHODS[name]())
    assert str(error.value) == sentence


@pytest.mark.parametrize("name", ["clip_cov", "kl_cov", "sent", "steer", "canon", "w_reinforce"])
def test_what_needs_advantages_or_rewards_says_so(name):
    """Not silently the weights of advantages that are made up."""
    with pytest.raises(Missing, match="^needs the (advantages|rewards) of the responses$"):
        weights(METHODS[name](), advantages=False)


def test_a_coefficient_that_the_method_remembers():
    method = METHODS["entropy_adaptive"]()
    rollouts, numbers = batch()
    with pytest.raises(Missing, match=r"^needs what the method remembers of earlier steps \(coefficient\)$"):
        weights_of(method, rollouts, numbers, update_of(method, rollouts))
    update = replace(update_of(method, rollouts), tracker_signal={"coefficient": 0.0})
    with pytest.raises(NoWeights, match="^its loss term has no gradient at these tokens$"):
        weights_of(method, rollouts, numbers, update)
    update = replace(update, tracker_signal={"coefficient": 0.01})
    assert (weights_of(method, rollouts, numbers, update).values[rollouts.response_mask] == 1).all()


@dataclass(frozen=True)
class Remembered(Method):
    """Advantages times what the tracker says."""

    def advantages(self, rollouts):
        return rollouts.advantages * rollouts.tracker_signal["factor"]


def test_a_factor_of_the_advantages_that_the_method_remembers():
    rollouts, numbers = batch()
    update = update_of(Remembered(), rollouts)
    with pytest.raises(Missing, match=r"^needs what the method remembers of earlier steps \(factor\)$"):
        weights_of(Remembered(), rollouts, numbers, update)
    found = weights_of(Remembered(), rollouts, numbers, replace(update, tracker_signal={"factor": 1.5}))
    inside = found.values[rollouts.response_mask]
    torch.testing.assert_close(inside, torch.full_like(inside, 1.5), rtol=1e-9, atol=0)
    assert found.neutral == 1 and len(inside) == rollouts.response_mask.sum() > 0


def test_seed_grpo_needs_answers():
    rollouts, numbers = batch()
    method = METHODS["seed_grpo"]()
    with pytest.raises(Missing, match="^needs which answers are equivalent$"):
        weights_of(method, replace(rollouts, answer_ids=None), numbers, update_of(method, rollouts))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_weights_or_a_reason(name):
    method = METHODS[name]()
    try:
        found, rollouts = weights(method)
    except (Missing, NoWeights) as reason:
        assert str(reason)
        return
    assert found.values.shape == rollouts.response_mask.shape and found.meaning
    assert torch.isfinite(found.values).all()
    assert (found.values[~rollouts.response_mask] == found.neutral).all()


@dataclass(frozen=True)
class OwnLoss(BatchMethod[float]):
    """Policy gradient of A, halved above the mean entropy."""

    def prepare(self, batch, update):
        return batch.mean(batch.entropy)

    def policy_loss(self, tokens, context, update):
        factor = torch.where(tokens.entropy.detach() > context, 0.5, 1.0)
        return -factor * tokens.advantages * tokens.log_ratio.exp()


def test_a_users_policy_loss_is_a_factor_of_the_surrogates():
    found, rollouts = weights(OwnLoss(), advantages=False)
    inside = rollouts.response_mask
    high = rollouts.entropy[inside].double() > rollouts.mean(rollouts.entropy)
    assert found.values[inside].tolist() == pytest.approx(torch.where(high, 0.5, 1.0).tolist())


@dataclass(frozen=True)
class OwnTerm(Method):
    """A term on the tokens of entropy above one nat, which reads a reference policy."""

    reference: bool = False

    def loss_term(self, tokens, context, update):
        extra = 0.0 * tokens.ref_log_prob if self.reference else 0.0
        return tokens.total(torch.where(tokens.entropy > 1.0, 2 * tokens.entropy, 0.0) + extra)


def test_a_users_term_shows_where_it_acts():
    found, rollouts = weights(OwnTerm())
    inside = rollouts.response_mask
    assert found.values[inside].tolist() == (rollouts.entropy[inside] > 1.0).double().tolist()
    with pytest.raises(Missing, match="^needs the log-probs of a reference policy$"):
        weights(OwnTerm(reference=True))


def test_statistics_of_broken_logits_are_no_weights():
    rollouts, numbers = batch()
    statistics = rollouts.statistics.map(torch.Tensor.clone)
    statistics.nucleus_entropy[0, 0] = float("nan")
    method = METHODS["paec"]()
    with pytest.raises(Missing, match="a statistic of these tokens is NaN"):
        weights_of(method, replace(rollouts, statistics=statistics), numbers, update_of(method, rollouts))


def test_the_nucleus_is_the_methods():
    _, tokens = random_batch()
    statistics = tokens.statistics.detach()
    assert at_nucleus(statistics, 0.8, METHODS["paec"]()) is statistics
    with pytest.raises(Missing, match="^needs a nucleus of mass 0.8, here is none$"):
        at_nucleus(statistics, 1.0, METHODS["paec"]())
    with pytest.raises(Missing, match="^needs a nucleus of mass 0.9, here is one of 0.8$"):
        at_nucleus(statistics, 0.8, METHODS["paec"](top_p=0.9))
    whole = at_nucleus(replace(statistics, nucleus_entropy=statistics.entropy * 0), 0.8, METHODS["hapo"]())
    assert torch.equal(whole.nucleus_entropy, statistics.entropy) and (whole.nucleus_mass == 1).all()
    assert (whole.nucleus_size == statistics.vocab_size).all()
