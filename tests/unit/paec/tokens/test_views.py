"""What a page shows of a method is what `paec_loss` computes in training from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from token_records import record_of, reported, response_of

from paec_loss import PAEC, BatchMethod, competition, normalized_entropy, position_mask
from paec_loss.batch import Update
from paec_loss.methods import METHODS
from recipe.paec.run import token_record
from recipe.paec.tokens.settings import Named
from recipe.paec.tokens.sources import responses_of, rollouts_of, source_of
from recipe.paec.tokens.views import CLIP, details_of, difference_of, view_of


@pytest.fixture(scope="module")
def case():
    record = record_of(step=4)
    return source_of(record, 0, 10), responses_of(record, 10)


def named(name: str, **fields) -> Named:
    return Named(name, METHODS[name](**fields))


def test_paecs_mask_score_and_threshold(case):
    source, page = case
    config = PAEC(rho=0.6)
    view = view_of(Named("paec", config), source, page)
    rollouts, _ = rollouts_of(source, source.statistics[0.8], page)
    assert torch.equal(view.weights.values, position_mask(rollouts.statistics, rollouts.response_mask, config).double())
    above = (view.score > view.threshold[:, None]) & rollouts.response_mask
    assert torch.equal(above, view.weights.values > 0) and above.any()


def test_one_threshold_for_all(case):
    source, page = case
    view = view_of(Named("paec", PAEC(quantile_scope="mini_batch")), source, page)
    assert len(set(view.threshold.tolist())) == 1 and view.threshold.shape == (4,)


def test_a_method_of_the_actor_sees_what_it_sees_in_training(case):
    """The same lots: clip_cov draws by the response's number, the step and the seed."""
    source, page = case
    method = METHODS["clip_cov"](ratio=0.05, lower=-100.0, upper=100.0)
    view = view_of(Named("clip_cov", method), source, page)
    rollouts, numbers = rollouts_of(source, source.statistics[0.8], page)
    from paec_loss import Tokens

    tokens = Tokens(rollouts.statistics, rollouts.log_prob, rollouts.advantages, rollouts.response_mask, numbers)
    update = Update(step=4, seed=1, tokens=130, clip=method.clip(CLIP))
    dropped = method.prepare(tokens, update).among(tokens)
    assert dropped.sum() == 6 and torch.equal(view.weights.values == 0, dropped)


def test_what_is_missing_is_reported(case):
    source, page = case
    assert view_of(named("paec", top_p=0.9), source, page).reason == "needs a nucleus of mass 0.9, here is one of 0.8"
    assert view_of(named("seed_grpo"), source, page).reason == "needs which answers are equivalent"
    assert view_of(named("none"), source, page).weights is None


@dataclass(frozen=True)
class Mine(BatchMethod[float]):
    """Tokens above the mean entropy count twice."""

    def prepare(self, batch, update):
        return batch.mean(batch.entropy)

    def token_advantages(self, tokens, context, update):
        return torch.where(tokens.entropy.double() > context, 2.0, 1.0) * tokens.advantages


def test_a_method_of_the_users_own(case):
    source, page = case
    view = view_of(Named("Mine", Mine()), source, page)
    rollouts, _ = rollouts_of(source, source.statistics[0.8], page)
    inside = rollouts.response_mask
    high = rollouts.entropy[inside].double() > rollouts.mean(rollouts.entropy)
    assert torch.equal(view.weights.values[inside] == 2.0, high) and view.weights.neutral == 1


def test_the_numbers_of_a_token(case):
    source, _ = case
    config, statistics = PAEC(), source.statistics[0.8]
    found = details_of(source, config)
    assert torch.equal(found.normalized_entropy, normalized_entropy(statistics, config))
    assert torch.equal(found.competition, competition(statistics, config))
    assert torch.equal(found.nucleus_size, statistics.nucleus_size.double())


def test_another_nucleus_is_not_shown(case):
    source, _ = case
    found = details_of(source, PAEC(top_p=0.9))
    assert found.nucleus_entropy.isnan().all() and found.nucleus_size.isnan().all() and found.entropy.isfinite().all()


def test_where_vllm_and_the_actor_disagree(case):
    one = reported(response_of("000001-000000_0_0", 3), [0.25, np.nan, -2.0])
    (found,) = difference_of(source_of(record_of(responses=[one]), 0, 1)).tolist()
    assert found == pytest.approx([0.25, np.nan, -2.0], abs=1e-5, nan_ok=True)
    assert difference_of(case[0]) is None


def test_what_float16_changes(tmp_path):
    """A record rounds: PAEC's weights move by less than 0.02, and hardly any token changes sides."""
    responses = [response_of(f"000001-{p:06d}_{n}_0", 400, 8 * p + n) for p in range(2) for n in range(4)]
    exact = record_of(responses=responses)
    rounded = token_record.read(token_record.write(tmp_path, exact))
    masks = []
    for record in (exact, rounded):
        page = responses_of(record, 10)
        masks.append(view_of(named("paec"), source_of(record, 0, 10), page).weights.values.numpy())
    assert np.abs(masks[0] - masks[1]).max() < 0.02
    assert ((masks[0] > 0) != (masks[1] > 0)).mean() < 0.002
