"""ARES: every case of the term by hand, triggers and threshold, a run in plain Python, memory and checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from batches import random_rollouts, rollouts_of

from paec_loss import MethodStack
from paec_loss.batch import Rollouts
from paec_loss.methods.ares import ARES, DIFFICULTIES, TRIGGERS, by_difficulty, term, trigger_counts, window_means

# ---- the term --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, target, difficulty, right, expected",
    [
        (10, 6, "easy", True, -0.333333),
        (8, 6, "easy", True, -0.041667),  # within kappa: .5 (1 / 4) / 3
        (7, 6, "easy", True, 0.0),  # within the margin
        (0, 6, "easy", True, 0.0),  # fewer than usual
        (20, 6, "easy", True, -0.5),  # at the cap
        (46, 40, "easy", True, 0.0),  # the margin is .15 of 40
        (48, 40, "easy", True, -0.0625),
        (1, 0, "easy", True, 0.0),  # the margin is at least 1
        (3, 0, "easy", True, -0.166667),
        (2, 6, "medium", True, -0.115741),
        (10, 6, "medium", True, -0.115741),
        (7, 6, "medium", True, 0.0),
        (60, 6, "medium", True, -0.5),
        (10, 6, "hard", True, 0.530552),
        (4, 6, "hard", True, 0.305),  # just within the margin: .6 sigmoid(.1 / 3)
        (2, 6, "hard", True, -0.022193),
        (0, 20, "hard", True, -0.3),  # beyond kappa: .6 (13 - 2) / (2 (7 + 4))
        (10, 6, "easy", False, 0.245272),
        (6, 6, "easy", False, 0.15),
        (10, 6, "medium", False, 0.292423),  # .4 sigmoid(1)
        (0, 6, "medium", False, 0.2),
        (10, 6, "hard", False, 0.391947),
        (0, 6, "hard", False, 0.3),
    ],
)
def test_the_term_by_hand(count, target, difficulty, right, expected):
    found = term(DIFFICULTIES[difficulty], count, target, right, 0.5)
    assert found == pytest.approx(expected, abs=6e-7)
    assert term(DIFFICULTIES[difficulty], count, target, right, 0.0) == 0
    assert term(DIFFICULTIES[difficulty], count, target, right, 1.5) == pytest.approx(3 * found, rel=1e-12)


# ---- triggers --------------------------------------------------------------------------------------------------------


def of_entropy(entropy: list[list[float]], texts: list[list[str]] | None = None, **options) -> Rollouts:
    rows = [[-1.0] * len(row) for row in entropy]
    texts = [["x"] * len(row) for row in entropy] if texts is None else texts
    options = {"rewards": [1.0] * len(rows), "prompt": [0] * len(rows), **options}
    return rollouts_of(log_prob=rows, entropy=entropy, token_texts=texts, **options)


def test_windows_are_complete():
    """Means over the `window` tokens after a position; the last ones and short responses have none."""
    rollouts = of_entropy([[9.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0] * 4, [], [7.0, 1.0, 2.0, 3.0, 6.0]])
    assert [row.tolist() for row in window_means(rollouts, 4)] == [[3.5, 4.5], [], [], [3.0]]
    assert [len(row) for row in window_means(rollouts, 1)] == [5, 3, 0, 4]
    assert [len(row) for row in window_means(rollouts, 7)] == [0, 0, 0, 0]


def test_which_tokens_are_triggers():
    """Any case, with or without spaces before it, at least at the threshold, sampled at a complete window."""
    texts = ["Wait", "  wait", " waiting", "HMM", " hmm", "Wait"]
    entropy = [0.0, 2.0, 2.0, 2.0, 1.0, 2.0]
    rollouts = of_entropy([entropy, entropy], [texts, [" so"] * 6])
    method = ARES(window=1, triggers=["wait", "Hmm"])  # window means 2 2 2 1 2 of the first five
    assert trigger_counts(method, rollouts, None) == (2.0, [3, 0])
    theta, counts = trigger_counts(replace(method, decay=0.5), rollouts, 0.0)
    assert (theta, counts) == (1.0, [4, 0])  # equal to the threshold counts
    assert trigger_counts(replace(method, decay=0.5), rollouts, 2.02)[1] == [0, 0]
    assert trigger_counts(replace(method, triggers=[]), rollouts, None) == (2.0, [0, 0])


def test_the_threshold_by_hand():
    """Window means 0 ... 4 and 1 1 and 10: percentiles 3.8, 1 and 10, whose median is 3.8; of the first two 2.4."""
    entropy = [[0.0, 0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 1.0], [0.0, 10.0], [5.0]]
    method = ARES(window=1)
    assert trigger_counts(method, of_entropy(entropy), None)[0] == pytest.approx(3.8, rel=1e-12)
    assert trigger_counts(method, of_entropy(entropy), 1.0)[0] == pytest.approx(0.99 + 0.038, rel=1e-12)
    assert trigger_counts(method, of_entropy(entropy[:2]), None)[0] == pytest.approx(2.4, rel=1e-12)
    assert trigger_counts(replace(method, quantile=0.5), of_entropy(entropy[:2]), None)[0] == 1.5


def test_without_any_complete_window():
    short = of_entropy([[1.0] * 4, [2.0]], [["wait"] * 4, ["wait"]])
    assert trigger_counts(ARES(), short, None) == (None, [0, 0])
    assert trigger_counts(ARES(), short, 0.5) == (0.5, [0, 0])


def test_difficulties_and_their_borders():
    """Exactly 2/3 is easy, exactly 1/3 medium; any reward above 0 is right; padding is in no group."""
    rewards = [1.0, 0.2, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    prompt = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    entropy = [[1.0]] * 6 + [[]] + [[1.0]] * 4
    rollouts = of_entropy(entropy, rewards=rewards, prompt=prompt)
    assert list(by_difficulty(rollouts)) == [("easy", [0, 1, 2]), ("medium", [3, 4, 5]), ("hard", [7, 8, 9, 10])]


def test_the_default_list():
    assert len(TRIGGERS) == len(set(TRIGGERS)) == 40 and "40 words" in ARES.released
    assert all(word.isalpha() and word.islower() for word in TRIGGERS)


# ---- a step ----------------------------------------------------------------------------------------------------------


def hesitating(counts: list[int], rewards: list[float], prompt: list[int], step: int) -> Rollouts:
    """Responses with `counts` triggers each: a window of 1, and the threshold 1 in every step."""
    texts = [["wait"] * count + ["x"] * (12 - count) for count in counts]
    return of_entropy([[1.0] * 12 for _ in counts], texts, rewards=rewards, prompt=prompt, step=step)


ONE = ARES(window=1)


def test_two_steps_by_hand():
    """Step 1 has no past and no term. Step 2: n* 6 easy (mean 5.5, to the even number), 2 hard, none medium."""
    tracker = ONE.tracker()
    first = hesitating([5, 6, 2, 2], [1, 1, 0, 0], [0, 0, 1, 1], 1)
    assert torch.equal(MethodStack([ONE]).rewards(first, {"ares": tracker.signal(1)}), first.rewards)
    alphas = {f"alpha_{name}": 0.5 for name in DIFFICULTIES}
    assert tracker.observe(first) == {"theta": 1.0, "triggers_easy": 5.5, "triggers_hard": 2.0, **alphas}

    prompt = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    second = hesitating([10, 10, 7, 1, 3, 6, 2, 9, 9, 9], [1, 0, 1, 1, 0, 0, 0, 1, 0, 0], prompt, 2)
    signal = {"theta": 1.0, "target_easy": 6.0, "target_hard": 2.0, **alphas}
    assert tracker.signal(2) == signal
    hard = [0.6 / (1 + math.exp(-x / 3)) for x in (0.0, 0.0, 3.0, 0.0)]  # right: d = -1 = -m
    expected = [1 - 1 / 3, 0.3 / (1 + math.exp(-1.5)), 1.0, 1 + hard[0], *hard[1:], 1.0, 0.0, 0.0]
    found = MethodStack([ONE]).rewards(second, {"ares": signal, "other": {"theta": 9.0}})
    assert found.tolist() == pytest.approx(expected, rel=1e-12) and found.dtype == second.rewards.dtype
    metrics = tracker.observe(second)
    assert metrics == {"triggers_easy": 9.0, "triggers_medium": 9.0, "triggers_hard": 3.0, **signal}
    # easy: (11 + 27) / 5 responses = 7.6, hard: (4 + 12) / 6 = 2.67
    assert tracker.signal(3) == {
        **{"theta": 1.0, "target_easy": 8.0, "target_medium": 9.0, "target_hard": 3.0},
        **{"alpha_easy": 0.5 + 0.05 * 3, "alpha_medium": 0.5, "alpha_hard": 0.5 - 0.05 * 1},
    }


def test_alpha_stays_within_its_bounds():
    tracker = replace(ONE, rate=1.0).tracker()
    for step, counts in enumerate(([2, 2], [9, 9], [0, 0], [0, 0]), start=1):
        tracker.observe(hesitating(counts, [1, 0], [0, 1], step))
        alphas = [tracker.signal(step + 1)[f"alpha_{name}"] for name in ("easy", "hard")]
        assert alphas == {1: [0.5, 0.5], 2: [2.0, 0.0], 3: [0.0, 2.0], 4: [0.0, 2.0]}[step]
    assert tracker.signal(5)["target_easy"] == 3.0  # 11 / 4


def test_the_signal_is_the_same_before_and_after_the_step_is_observed():
    method = ARES(window=2, triggers=["so", "a", "2", "try"])
    tracker = method.tracker()
    for step in range(1, 6):
        rollouts = replace(random_rollouts(step), step=step)
        before = tracker.signal(step)
        early = MethodStack([method]).rewards(rollouts, {"ares": before})
        tracker.observe(rollouts)
        assert tracker.signal(step) == before != tracker.signal(step + 1)
        assert torch.equal(MethodStack([method]).rewards(rollouts, {"ares": tracker.signal(step)}), early)
    assert (early != rollouts.rewards).any()


def test_padding_has_no_term_and_no_count():
    """A row without a token, in a group of its own and in another's, changes nothing."""
    tracker, padded = ONE.tracker(), ONE.tracker()
    rollouts = hesitating([3, 1], [1, 0], [0, 1], 1)
    texts = [*rollouts.token_texts, [], []]
    entropy = [[1.0] * 12, [1.0] * 12, [], []]
    more = of_entropy(entropy, texts, rewards=[1, 0, 1, 0], prompt=[0, 1, 1, 5], step=1)
    assert tracker.observe(rollouts) == padded.observe(more)
    signal = tracker.signal(2)
    assert signal == padded.signal(2)
    found = ONE.rewards(replace(more, tracker_signal=signal)).tolist()
    assert found[:2] == ONE.rewards(replace(rollouts, tracker_signal=signal)).tolist() != [1.0, 0.0]
    assert found[2:] == [1.0, 0.0]


# ---- against the definition ------------------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


class Plain:
    """ARES in plain Python, from its formulas: `step` gives a step's rewards and mean counts, and moves the memory."""

    def __init__(self, words: tuple[str, ...], w: int) -> None:
        self.words, self.w, self.theta = words, w, None
        self.alpha = {"easy": 0.5, "medium": 0.5, "hard": 0.5}
        self.past = {"easy": [], "medium": [], "hard": []}

    def counts(self, rows: list[list[float]], texts: list[list[str]]) -> list[int]:
        means = [[sum(row[t + 1 : t + 1 + self.w]) / self.w for t in range(len(row) - self.w)] for row in rows]
        median = percentile([percentile(row, 0.95) for row in means if row], 0.5)
        self.theta = median if self.theta is None else 0.99 * self.theta + 0.01 * median
        return [
            sum(1 for t, mean in enumerate(row) if mean >= self.theta and text[t].strip().lower() in self.words)
            for row, text in zip(means, texts, strict=True)
        ]

    def extra(self, name: str, n: int, target: int, right: bool) -> float:
        f, k, temp = {"easy": (0.15, 2, 2.0), "medium": (0.25, 3, 2.5), "hard": (0.35, 4, 3.0)}[name]
        cap = self.alpha[name] * (1.2 if name == "hard" else 1.0)
        d, m = n - target, max(1.0, f * max(target, 1))

        def huber(x: float) -> float:
            return 0.0 if x < 0 else x**2 / (2 * k) if x <= k else x - k / 2

        def sigmoid(x: float) -> float:
            return math.exp(x) / (1 + math.exp(x))

        if not right:
            return {"easy": 0.6, "medium": 0.8, "hard": 1.0}[name] * cap * sigmoid(max(d - m, 0) / temp)
        if name == "easy":
            return -min(cap, cap * huber(d - m) / (m + k))
        if name == "medium":
            return -min(cap, cap * huber(abs(d) - m) / (m + k))
        return cap * sigmoid((d + m) / temp) if d >= -m else -min(cap, cap * huber(-d - m) / (2 * (m + k)))

    def step(self, rows: list[list[float]], texts: list[list[str]], rewards: list[float], prompt: list[int]):
        counts, out, seen = self.counts(rows, texts), list(rewards), {"easy": [], "medium": [], "hard": []}
        for p in set(prompt):
            group = [i for i, q in enumerate(prompt) if q == p and rows[i]]
            if not group:
                continue
            accuracy = sum(rewards[i] > 0 for i in group) / len(group)
            name = "easy" if accuracy >= 2 / 3 else "medium" if accuracy >= 1 / 3 else "hard"
            seen[name] += [counts[i] for i in group]
            if self.past[name]:
                target = round(sum(self.past[name]) / len(self.past[name]))
                for i in group:
                    out[i] += self.extra(name, counts[i], target, rewards[i] > 0)
        for name, values in seen.items():
            if values and self.past[name]:
                target = round(sum(self.past[name]) / len(self.past[name]))
                move = 0.05 * (sum(values) / len(values) - target)
                self.alpha[name] = min(max(self.alpha[name] + (-move if name == "hard" else move), 0), 2)
            self.past[name] += values
        return out, {name: sum(values) / len(values) for name, values in seen.items() if values}


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_run_against_the_definition(window):
    """Twelve steps of random responses, short and empty ones among them, with as many triggers as there are words."""
    words = ("so", "a", "2", "try", "way", "different", "let")
    method, plain = ARES(window=window, triggers=words), Plain(words, window)
    stack, tracker = MethodStack([method]), method.tracker()
    names, moved, triggers = set(), 0.0, 0.0
    for step in range(1, 13):
        rollouts = replace(random_rollouts(step), step=step)
        rows = [rollouts.entropy[i][here].tolist() for i, here in enumerate(rollouts.response_mask)]
        given = (rows, rollouts.token_texts, rollouts.rewards.tolist(), rollouts.group_id.tolist())
        found = stack.rewards(rollouts, {"ares": tracker.signal(step)})
        metrics = tracker.observe(rollouts)
        expected, means = plain.step(*given)
        assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert metrics["theta"] == pytest.approx(plain.theta, rel=1e-12)
        assert {f"triggers_{name}" for name in means} == {name for name in metrics if name.startswith("triggers")}
        for name, mean in means.items():
            assert metrics[f"triggers_{name}"] == pytest.approx(mean, rel=1e-12)
        for name in DIFFICULTIES:
            assert tracker.signal(step + 1)[f"alpha_{name}"] == pytest.approx(plain.alpha[name], rel=1e-12)
        names, triggers = names | means.keys(), triggers + sum(means.values())
        moved += (found - rollouts.rewards).abs().sum().item()
    assert names == set(DIFFICULTIES) and moved > 5 and triggers > 3
    assert len({round(alpha, 9) for alpha in plain.alpha.values()}) == 3


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_and_its_state():
    straight, before, after = (ONE.tracker() for _ in range(3))
    steps = [hesitating([s, 2 * s, 3], [1, 0, 0], [0, 1, 1], s) for s in range(1, 5)]
    for rollouts in steps[:2]:
        straight.observe(rollouts)
        before.observe(rollouts)
    state = json.loads(json.dumps(before.state_dict()))
    assert state["step"] == 2
    assert state["before"] == {
        **{"theta": 1.0, "triggers_easy": 1.0, "responses_easy": 1.0, "alpha_easy": 0.5},
        **{"triggers_medium": 0.0, "responses_medium": 0.0, "alpha_medium": 0.5},
        **{"triggers_hard": 5.0, "responses_hard": 2.0, "alpha_hard": 0.5},
    }
    assert state["after"]["triggers_easy"] == 3.0 and state["after"]["alpha_easy"] == 0.55
    after.load_state_dict(state)
    assert after.signal(2) == straight.signal(2) and after.signal(3) == straight.signal(3)
    for rollouts in steps[2:]:
        assert after.observe(rollouts) == straight.observe(rollouts)
    assert after.state_dict() == straight.state_dict()


def test_history_refuses_a_gap_the_past_and_what_is_no_number():
    tracker = ONE.tracker()
    with pytest.raises(ValueError, match="observed step 2 after 0 steps"):
        tracker.observe(hesitating([1], [1], [0], 2))
    for step in (1, 2):
        tracker.observe(hesitating([1], [1], [0], step))
    with pytest.raises(ValueError, match="no signal of step 1 after 2 steps"):
        tracker.signal(1)
    with pytest.raises(ValueError, match="the threshold of step 3 is nan"):
        tracker.observe(of_entropy([[1.0, math.nan, 1.0]], step=3))
    assert tracker.state_dict()["step"] == 2


def state_with(**changes) -> dict:
    state = ONE.tracker().state_dict()
    return {**state, "after": {**state["after"], **changes}}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {**state_with(), "strange": 1},
        {**state_with(), "step": -1},
        {**state_with(), "step": 1.0},
        {**state_with(), "step": True},
        {**state_with(), "before": {}},
        {**state_with(), "after": [1.0]},
        state_with(theta=math.inf),
        state_with(theta=-0.1),
        state_with(alpha_easy=2.1),
        state_with(triggers_hard=None),
        state_with(responses_hard=1),
        state_with(other=1.0),
    ],
)
def test_state_refused(state):
    tracker = ONE.tracker()
    with pytest.raises(ValueError, match="ares history state"):
        tracker.load_state_dict(state)
    assert tracker.state_dict() == ONE.tracker().state_dict()


@pytest.mark.parametrize(
    "field, value",
    [
        *(("window", 0), ("window", 1.5), ("quantile", 1.1), ("decay", 1), ("alpha", 2.5), ("alpha", -1), ("rate", -1)),
        *(("triggers", "wait"), ("triggers", [""])),
    ],
)
def test_bad_field_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"method.{field}="):
        ARES(**{field: value})
