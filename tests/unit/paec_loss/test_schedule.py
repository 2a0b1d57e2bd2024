"""Schedules: every kind by hand, what is refused, and methods with them through the stack and its trackers."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pytest
import torch
from batches import CLIP, assert_any_split, mini_batch_loss, random_batch, random_rollouts, rollouts_of, update_of

from paec_loss import BatchMethod, Method, MethodStack
from paec_loss.fields import check_fields, rules_of
from paec_loss.methods import METHODS
from paec_loss.schedule import Schedule, constant, cosine, is_schedule, linear, parsed, warmup
from paec_loss.weights import weights_of

BONUS = METHODS["entropy_bonus"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("constant:0.3", [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
        ("linear:1:0:4", [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        ("linear:-1:1:2", [-1.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear:0.1:0.7:1", [0.1, 0.7, 0.7, 0.7, 0.7, 0.7]),
        ("cosine:1:0:4", [1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0, 0.0]),
        ("cosine:0:1:3", [0.0, 0.25, 0.75, 1.0, 1.0, 1.0]),
        ("warmup:2:4", [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]),
        ("warmup:2:1", [2.0] * 6),
    ],
)
def test_every_kind_by_hand(text, values):
    schedule = parsed(text)
    assert [schedule.at(step) for step in range(1, 7)] == pytest.approx(values, rel=1e-14, abs=1e-15)
    assert float(schedule) == schedule.at(1) and schedule.at(10**9) == schedule.last == values[-1]


def test_a_text_and_a_function_are_the_same():
    pairs = {
        "constant:0.5": constant(0.5),
        "linear:0.01:0:200": linear(0.01, 0, 200),
        "cosine: 1 : 0.5 : 20": cosine(1, 0.5, steps=20),
        "warmup:0.1:5": warmup(0.1, 5),
    }
    for text, made in pairs.items():
        assert parsed(text) == made == parsed(made.text) and hash(made) == hash(parsed(text))
    assert linear(0.01, 0, 200).text == repr(parsed("linear:1e-2:0.0:200")) == "linear:0.01:0.0:200"
    assert linear(1, 0, 4) != linear(1, 0, 5) and linear(1, 0, 4) != 1.0


def test_copies_are_equal():
    schedule = cosine(1, 0, 8)
    for other in (copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule and other.at(5) == schedule.at(5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "liner:1:0:4",
            "there is no schedule liner: write constant:VALUE, linear:FROM:TO:STEPS, .* did you mean linear",
        ),
        ("linear:1:0", "must be written linear:FROM:TO:STEPS"),
        ("warmup:1:0:4", "must be written warmup:VALUE:STEPS"),
        ("linear:1:0:0", "STEPS in linear:FROM:TO:STEPS must be an integer >= 1, and is 0"),
        ("cosine:1:0:-3", "STEPS in cosine:FROM:TO:STEPS must be an integer >= 1, and is -3"),
        ("cosine:1:0:2.5", "STEPS in cosine:FROM:TO:STEPS must be an integer >= 1, and is 2.5"),
        ("linear:one:0:4", "FROM in linear:FROM:TO:STEPS must be a number, and is one"),
        ("linear:1::4", "TO in linear:FROM:TO:STEPS must be a number, and is empty"),
        ("linear:nan:0:4", "linear:FROM:TO:STEPS: nan is not a finite number"),
        ("constant:inf", "constant:VALUE: inf is not a finite number"),
    ],
)
def test_texts_that_mean_nothing(text, sentence):
    with pytest.raises(ValueError, match=f"^method.coefficient={text}: {sentence}"):
        BONUS(coefficient=text)


def test_functions_refuse_the_same():
    for made in (
        lambda: linear(1, 0, 0),
        lambda: warmup(1, 2.0),
        lambda: cosine(1, float("inf"), 3),
        lambda: constant(10**400),
    ):
        with pytest.raises(ValueError, match="must be an integer >= 1|is not a finite number"):
            made()


def test_what_is_a_schedule():
    assert is_schedule("linear:1:0:4") and is_schedule("liner:1") and is_schedule(constant(1.0))
    assert is_schedule(" linear:1:0:4") and is_schedule("linear : 1:0:4")
    assert not any(map(is_schedule, ("exact", "0.5", 0.5, ":", " :1", "1:2", "two words:1", None)))


@pytest.mark.parametrize("text", [" linear:0.1:0:5", "linear :0.1:0:5", "linear: 0.1 : 0:5 ", "\tlinear:0.1:0:5"])
def test_blanks_in_a_text_do_not_count(text):
    assert BONUS(coefficient=text).coefficient == linear(0.1, 0, 5)


# ---- fields ----------------------------------------------------------------------------------------------------------


def test_both_ends_are_in_the_range_of_the_field():
    sentence = r"method.clip_low=linear:0.2:1.5:10: 1.5 must be in \[0, 1\]; it is the lower clip range"
    with pytest.raises(ValueError, match=sentence):
        METHODS["clip_higher"](clip_low="linear:0.2:1.5:10")
    with pytest.raises(ValueError, match="method.kappa_high=linear:0.0:1.2:10: 0 must be > 0"):
        METHODS["epo"](kappa_high=linear(0, 1.2, 10))
    assert METHODS["epo"](kappa_high=warmup(1.2, 1)).at(1).kappa_high == 1.2


@pytest.mark.parametrize(
    ("name", "field", "sentence"),
    [
        ("paec", "anchor_steps", "cannot follow a schedule: it must be an integer >= 1"),
        ("stare", "variant", "cannot follow a schedule: it must be one of o1, c2"),
        ("stare", "statistics_from", "cannot follow a schedule: it must be one of exact, step"),
        ("hicra", "phrases", "cannot follow a schedule: it must be a list of non-empty strings"),
    ],
)
def test_fields_that_are_no_numbers(name, field, sentence):
    for value in ("linear:1:2:10", linear(1, 2, 10)):
        with pytest.raises(ValueError, match=f"method.{field}=linear:1.*: {sentence}"):
            METHODS[name](**{field: value})


def test_a_plain_field_of_a_users_method():
    @dataclass(frozen=True)
    class Mine(Method):
        alpha: float = 0.1
        label: str = "a:b"

    mine = Mine(alpha="linear:0:1:2", label="linear:0:1:2")
    assert (mine.at(2).alpha, mine.at(2).label) == (0.5, "linear:0:1:2")
    check_fields(mine)
    with pytest.raises(ValueError, match="method.alpha=linear:0:1: must be written linear:FROM:TO:STEPS"):
        Mine(alpha="linear:0:1")


def test_a_method_in_a_step():
    method = METHODS["entropy_target"](coefficient="linear:0:0.4:4", target=0.7)
    assert method.schedules == {"coefficient": linear(0, 0.4, 4)}
    assert method.at(2) == METHODS["entropy_target"](coefficient=0.1, target=0.7) and method.at(2).schedules == {}
    assert replace(method, target=0.5).schedules == method.schedules
    assert asdict(method)["coefficient"] == linear(0, 0.4, 4)
    plain = METHODS["entropy_target"]()
    assert plain.at(5) is plain


# ---- the stack -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"none"}))
def test_a_constant_schedule_is_the_number(name):
    """Every field of every method: loss, advantages and memory are those of the number."""
    kind = METHODS[name]
    plain = kind(low=0.15, high=0.15) if name == "dppo" else kind()  # null by default, which no schedule is
    rules = rules_of(kind)
    fixed = {*plain.unscheduled, "top_p"}
    numbers = {f.name: getattr(plain, f.name) for f in fields(kind) if rules[f.name]["kind"] is float}
    made = kind(**{field: constant(value) for field, value in numbers.items() if field not in fixed})
    assert made.at(3) == plain
    if not made.schedules:
        return
    _, tokens = random_batch()
    signal = {}
    if (tracker := plain.tracker()) is not None:
        tracker.observe(replace(random_rollouts(1), step=1))
        signal = tracker.signal(2)
    assert mini_batch_loss(made, tokens, **signal) == mini_batch_loss(plain, tokens, **signal)
    ours, theirs = MethodStack([made]), MethodStack([plain])
    rollouts = replace(random_rollouts(), step=1)
    assert torch.equal(ours.advantages(rollouts), theirs.advantages(rollouts))
    assert torch.equal(ours.rewards(rollouts), theirs.rewards(rollouts))
    assert ours.clip(CLIP, 4) == theirs.clip(CLIP) and not ours.moving_clip
    assert ours.sampling({name: signal}, 4) == theirs.sampling({name: signal})
    pairs = zip(ours.trackers().items(), theirs.trackers().items(), strict=True)
    for (_, scheduled), (_, tracker) in pairs:
        for step in range(1, 6):
            seen = replace(random_rollouts(step), step=step)
            assert scheduled.observe(seen) == tracker.observe(seen)
            assert scheduled.signal(step + 1) == tracker.signal(step + 1)
        assert scheduled.state_dict() == tracker.state_dict()


@pytest.mark.parametrize("name", ["entropy_advantage", "steer", "kl_cov", "forking_tokens", "hapo", "entropy_bonus"])
def test_a_hook_has_the_numbers_of_its_step(name):
    """The loss in step 3 of a schedule over the method's first numeric field is the one with that number."""
    kind = METHODS[name]
    plain, rules = kind(), rules_of(kind)
    field = next(f.name for f in fields(kind) if rules[f.name]["kind"] is float)
    value = getattr(plain, field)
    method = kind(**{field: linear(value, value / 2, 4)})
    _, tokens = random_batch()  # `update_of` is of step 3
    assert mini_batch_loss(method, tokens) == mini_batch_loss(kind(**{field: 0.75 * value}), tokens)
    if name not in ("kl_cov", "forking_tokens"):  # a number of tokens, which may be rounded to the same one
        assert mini_batch_loss(method, tokens) != mini_batch_loss(plain, tokens)
    assert_any_split(method)


def test_also_methods_have_schedules_of_their_own():
    first, second = BONUS(coefficient="linear:0:0.4:4"), METHODS["entropy_target"](coefficient="cosine:0:1:4", target=9)
    stack = MethodStack([first, second])
    values = {"entropy_bonus/coefficient": 0.2, "entropy_target/coefficient": 0.5}
    assert stack.scheduled_values(3) == pytest.approx(values, rel=1e-14)
    assert MethodStack([BONUS()]).scheduled_values(3) == {}
    _, tokens = random_batch()
    plain = [BONUS(coefficient=0.2), METHODS["entropy_target"](coefficient=0.5, target=9)]
    update, expected = update_of(tokens, stack), mini_batch_loss(plain, tokens)
    torch.testing.assert_close(mini_batch_loss([first, second], tokens), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(stack.loss(tokens, update), expected, rtol=1e-13, atol=0)
    assert stack.loss(tokens, replace(update, step=1)) != stack.loss(tokens, replace(update, step=2))


def test_driver_hooks_have_the_numbers_of_their_step():
    method = METHODS["w_reinforce"](positive_weight="linear:1:0:4")
    rollouts = replace(random_rollouts(), step=2)
    expected = METHODS["w_reinforce"](positive_weight=0.75).advantages(rollouts)
    assert torch.equal(MethodStack([method]).advantages(rollouts), expected)
    pear = MethodStack([METHODS["pear"](alpha="linear:1:3:4")])
    rollouts = replace(rollouts, token_texts=random_rollouts().token_texts)
    assert torch.equal(pear.rewards(rollouts), METHODS["pear"](alpha=1.5).rewards(rollouts))
    aepo = MethodStack([METHODS["aepo"](temperature_high="linear:1.2:1:4")])
    assert [aepo.sampling({}, step).temperature for step in (1, 2, 9)] == pytest.approx([1.2, 1.15, 1.0], rel=1e-12)


def test_a_clip_range_that_moves_replaces_the_trainers_surrogate():
    higher = MethodStack([METHODS["clip_higher"](clip_high="linear:0.2:0.4:2")])
    assert higher.moving_clip and higher.own_surrogate and higher.acts_in_actor
    assert higher.run_clip(CLIP) == CLIP
    assert [higher.clip_in(step, CLIP).high for step in (1, 2, 3)] == pytest.approx([0.2, 0.3, 0.4], rel=1e-12)
    _, tokens = random_batch()
    update = replace(update_of(tokens, higher), clip=higher.clip_in(3, CLIP))
    plain = METHODS["clip_higher"](clip_high=0.4)
    assert higher.loss(tokens, update) == mini_batch_loss(plain, tokens)
    other = MethodStack([METHODS["clip_cov"](ratio="linear:0.1:0.2:4")])
    assert not other.moving_clip and other.run_clip(CLIP) == other.clip(CLIP) == other.clip_in(3, other.run_clip(CLIP))


def test_the_token_page_shows_the_step():
    rollouts = random_rollouts()
    numbers = torch.arange(len(rollouts.response_mask))
    update = replace(update_of(random_batch()[1], METHODS["none"]()), step=3)
    found, expected = (
        weights_of(METHODS["w_reinforce"](positive_weight=weight), rollouts, numbers, update)
        for weight in ("linear:0.8:0.4:4", 0.6)
    )
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=0)


# ---- memory ----------------------------------------------------------------------------------------------------------


def of_entropy(entropy: float, step: int):
    return rollouts_of([1.0, 0.0], [0, 0], [[-1.0], [-1.0]], entropy=[[2 * entropy], [0.0]], step=step)


def test_a_trackers_numbers_by_hand():
    """delta .1 .2 .3 .3 and entropies below the target, then above: what acts is the sum of those before."""
    method = METHODS["entropy_adaptive"](target=0.5, delta="linear:0.1:0.3:2", max_coefficient=1.0)
    tracker = MethodStack([method]).trackers()["entropy_adaptive"]
    seen = []
    for step, entropy in enumerate([0.4, 0.4, 0.4, 0.4, 0.6, 0.4], start=1):
        tracker.observe(of_entropy(entropy, step))
        seen.append(tracker.signal(step)["coefficient"])
    assert seen == pytest.approx([0, 0.1, 0.3, 0.6, 0, 0.6], abs=1e-12)


def test_a_target_that_falls():
    method = METHODS["stare"](target="linear:0.5:0.1:4")
    tracker = MethodStack([method]).trackers()["stare"]
    positive = [(tracker.observe(of_entropy(0.3, step)), tracker.signal(step)["positive"])[1] for step in range(1, 6)]
    assert positive == [1.1, 1.1, 1.0, 1.0, 1.0]  # targets .5 .4 .3 .2 .1


def test_a_resumed_run_has_the_same_numbers():
    method = METHODS["stare"](target="cosine:0.5:0.1:6", weights="adaptive")
    whole, first, second = (MethodStack([method]).trackers()["stare"] for _ in range(3))
    for step in range(1, 4):
        whole.observe(of_entropy(0.3, step))
        first.observe(of_entropy(0.3, step))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.signal(4) == whole.signal(4)
    for step in range(4, 8):
        assert second.observe(of_entropy(0.3, step)) == whole.observe(of_entropy(0.3, step))
    assert second.state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="stare state"):
        second.load_state_dict({})


def other_value(name: str, base: dict[str, Any], field: str, value: float) -> float | None:
    """Another value of a field that the method takes."""
    for candidate in (value / 2, value * 1.5, value + 0.05, 0.5):
        try:
            METHODS[name](**base, **{field: candidate})
        except ValueError:
            continue
        if candidate != value:
            return candidate
    return None


REMEMBERING = [(name, {}) for name, kind in METHODS.items() if kind().tracker() is not None]


@pytest.mark.parametrize(
    ("name", "base"), [*REMEMBERING, ("stare", {"weights": "adaptive"}), ("repo_r", {"controller": "adaptive"})]
)
def test_no_field_of_a_tracker_is_ignored(name, base):
    """A field that changes what a tracker says also changes it from the middle of a run on, or is refused."""
    kind, rules = METHODS[name], rules_of(METHODS[name])

    def said(method: Method) -> list[Any]:
        tracker = MethodStack([method]).trackers()[name]
        out = []
        for step in range(1, 9):
            seen = replace(random_rollouts(step), step=step)
            out.append((tracker.observe(seen), tracker.signal(step)))
        return out[4:]

    plain = said(kind(**base))
    for field in (f.name for f in fields(kind) if rules[f.name]["kind"] is float):
        value = getattr(kind(**base), field)
        other = other_value(name, base, field, value)
        if other is None or said(kind(**base, **{field: other})) == plain:
            continue
        try:
            stack = MethodStack([kind(**base, **{field: linear(value, other, 4)})])
        except ValueError as error:
            assert "cannot follow a schedule" in str(error)
            continue
        assert said(stack.methods[0]) != plain, field


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (
            METHODS["entropy_adaptive"](max_coefficient="linear:0.01:0.005:9"),
            "^method.max_coefficient=linear:0.01:0.005:9: cannot follow a schedule: it is the bound of what is",
        ),
        (
            METHODS["stare"](weights="adaptive", weight_positive="linear:1.1:1.2:9"),
            "^method.weight_positive=linear:1.1:1.2:9: cannot follow a schedule: it is where a weight starts",
        ),
        (
            METHODS["paec"](top_p="linear:0.8:0.9:9"),
            "^method.top_p=.*: it changes the nucleus of the run's",
        ),
        (
            METHODS["epo"](kappa_low="linear:0.8:1.31:10"),
            r"^in step 9, method.kappa_low=1.208\d*: must not be above method.kappa_high=1.2",
        ),
        (
            METHODS["bapo"](low="linear:0.6:0.99:4"),
            r"^in step 5, method.max_low=0.9: must be >= method.low=0.99",
        ),
    ],
)
def test_refused_by_the_stack(method, sentence):
    with pytest.raises(ValueError, match=sentence):
        MethodStack([method])


def test_a_long_schedule_is_checked_in_a_moment():
    stack = MethodStack([BONUS(coefficient="linear:0.1:0:100000000")])
    assert stack.scheduled_values(50_000_001)["entropy_bonus/coefficient"] == pytest.approx(0.05, rel=1e-12)


def test_a_batch_method_of_a_user():
    @dataclass(frozen=True)
    class Calm(BatchMethod[float]):
        top: float = 0.5

        def prepare(self, batch, update):
            return torch.quantile(batch.masked(batch.entropy), 1 - self.top).item()

        def token_advantages(self, tokens, context, update):
            return torch.where(tokens.entropy > context, 0.0, tokens.advantages)

    assert_any_split(Calm(top="linear:0.5:0.1:4"))
    _, tokens = random_batch()
    assert mini_batch_loss(Calm(top="linear:0.5:0.1:4"), tokens) == mini_batch_loss(Calm(top=0.3), tokens)
    assert isinstance(Calm(top="linear:0.5:0.1:4").top, Schedule)
