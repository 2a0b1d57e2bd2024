"""The hooks of a user's class: names and parameters where it is defined, results in every call, one sentence each."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest
import torch
from batches import random_batch, random_rollouts, update_of

from paec_loss import Method, MethodStack
from paec_loss.hooks import HOOKS, HookError
from paec_loss.methods import METHODS, find
from paec_loss.stack import observed


def defined(**attributes) -> type[Method]:
    return type("Mine", (Method,), {"__module__": "gap", **attributes})


def test_the_names_are_those_of_the_base():
    found = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert set(HOOKS) == found - {"at", "overrides"} and len(HOOKS) == len(set(HOOKS))


# ---- names and parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, hook",
    [
        ("loss_terms", "loss_term"),
        ("lossTerm", "loss_term"),
        ("token_advantage", "token_advantages"),
        ("reward", "rewards"),
        ("prepare_", "prepare"),
        ("metric", "metrics"),
    ],
)
def test_a_misspelt_hook(name, hook):
    sentence = f"Mine.{name} is not a hook: did you mean {hook}? If not, rename it, for example to _{name}"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        defined(**{name: lambda self: None})


def test_what_is_no_misspelt_hook():
    """Helpers of other names, private ones, and constants."""
    assert defined(scale=lambda self: 1, clipped=staticmethod(lambda x: x), _reward=lambda self: 1, reward=3.0)


@pytest.mark.parametrize(
    "name, function, found, wanted",
    [
        ("loss_term", lambda self, tokens, update: None, "self, tokens, update", "self, tokens, context, update"),
        ("loss_term", lambda tokens, context, update: 0, "tokens, context, update", "self, tokens, context, update"),
        (
            "token_advantages",
            lambda self, tokens, update, context: 0,
            "self, tokens, update, context",
            "self, tokens, context, update",
        ),
        ("rewards", lambda self: None, "self", "self, rollouts"),
        ("prepare", lambda self, batch, update, more: None, "self, batch, update, more", "self, batch, update"),
        ("tracker", staticmethod(lambda step: None), "step", ""),
    ],
)
def test_other_parameters(name, function, found, wanted):
    sentence = f"Mine.{name} takes ({found}): it must take ({wanted})"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        defined(**{name: function})


def test_parameters_that_a_trainer_can_call():
    assert defined(loss_term=lambda self, batch, found, now, extra=1: 0, rewards=lambda self, *all: 0)
    assert defined(clip=staticmethod(lambda clip: clip), prepare=torch.no_grad()(lambda self, batch, update: 0))


@pytest.mark.parametrize("attributes", [{"clip": 0.2}, {"__annotations__": {"clip": float}}, {"clip": property(str)}])
def test_a_field_named_as_a_hook(attributes):
    with pytest.raises(TypeError, match="^Mine.clip: clip is a hook, so it must be a method: rename the field$"):
        defined(**attributes)


# ---- a class by its path ---------------------------------------------------------------------------------------------

MODULE = """
from dataclasses import dataclass
from paec_loss import Method
from paec_loss.methods.paec import PAEC

@dataclass(frozen=True)
class Nothing(Method):
    alpha: float = 0.1
    def token_weights(self, tokens, context, update): return tokens.entropy

class Bare(Method):
    paper = "none"
    alpha: float = 0.1
    def loss_term(self, tokens, context, update): return tokens.total(tokens.entropy)

@dataclass(frozen=True)
class BelowBare(Bare):
    beta: float = 0.1

class Inherited(PAEC):
    pass

class Ordered(Method):
    needs = {"curriculum"}
"""


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("Nothing", "overrides no hook, so it would train plain GRPO: override one of prepare, rewards, advantages, "),
        ("Bare", "Bare has fields (alpha): write @dataclass(frozen=True) above the class"),
        ("BelowBare", "Bare has fields (alpha): write @dataclass(frozen=True) above the class"),
    ],
)
def test_a_class_that_would_train_something_else(tmp_path, monkeypatch, name, sentence):
    (tmp_path / "own_hooks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match=re.escape(f"method.class_path=own_hooks.{name}: {sentence}")):
        find(f"own_hooks.{name}")
    assert find("own_hooks.Inherited").__name__ == "Inherited" and find("own_hooks.Ordered")().needs == {"curriculum"}


@pytest.mark.parametrize(
    "code, line, sentence",
    [
        ("@dataclass\nclass B(Method):\n    x: float = 1.0\n", 6, "write @dataclass(frozen=True) above this class"),
        ("class B(Method):\n    def loss_terms(self): ...\n", 6, "B.loss_terms is not a hook: did you mean loss_term?"),
        (
            "@dataclass(frozen=True)\nclass B(Method):\n    x = share(0.1, 'of all')\n",
            6,
            "'x' is a field but has no type annotation",
        ),
        ("len(3)\n", 6, "object of type 'int' has no len()"),
    ],
)
def test_a_module_that_cannot_be_defined(tmp_path, monkeypatch, code, line, sentence):
    """File and line are those of the class that is wrong, which need not be the one that was asked for."""
    good = "@dataclass(frozen=True)\nclass A(Method): ...\n"
    head = "from dataclasses import dataclass\nfrom paec_loss import Method\nfrom paec_loss.fields import share\n"
    (tmp_path / "bad_hooks.py").write_text(head + good + code)
    monkeypatch.syspath_prepend(tmp_path)
    place = f"{tmp_path / 'bad_hooks.py'}, line {line}"
    with pytest.raises(TypeError, match=re.escape(f"method.class_path=bad_hooks.A: {place}: {sentence}")):
        find("bad_hooks.A")


def test_a_path_that_is_none():
    with pytest.raises(TypeError, match="^method.class_path=..A: the 'package' argument is required"):
        find("..A")


def test_the_catalogue_is_as_it_was():
    assert all(find(f"{kind.__module__}.{kind.__name__}") is kind for kind in METHODS.values())


# ---- results ---------------------------------------------------------------------------------------------------------


def returned(hook: str, value) -> str:
    """The error for a method of which one hook returns `value`: a number, or a function of the tokens or rollouts."""
    made = value if callable(value) else lambda seen: value
    number = len(inspect.signature(getattr(Method, hook)).parameters)
    functions = {1: lambda self: made(None), 2: lambda self, seen: made(seen)}
    functions |= {3: lambda self, context, sums: made(None), 4: lambda self, seen, context, update: made(seen)}
    names = {"metrics": lambda self, context, sums, update: made(None)}
    mine = defined(**{hook: names.get(hook, functions[number])})
    _, tokens = random_batch()
    updates, context = [update_of(tokens, METHODS["none"]())], [None]
    with pytest.raises(HookError) as caught:
        stack = MethodStack([mine()])
        if hook in ("rewards", "advantages", "response_value"):
            getattr(stack, hook)(random_rollouts())
        elif hook == "sampling":
            stack.sampling({})
        elif hook == "metrics":
            stack.metrics(context, {}, updates)
        else:
            getattr(stack, hook)(tokens, context, updates)
    return str(caught.value)


B, R = random_batch()[1].response_mask.shape
ROWS, LENGTH = random_rollouts().response_mask.shape
SCALAR = "a scalar: sum over the tokens and divide by update.tokens, as in tokens.total(values) / update.tokens"
TOKENS = f"[B, R], here [{B}, {R}]: one for each token, as in tokens.advantages"


@pytest.mark.parametrize(
    "hook, value, found, wanted",
    [
        ("loss_term", lambda tokens: tokens.entropy, f"a tensor of shape [{B}, {R}]", SCALAR),
        ("loss_term", None, "None", SCALAR),
        ("loss_term", 0.5, "a value of type float", SCALAR),
        ("token_advantages", lambda tokens: tokens.advantages[:, 0], f"a tensor of shape [{B}]", TOKENS),
        ("token_advantages", lambda tokens: tokens.advantages[:, :1], f"a tensor of shape [{B}, 1]", TOKENS),
        (
            "policy_loss",
            lambda tokens: tokens.entropy.mean(),
            "a tensor of shape []",
            f"[B, R], here [{B}, {R}]: the loss of each token, which the trainer averages",
        ),
        ("selection", lambda tokens: tokens.response_mask, f"a tensor of shape [{B}, {R}]", "a bool mask [B, R], and"),
        ("selection", lambda tokens: (tokens.entropy, 3), "a value of type tuple", "a bool mask [B, R], and"),
        (
            "rewards",
            lambda rollouts: rollouts.entropy,
            f"a tensor of shape [{ROWS}, {LENGTH}]",
            f"[B], here [{ROWS}]: one reward for each response",
        ),
        (
            "advantages",
            lambda rollouts: rollouts.rewards,
            f"a tensor of shape [{ROWS}]",
            f"[B, R], here [{ROWS}, {LENGTH}]: one for each token; rollouts.at_tokens(values)",
        ),
        ("response_value", 1.0, "a value of type float", f"[B], here [{ROWS}]: one number for each response"),
        ("sampling", 0.5, "a value of type float", "a Sampling or None"),
        ("tracker", {}, "a value of type dict", "an object with observe, signal, state_dict and load_state_dict, or"),
        ("local_sums", {"close": torch.zeros(())}, "a Tensor under 'close'", "a dict of numbers: .item() makes one of"),
        ("local_sums", None, "None", "a dict of numbers: .item() makes one of a tensor"),
        (
            "metrics",
            {"y": 1, "x": torch.zeros(())},
            "a Tensor under 'x'",
            "a dict of numbers: .item() makes one of a tensor",
        ),
    ],
)
def test_a_result_that_no_trainer_can_use(hook, value, found, wanted):
    sentence = returned(hook, value)
    assert sentence.startswith(f"gap.Mine.{hook} returned {found}: it must return {wanted}") and "\n" not in sentence


@pytest.mark.parametrize(
    "hook, value, dtype",
    [
        ("rewards", lambda rollouts: (rollouts.rewards > 0).long(), "torch.int64"),
        ("advantages", lambda rollouts: rollouts.advantages > 0, "torch.bool"),
        ("response_value", lambda rollouts: rollouts.lengths, "torch.int64"),
        ("token_advantages", lambda tokens: tokens.response_mask, "torch.bool"),
        ("policy_loss", lambda tokens: tokens.advantages.int(), "torch.int32"),
        ("loss_term", lambda tokens: tokens.response_mask.sum(), "torch.int64"),
    ],
)
def test_a_result_of_integers(hook, value, dtype):
    said = f"gap.Mine.{hook} returned a tensor of dtype {dtype}: must be floating; write .float()"
    assert returned(hook, value) == said


def test_a_clip_range_is_checked_before_a_run():
    with pytest.raises(HookError, match=r"^gap.Mine.clip returned a value of type tuple: it must return a Clip$"):
        MethodStack([defined(clip=lambda self, clip: (0.2, 0.3))()])


def test_what_a_hook_may_return():
    """A term in another precision, and numbers of numpy."""
    _, tokens = random_batch()
    metrics = MethodStack([defined(metrics=lambda self, context, sums, update: {"x": tokens.mean(tokens.entropy)})()])
    assert metrics.metrics([None], {}, [update_of(tokens, metrics)]).keys() == {"gap.Mine/x"}
    term = MethodStack([defined(loss_term=lambda self, tokens, context, update: tokens.total(tokens.entropy))()])
    tokens = replace(tokens, statistics=tokens.statistics.detach())
    expected = tokens.total(tokens.entropy).item()
    assert term.loss_term(tokens, [None], [update_of(tokens, term)]).item() == pytest.approx(expected, rel=1e-12)


# ---- fields that a method must ask for -------------------------------------------------------------------------------


class Reader(Method):
    """Each hook reads a field that only a word in `needs` provides."""

    def rewards(self, rollouts):
        return rollouts.rewards * torch.tensor([self._is_long(text) for text in rollouts.text])

    def advantages(self, rollouts):
        return self._right(rollouts)[:, None] * rollouts.advantages

    def response_value(self, rollouts):
        return torch.tensor([len(row) for row in rollouts.token_texts])

    def loss_term(self, tokens, context, update):
        return tokens.total(tokens.log_prob - tokens.ref_log_prob)

    def tracker(self):
        return Reading()

    def _is_long(self, text):
        return len(text) > 9

    def _right(self, rollouts):
        return rollouts.answer_ids >= 0


class Reading:
    def observe(self, rollouts):
        return {"mean": rollouts.rewards.mean().item()}

    def signal(self, step):
        return {}

    def state_dict(self):
        return {}

    load_state_dict = signal


@pytest.mark.parametrize(
    "hook, field, word, kind",
    [
        ("rewards", "text", "text", "TypeError: 'NoneType' object is not iterable"),
        ("advantages", "answer_ids", "answer_ids", "TypeError: '>=' not supported"),
        ("response_value", "token_texts", "token_texts", "TypeError: 'NoneType' object is not iterable"),
        ("loss_term", "ref_log_prob", "reference", "TypeError: unsupported operand type(s) for -"),
        ("tracker", "rewards", "rewards", "AttributeError: 'NoneType' object has no attribute 'mean'"),
    ],
)
def test_a_field_that_the_method_does_not_ask_for(hook, field, word, kind):
    stack = MethodStack([Reader()])
    rollouts = replace(random_rollouts(), text=None, token_texts=None, answer_ids=None)
    _, tokens = random_batch()
    call = {
        "loss_term": lambda: stack.loss_term(
            replace(tokens, ref_log_prob=None), [None], [update_of(tokens, METHODS["none"]())]
        ),
        "tracker": lambda: observed(stack.trackers(), replace(rollouts, rewards=None)),
    }
    with pytest.raises(HookError) as caught:
        call.get(hook, lambda: getattr(stack, hook)(rollouts))()
    (name,) = stack.names
    said = str(caught.value)
    assert said.startswith(f"{name}.{hook} reads {field}, which is None here ({kind}")
    assert said.endswith(f'): write needs = {{"{word}"}} in the class') and "\n" not in said
    assert isinstance(caught.value.__cause__, TypeError | AttributeError)


class Early(Method):
    """Wants advantages in the hook that makes the rewards of which they are made."""

    def rewards(self, rollouts):
        return self._made(rollouts)

    def _made(self, rollouts):
        return rollouts.rewards * rollouts.advantages.mean()


class EarlyAtTokens(Early):
    def _made(self, rollouts):
        return rollouts.at_tokens(rollouts.rewards)


@pytest.mark.parametrize("kind, field", [(Early, "advantages"), (EarlyAtTokens, "at_tokens")])
def test_advantages_before_there_are_any(kind, field):
    stack = MethodStack([kind()])
    with pytest.raises(HookError) as caught:
        stack.rewards(replace(random_rollouts(), advantages=None))
    said = str(caught.value)
    assert said.startswith(f"{stack.names[0]}.rewards uses {field}, but there are no advantages yet (AttributeError: ")
    assert said.endswith("): do this in the hook advantages") and "\n" not in said


class Misspelt(Method):
    def rewards(self, rollouts):
        return rollouts.reward

    def prepare(self, batch, update):
        return update.stepp

    def loss_term(self, tokens, context, update):
        return self._mean(tokens)

    def _mean(self, tokens):
        return tokens.statistics.nucleus_entrpy


@pytest.mark.parametrize(
    "hook, lines, said",
    [
        ("rewards", 2, "Rollouts has no field reward; did you mean rewards?"),
        ("prepare", 5, "Update has no field stepp; did you mean step?"),
        ("loss_term", 11, "TokenStatistics has no field nucleus_entrpy; did you mean nucleus_entropy?"),
    ],
)
def test_a_field_that_does_not_exist(hook, lines, said):
    stack, (_, tokens) = MethodStack([Misspelt()]), random_batch()
    updates = [update_of(tokens, METHODS["none"]())]
    call = {
        "rewards": lambda: stack.rewards(random_rollouts()),
        "prepare": lambda: stack.prepare({"exact": tokens}, updates),
        "loss_term": lambda: stack.loss_term(tokens, [None], updates),
    }
    with pytest.raises(HookError) as caught:
        call[hook]()
    line = inspect.getsourcelines(Misspelt)[1] + lines
    assert str(caught.value) == f"{stack.names[0]}.{hook} failed ({__file__}, line {line}): {said}"
    assert isinstance(caught.value.__cause__, AttributeError)


def test_other_errors_of_a_hook_are_as_they_were():
    """Of one that reads what it has asked for, and of one that reads nothing of the kind."""
    stack = MethodStack([Reader()])
    with pytest.raises(TypeError, match=r"^object of type 'int' has no len\(\)$") as caught:
        stack.rewards(replace(random_rollouts(), text=[1]))
    assert not isinstance(caught.value, HookError)
    with pytest.raises(KeyError, match="absent"):
        MethodStack([defined(rewards=lambda self, rollouts: {}["absent"])()]).rewards(random_rollouts())


# ---- trackers --------------------------------------------------------------------------------------------------------


def tracking(**functions) -> Method:
    """A method whose tracker is a Reading without a memory, and has these methods in place of its own."""
    quiet = {"observe": lambda self, rollouts: {"mean": 1.0}, "state_dict": lambda self: {"mean": 1.0}}
    kind = type("Told", (Reading,), quiet | functions)
    return defined(tracker=lambda self: kind(), rewards=lambda self, rollouts: rollouts.rewards)()


@pytest.mark.parametrize(
    "functions, sentence",
    [
        ({"observe": lambda self: {}}, "observe takes (): it must take (rollouts)"),
        ({"signal": lambda self: {}}, "signal takes (): it must take (step)"),
        ({"signal": lambda self, step, rollouts: {}}, "signal takes (step, rollouts): it must take (step)"),
        ({"state_dict": lambda self, step: {}}, "state_dict takes (step): it must take ()"),
        ({"load_state_dict": lambda self: None}, "load_state_dict takes (): it must take (state)"),
    ],
)
def test_a_tracker_with_other_parameters_is_an_error_before_the_run(functions, sentence):
    with pytest.raises(TypeError, match=f"^{re.escape('gap.Mine.tracker.' + sentence)}$"):
        MethodStack([tracking(**functions)])


@pytest.mark.parametrize(
    "hook, value, found, wanted",
    [
        ("observe", None, "None", "a dict of numbers, {} for no metrics: .item()"),
        ("observe", {"mean": torch.ones(())}, "a Tensor under 'mean'", "a dict of numbers, {} for no metrics: .item()"),
        ("signal", None, "None", "a dict of numbers, {} for no signal: .item()"),
        ("signal", {"mean": None}, "a NoneType under 'mean'", "a dict of numbers, {} for no signal: .item()"),
        ("state_dict", None, "None", "a dict of JSON types: .item() or .tolist()"),
        ("state_dict", {"mean": torch.ones(())}, "a value of type dict", "a dict of JSON types: .item() or .tolist()"),
    ],
)
def test_a_tracker_that_returns_what_no_trainer_can_use(hook, value, found, wanted):
    """In the first step, the signal by whatever gets it first."""
    functions = {"state_dict": lambda self: value} if hook == "state_dict" else {hook: lambda self, _: value}
    stack = MethodStack([tracking(**functions)])
    trackers, rollouts = stack.trackers(), replace(random_rollouts(), step=1)

    def signals():
        return {name: tracker.signal(1) for name, tracker in trackers.items()}

    calls = [lambda: observed(trackers, rollouts)]
    if hook == "signal":
        update = update_of(random_batch()[1], stack)
        calls = [lambda: stack.rewards(rollouts, signals()), lambda: stack.updates(update, signals())]
    for call in calls:
        with pytest.raises(HookError) as caught:
            call()
        assert str(caught.value).startswith(f"gap.Mine.tracker.{hook} returned {found}: it must return {wanted}")


def test_a_tracker_as_it_should_be():
    stack = MethodStack([tracking()])
    assert observed(stack.trackers(), replace(random_rollouts(), step=1)) == {"gap.Mine/mean": 1.0}
    assert stack.updates(update_of(random_batch()[1], stack), {"gap.Mine": {}})[0].tracker_signal == {}


def test_trackers_have_their_metrics_by_name():
    stack = MethodStack([METHODS["stare"](), Reader()])
    rollouts = random_rollouts()
    found = observed(stack.trackers(), rollouts, "actor/")
    mean = rollouts.rewards.mean().item()
    assert found["actor/stare/entropy"] == pytest.approx(rollouts.mean(rollouts.entropy), rel=1e-12)
    assert found[f"actor/{stack.names[1]}/mean"] == mean
