"""The measured entropy, the anchor, and the identity that makes the loss independent of how a mini-batch is split."""

import itertools
import json
import math

import pytest
import torch

from paec_loss import (
    EntropyAnchor,
    Measurement,
    PAECConfig,
    entropy_term,
    measure,
    penalty_coefficient,
    penalty_value,
    position_mask,
    position_score,
    position_threshold,
    regularized_entropy,
    token_statistics,
)

torch.set_num_threads(1)

NAN = math.nan
ROWS, LENGTH, VOCAB = 6, 10, 9


def data(seed=0):
    """Logits [B, L, V] float64, labels and a response mask with an empty row."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(ROWS, LENGTH, 1, generator=generator, dtype=torch.float64) * 4
    logits = torch.randn(ROWS, LENGTH, VOCAB, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(VOCAB, (ROWS, LENGTH), generator=generator)
    response_mask = (torch.rand(ROWS, LENGTH, generator=generator) < 0.8).long()
    response_mask[3] = 0
    return logits, labels, response_mask


def statistics(logits, labels, config):
    return token_statistics(logits, labels, top_p=config.top_p)


def oracle_entropy(row, config):
    """E_t of one row of logits [V], differentiable, by its definition."""
    log_p = torch.log_softmax(row, -1)
    if config.entropy == "full":
        return -(log_p.exp() * log_p).sum()
    order = row.detach().argsort(descending=True).tolist()
    nucleus, before = [], 0.0
    for j in order:
        if before < config.top_p:
            nucleus.append(j)
        before += log_p[j].exp().item()
    log_q = torch.log_softmax(row[nucleus], -1)
    entropy = -(log_q.exp() * log_q).sum()
    if config.entropy == "nucleus":
        return entropy
    return entropy / math.log(len(nucleus)) if len(nucleus) > 1 else entropy * 0


def oracle_selected_entropy(logits, mask, response_mask, config):
    """Hbar over the whole batch in loops, differentiable in the logits."""
    weighted, mass, tokens = torch.zeros((), dtype=torch.float64), 0.0, 0
    for i, j in itertools.product(range(ROWS), range(LENGTH)):
        if response_mask[i, j]:
            weighted = weighted + mask[i, j].item() * oracle_entropy(logits[i, j], config)
            mass += mask[i, j].item()
            tokens += 1
    return weighted / (mass if config.average == "mass" else (1 - config.rho) * tokens)


CONFIGS = [
    PAECConfig(average=average, penalty=penalty, entropy=entropy, quantile_scope=scope)
    for average, penalty, entropy, scope in [
        ("count", "floor", "full", "response"),
        ("count", "two_sided", "full", "mini_batch"),
        ("mass", "floor", "nucleus", "mini_batch"),
        ("mass", "two_sided", "full", "response"),
        ("count", "floor", "normalized", "response"),
        ("mass", "floor", "normalized", "response"),
    ]
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.average}-{c.penalty}-{c.entropy}-{c.quantile_scope}")
@pytest.mark.parametrize("gap", [0.25, -0.25])
@pytest.mark.parametrize("split", [[6], [1] * 6, [2, 3, 1], [4, 2]])
def test_surrogate_has_the_gradient_of_the_loss_over_any_split(config, gap, split):
    logits, labels, response_mask = data()
    full = statistics(logits, labels, config)
    mask = position_mask(full, response_mask, config)

    leaf = logits.clone().requires_grad_()
    selected = oracle_selected_entropy(leaf, mask, response_mask, config)
    floor = selected.item() + gap
    distance = floor - selected
    if config.penalty == "floor":
        distance = distance.clamp_min(0)
    (expected,) = torch.autograd.grad(-config.lambda_ent * selected + config.lambda_low * distance**2, leaf)

    threshold = None
    if config.quantile_scope == "mini_batch":
        threshold = position_threshold(position_score(full, config), response_mask, config)
    parts = [slice(end - size, end) for size, end in zip(split, itertools.accumulate(split), strict=True)]
    measured = Measurement(0.0, 0.0, 0, None if threshold is None else threshold.item())
    for part in parts:
        stats = statistics(logits[part], labels[part], config)
        measured = measured + measure(stats, response_mask[part], config, threshold=threshold)
    assert measured.selected_entropy(config) == pytest.approx(selected.item(), abs=1e-12)

    coefficient = penalty_coefficient(measured.selected_entropy(config), floor, config)
    leaf = logits.clone().requires_grad_()
    for part in parts:
        stats = statistics(leaf[part], labels[part], config)
        part_mask = position_mask(stats, response_mask[part], config, threshold=threshold)
        normalizer = measured.normalizer(config)
        entropy_term(stats, part_mask, coefficient=coefficient, normalizer=normalizer, config=config).backward()
    torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=1e-10)
    assert expected.abs().max() > 1e-6
    assert penalty_value(selected.item(), floor, config) == pytest.approx(distance.item() ** 2, abs=1e-12)


def test_float32_gradients_agree_between_splits():
    logits, labels, response_mask = data(seed=1)
    config, grads = PAECConfig(), []
    for size in (6, 2, 1):
        leaf = logits.float().requires_grad_()
        for i in range(0, ROWS, size):
            part = slice(i, i + size)
            stats = statistics(leaf[part], labels[part], config)
            mask = position_mask(stats, response_mask[part], config)
            entropy_term(stats, mask, coefficient=0.3, normalizer=7.0, config=config).backward()
        grads.append(leaf.grad)
    for grad in grads[1:]:
        assert (grad - grads[0]).norm() <= 1e-6 * grads[0].norm()


# ---- measurement --------------------------------------------------------------------------------------------------


def test_measurement_by_hand():
    a, b = Measurement(1.0, 2.0, 10, None), Measurement(0.5, 1.0, 20, None)
    assert a + b == Measurement(1.5, 3.0, 30, None)
    count, mass = PAECConfig(average="count", rho=0.75), PAECConfig(average="mass")
    assert (a + b).normalizer(count) == 7.5 and (a + b).normalizer(mass) == 3.0
    assert (a + b).selected_entropy(count) == 0.2 and (a + b).selected_entropy(mass) == 0.5
    empty = Measurement(0.0, 0.0, 0, None)
    assert empty.selected_entropy(count) == empty.selected_entropy(mass) == 0.0


def test_measurements_at_two_thresholds_do_not_add():
    at = [Measurement(1.0, 1.0, 1, t) for t in (0.3, 0.3, 0.4, None, NAN, NAN)]
    assert (at[0] + at[1]).threshold == 0.3
    assert math.isnan((at[4] + at[5]).threshold)
    for other in at[2:5]:
        with pytest.raises(ValueError, match="measure every micro-batch at the threshold of its mini-batch"):
            at[0] + other


def test_measure_by_hand():
    # Rows uniform over 2 and over 4 tokens, and a one-hot: scores 1, 1, 0. rho = 0.4 puts kappa at 0.8 and the ramp of
    # 0.4 gives the first two half weight: mass 1, weighted entropy (log 2 + log 4) / 2.
    logits = torch.tensor(
        [[[0.5, 0.5, 0, 0], [0.25] * 4, [1.0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]]], dtype=torch.float64
    ).log()
    config = PAECConfig(rho=0.4, mask_width=0.4)
    stats = statistics(logits, torch.zeros(1, 4, dtype=torch.int64), config)
    measured = measure(stats, torch.tensor([[1, 1, 1, 0]]), config)
    assert measured.mass == pytest.approx(1.0, abs=1e-12)
    assert measured.weighted_entropy == pytest.approx(1.5 * math.log(2), abs=1e-12)
    assert (measured.tokens, measured.threshold) == (3, None)
    assert measured.selected_entropy(config) == pytest.approx(1.5 * math.log(2) / 1.8, abs=1e-12)


def test_measure_keeps_the_threshold_of_the_mini_batch():
    logits, labels, response_mask = data(seed=2)
    config = PAECConfig(quantile_scope="mini_batch")
    stats = statistics(logits, labels, config)
    kappa = position_threshold(position_score(stats, config), response_mask, config)
    whole = measure(stats, response_mask, config)
    assert whole.threshold == kappa.item()
    halves = [
        measure(stats.map(lambda t, p=p: t[p]), response_mask[p], config, threshold=kappa)
        for p in (slice(0, 3), slice(3, 6))
    ]
    total = halves[0] + halves[1]
    assert total.weighted_entropy == pytest.approx(whole.weighted_entropy, abs=1e-12)
    assert (total.mass, total.tokens) == (pytest.approx(whole.mass, abs=1e-12), whole.tokens)


def test_measure_of_padding_is_zero():
    config = PAECConfig()
    logits = torch.full((2, 3, 4), NAN)
    stats = statistics(logits, torch.full((2, 3), -100), config)
    assert measure(stats, torch.zeros(2, 3), config) == Measurement(0.0, 0.0, 0, None)


@pytest.mark.parametrize("normalizer", ["log_nucleus", "none", "log_vocab"])
def test_regularized_entropies(normalizer):
    logits = torch.tensor([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64).log()
    labels = torch.tensor([0, 0])
    expected = {
        "full": [0.8979457249, 0.0],
        "nucleus": [0.6365141683, 0.0],
        "normalized": [
            0.6365141683 / {"log_nucleus": math.log(2), "none": 1, "log_vocab": math.log(3)}[normalizer],
            0.0,
        ],
    }
    for entropy, values in expected.items():
        config = PAECConfig(entropy=entropy, normalizer=normalizer)
        assert regularized_entropy(statistics(logits, labels, config), config).tolist() == pytest.approx(
            values, abs=1e-9
        )


# ---- penalty and term ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("penalty", "selected", "floor", "coefficient", "value"),
    [
        ("floor", 0.3, 0.5, 0.01 + 2 * 3 * 0.2, 3 * 0.04),
        ("floor", 0.5, 0.5, 0.01, 0.0),
        ("floor", 0.9, 0.5, 0.01, 0.0),
        ("floor", 0.3, None, 0.01, 0.0),
        ("two_sided", 0.3, 0.5, 0.01 + 2 * 3 * 0.2, 3 * 0.04),
        ("two_sided", 0.9, 0.5, 0.01 - 2 * 3 * 0.4, 3 * 0.16),
        ("two_sided", 0.9, None, 0.01, 0.0),
    ],
)
def test_penalty_by_hand(penalty, selected, floor, coefficient, value):
    config = PAECConfig(penalty=penalty, lambda_ent=0.01, lambda_low=3.0)
    assert penalty_coefficient(selected, floor, config) == pytest.approx(coefficient, abs=1e-12)
    assert penalty_value(selected, floor, config) == pytest.approx(value, abs=1e-12)


def test_a_nan_entropy_is_not_hidden_by_the_floor():
    assert math.isnan(penalty_coefficient(NAN, 0.5, PAECConfig()))
    assert math.isnan(penalty_value(NAN, 0.5, PAECConfig()))


def test_above_the_floor_a_pure_floor_has_no_gradient_at_all():
    logits, labels, response_mask = data()
    config = PAECConfig(lambda_ent=0.0)
    leaf = logits.clone().requires_grad_()
    stats = statistics(leaf, labels, config)
    measured = measure(stats, response_mask, config)
    coefficient = penalty_coefficient(measured.selected_entropy(config), measured.selected_entropy(config), config)
    mask = position_mask(stats, response_mask, config)
    normalizer = measured.normalizer(config)
    entropy_term(stats, mask, coefficient=coefficient, normalizer=normalizer, config=config).backward()
    assert leaf.grad.abs().max().item() == 0.0


def test_term_by_hand():
    logits = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]], dtype=torch.float64).log().requires_grad_()
    config = PAECConfig()
    stats = statistics(logits, torch.zeros(1, 2, dtype=torch.int64), config)
    mask = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    term = entropy_term(stats, mask, coefficient=0.3, normalizer=5.0, config=config)
    assert term.item() == pytest.approx(-0.3 * 0.5 * math.log(2) / 5, abs=1e-15)
    assert term.shape == () and term.dtype == torch.float64


@pytest.mark.parametrize("normalizer", [0.0, 4.0])
@pytest.mark.parametrize("entropy", ["full", "nucleus", "normalized"])
def test_padding_rows_of_nan_give_zero_and_not_nan(normalizer, entropy):
    config = PAECConfig(entropy=entropy)
    logits = torch.full((2, 3, 5), NAN, requires_grad=True)
    stats = statistics(logits, torch.full((2, 3), -100), config)
    mask = position_mask(stats, torch.zeros(2, 3), config)
    term = entropy_term(stats, mask, coefficient=1.0, normalizer=normalizer, config=config)
    assert term.item() == 0.0
    term.backward()
    assert logits.grad.abs().max().item() == 0.0


def test_padding_beside_a_response_does_not_change_its_gradient():
    config = PAECConfig(rho=0.5)
    logits, labels, _ = data(seed=3)
    grads = []
    for padding in (0.0, NAN):
        leaf = logits.clone()
        leaf[:, 6:] = padding
        leaf.requires_grad_()
        response_mask = torch.ones(ROWS, LENGTH)
        response_mask[:, 6:] = 0
        stats = statistics(leaf, labels, config)
        mask = position_mask(stats, response_mask, config)
        entropy_term(stats, mask, coefficient=1.0, normalizer=10.0, config=config).backward()
        grads.append(leaf.grad)
    assert torch.equal(grads[0], grads[1])
    assert grads[0][:, :6].abs().max() > 1e-4


def test_no_normalizer_gives_zero_and_stays_connected_for_any_mask():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    config = PAECConfig()
    stats = statistics(logits, torch.zeros(1, 2, dtype=torch.int64), config)
    term = entropy_term(stats, torch.ones(1, 2), coefficient=1.0, normalizer=0.0, config=config)
    term.backward()
    assert term.item() == 0.0 and logits.grad.abs().max().item() == 0.0
    with pytest.raises(ValueError, match="normalizer=-1.0: must be >= 0"):
        entropy_term(stats, torch.ones(1, 2), coefficient=1.0, normalizer=-1.0, config=config)


def test_nan_at_a_selected_position_stays_visible():
    config = PAECConfig()
    stats = statistics(torch.tensor([[[NAN, 0.0], [0.0, 0.0]]]), torch.zeros(1, 2, dtype=torch.int64), config)
    mask = position_mask(stats, torch.ones(1, 2), config)
    assert math.isnan(entropy_term(stats, mask, coefficient=1.0, normalizer=1.0, config=config).item())
    assert math.isnan(measure(stats, torch.ones(1, 2), config).selected_entropy(config))


# ---- anchor -------------------------------------------------------------------------------------------------------


def test_anchor_is_the_mean_of_its_steps_then_frozen():
    anchor = EntropyAnchor(PAECConfig(anchor_steps=3, rho_min=0.5))
    assert anchor.value is None and not anchor.frozen and anchor.floor(1) is None
    for step, entropy, mean in [(1, 0.6, 0.6), (2, 0.9, 0.75), (3, 1.2, 0.9)]:
        assert not anchor.frozen
        anchor.observe(step, entropy)
        assert anchor.value == pytest.approx(mean, abs=1e-15)
        assert anchor.floor(step) is None
    assert anchor.frozen
    anchor.observe(4, 100.0)
    anchor.observe(5, NAN)
    assert anchor.value == pytest.approx(0.9, abs=1e-15)
    assert anchor.floor(4) == anchor.floor(1000) == pytest.approx(0.45, abs=1e-15)


def test_anchor_refuses_what_would_bend_the_mean():
    anchor = EntropyAnchor(PAECConfig(anchor_steps=2))
    with pytest.raises(ValueError, match="observed step 2 after 0 of the steps 1..2"):
        anchor.observe(2, 0.5)
    with pytest.raises(ValueError, match="observed step 0 after 0"):
        anchor.observe(0, 0.5)
    with pytest.raises(ValueError, match="observed step 3 after 0"):
        anchor.observe(3, 0.5)
    for value in (NAN, math.inf):
        with pytest.raises(ValueError, match=f"the selected entropy of step 1 is {value}; must be finite"):
            anchor.observe(1, value)
    anchor.observe(1, 0.5)
    with pytest.raises(ValueError, match="observed step 1 after 1"):
        anchor.observe(1, 0.5)
    with pytest.raises(ValueError, match="step 3 needs the anchor of steps 1..2, only 1 observed"):
        anchor.floor(3)
    anchor.observe(2, 0.7)
    with pytest.raises(ValueError, match="observed step 2 after 2"):
        anchor.observe(2, 0.7)
    assert anchor.value == pytest.approx(0.6, abs=1e-15)


@pytest.mark.parametrize("resumed_after", [0, 1, 2, 3])
def test_a_resumed_anchor_is_the_same_anchor(resumed_after):
    config, entropies = PAECConfig(anchor_steps=2), [0.25, 0.75, 5.0, 6.0]
    straight, before, after = EntropyAnchor(config), EntropyAnchor(config), EntropyAnchor(config)
    for step, entropy in enumerate(entropies, start=1):
        straight.observe(step, entropy)
        if step <= resumed_after:
            before.observe(step, entropy)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for step in range(resumed_after + 1, 5):
        after.observe(step, entropies[step - 1])
    assert after.value == straight.value == 0.5
    assert after.floor(5) == straight.floor(5) == 0.4


def test_anchor_state_is_a_copy_and_is_checked():
    anchor = EntropyAnchor(PAECConfig(anchor_steps=2))
    anchor.observe(1, 0.5)
    state = anchor.state_dict()
    assert state == {"anchor_steps": 2, "observations": [0.5]}
    state["observations"].append(9.0)
    assert anchor.value == 0.5
    with pytest.raises(
        ValueError, match="anchor state has anchor_steps 2, but the configuration has 4: set method.anchor_steps=2"
    ):
        EntropyAnchor(PAECConfig()).load_state_dict(state)
    with pytest.raises(ValueError, match="must be anchor_steps and observations"):
        anchor.load_state_dict({"anchor_steps": 2})
    for observations in ([1.0, 2.0, 3.0], [NAN]):
        with pytest.raises(ValueError, match="must be at most 2, all finite"):
            anchor.load_state_dict({"anchor_steps": 2, "observations": observations})
    assert anchor.value == 0.5


def test_the_level_of_an_anchor_is_its_floor():
    anchor = EntropyAnchor(PAECConfig(anchor_steps=2, rho_min=0.5))
    assert anchor.level is None
    anchor.observe(1, 3.0)
    assert anchor.level == 1.5 and anchor.floor(2) is None
    with pytest.raises(ValueError, match=r"or call observed\(trackers, rollouts\) in every step$"):
        anchor.floor(3)
    anchor.observe(2, 1.0)
    assert anchor.level == anchor.floor(3) == 1.0
