"""Methods used together: which hooks act, in which order, and which combinations are invalid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch
from paec_loss.batch import NO_SIGNAL, Clip, Rollouts, Tokens, Update
from paec_loss.hooks import check_result, check_tracker, lacking
from paec_loss.method import Method, Sampling, Tracker
from paec_loss.methods import NAMES, check_own

if TYPE_CHECKING:
    from torch import Tensor

ALONE = {
    "policy_loss": "a policy loss",
    "selection": "a selection of the tokens in the mean",
    "clip": "a clip range",
    "rewards": "a reward",
    "sampling": "a way of sampling",
    "response_value": "a number of every response",
}
"""Hooks that at most one method of a run may have -> their names in errors."""
ACTOR = ("prepare", "token_advantages", "selection", "policy_loss", "loss_term")
"""Hooks that act on the actor's tokens."""
DRIVER = ("rewards", "advantages", "response_value", "tracker")
"""Hooks that read the step's log-prob pass."""
BEFORE_THE_LOSS = {
    "tracker": "observed(trackers, rollouts) (trackers = stack.trackers() of the run's start)",
    "sampling": "stack.sampling(signals, step)",
    "rewards": "stack.rewards(rollouts, signals)",
    "advantages": "stack.advantages(rollouts, signals)",
    "response_value": "stack.response_value(rollouts, signals)",
}
"""Hooks that a trainer must call itself, before the updates of a step -> how."""
CHECKED_STEPS = 1000
"""About how many evenly spaced steps are checked, before a run, for fields whose schedules contradict each other."""

Signals = Mapping[str, Mapping[str, float]]
"""Name of a method -> the signal of its tracker for a step (`Tracker.signal`)."""
NO_SIGNALS: Signals = {}
"""For hooks that run without trackers."""


def name_of(method: Method) -> str:
    """The method's name in the catalogue; the import path for a user's own method."""
    kind = type(method)
    return NAMES.get(kind, f"{kind.__module__}.{kind.__qualname__}")


def _seen_by(name: str, rollouts: Rollouts, signals: Signals) -> Rollouts:
    """The responses as the method `name` sees them: the signal of its own tracker, and copies that it may change."""
    given = {"rewards": rollouts.rewards, "advantages": rollouts.advantages}
    copies = {key: value.clone() for key, value in given.items() if value is not None}
    return replace(rollouts, tracker_signal=_signal_of(name, signals), **copies)


def _signal_of(name: str, signals: Signals) -> Mapping[str, float]:
    """The signal of the method's own tracker, empty without one; HookError if it is no dict of numbers."""
    return check_result(f"{name}.tracker.signal", "signal", signals.get(name, {}))


def observed(trackers: Mapping[str, Tracker], rollouts: Rollouts, prefix: str = "") -> dict[str, float]:
    """Shows the responses to every tracker (`MethodStack.trackers`); their metrics as `<prefix><method>/<metric>`.

    Raises:
        HookError: a tracker needs what the run does not provide, its metrics are not a dict of numbers, or (looked at
            in step 1) its state is not of JSON types.
    """
    found: dict[str, float] = {}
    for name, tracker in trackers.items():
        values = _result(name, "tracker", tracker.observe, _seen_by(name, rollouts, NO_SIGNALS))
        check_result(f"{name}.tracker.observe", "observe", values)
        if rollouts.step == 1:
            check_result(f"{name}.tracker.state_dict", "state_dict", tracker.state_dict())
        found |= {f"{prefix}{name}/{key}": value for key, value in values.items()}
    return found


def _result(name: str, hook: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a hook of the method `name` returns for its arguments, the first of which is what it sees.

    Raises:
        HookError: it failed on a field that it must ask for, or that does not exist (`paec_loss.hooks.lacking`).
    """
    try:
        return function(*arguments)
    except Exception as error:
        if (explained := lacking(name, hook, arguments[0], error)) is not None:
            raise explained from error
        raise


class ScheduledTracker:
    """The tracker of a method with schedules, made anew with the numbers of each step and given the memory so far."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._tracker: Any = method.at(1).tracker()

    def _at(self, step: int) -> Any:
        tracker: Any = self._method.at(step).tracker()
        tracker.load_state_dict(self._tracker.state_dict())
        return tracker

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        """`Tracker.observe` with the numbers of the responses' step."""
        self._tracker = self._at(rollouts.step)
        return self._tracker.observe(rollouts)

    def signal(self, step: int) -> dict[str, float]:
        """`Tracker.signal` with the numbers of `step`."""
        return self._at(step).signal(step)

    def state_dict(self) -> dict[str, Any]:
        """The memory, the same as without schedules."""
        return self._tracker.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the memory; ValueError for an invalid state."""
        self._tracker.load_state_dict(state)


_ANY = Clip(0.2, 0.2, 3.0)
"""Some clip range of the actor."""


def _end(method: Method) -> int:
    """The first step from which on the method no longer changes."""
    return max((schedule.steps + 1 for schedule in method.schedules.values()), default=1)


def _check_schedules(method: Method) -> None:
    """Refuses a schedule of a field that is read only once, and numbers that contradict each other in some step."""
    schedules = method.schedules
    if not schedules:
        return
    for name, schedule in schedules.items():
        if name in method.unscheduled:
            raise ValueError(f"method.{name}={schedule}: cannot follow a schedule: it is {method.unscheduled[name]}")
    end = _end(method)
    corners = {schedule.steps + extra for schedule in schedules.values() for extra in (0, 1)}
    for step in sorted({*range(1, end, max(1, end // CHECKED_STEPS)), *corners}):
        try:
            now = method.at(step)
        except ValueError as error:
            raise ValueError(f"in step {step}, {error}") from None
        if now.top_p != method.at(1).top_p:
            name = "top_p" if "top_p" in schedules else next(iter(schedules))
            raise ValueError(
                f"method.{name}={schedules[name]}: cannot follow a schedule: it changes the nucleus of the run's token "
                "statistics"
            )


class MethodStack:
    """Methods that act together; the first is the run's, the others are additional (`also=`).

    Advantages are passed from one to the next and loss terms are summed; at most one method may have each hook of
    ALONE. Each hook acts in the order of the methods, `advantages` of all of them before `token_advantages`. The method
    with the policy loss or the selection prepares last, on the final advantages, unless it changes them itself. Where a
    field follows a schedule, the hooks see the number of their step. Rewards and advantages are copied for the hooks
    on the driver, and advantages for `token_advantages`, so these may change them in place. Everything else is shared:
    the statistics, the masks, the other tensors, and the advantages in the hooks of the loss may not be changed.

    Raises:
        ValueError: a method twice, two methods with the same exclusive hook, or an invalid schedule; one sentence.
        TypeError: something else than instances of methods, a class of one's own that would train something else
            (`paec_loss.methods.check_own`), or a tracker's method that takes other arguments.
        HookError: an invalid clip range or tracker. The hooks raise it for every result that no trainer can use.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        if isinstance(methods, Method) or not methods or not all(isinstance(method, Method) for method in methods):
            raise TypeError("methods must be Method instances, at least one: write MethodStack([METHODS['paec']()])")
        self.methods = tuple(methods)
        self.names = [name_of(method) for method in self.methods]
        self.scheduled = any(method.schedules for method in self.methods)
        self._current = (0, self.methods)
        for name, method in zip(self.names, self.methods, strict=True):
            check_own(type(method), name)
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"also={name}: {name} is already active; name every method once")
        for hook, what in ALONE.items():
            owners = [name for name, _ in self._having(hook)]
            if len(owners) > 1:
                raise ValueError(f"{' and '.join(owners)} each bring {what}: choose one of them")
        for changer, _ in self._having("clip"):
            for owner, method in self._having("policy_loss"):
                if not method.uses_clip:
                    raise ValueError(
                        f"{changer} brings a clip range, and {owner} a policy loss without one: choose one of them"
                    )
        for changer, rewarding in self._having("rewards"):
            for reader, method in self._having("advantages"):
                if method.binary_rewards and not rewarding.binary_rewards:
                    raise ValueError(
                        f"{reader} needs rewards of 1 for right and 0 for wrong responses, and {changer} makes others: "
                        "leave one of them out"
                    )
        earlier: list[str] = []
        for name, method in self._having("advantages"):
            if method.own_advantages and earlier:
                raise ValueError(
                    f"{name} makes its own advantages from the rewards and would discard those of "
                    f"{' and '.join(earlier)}: name it first, or leave it out"
                )
            earlier.append(name)
        in_update: list[str] = []
        for name, method in zip(self.names, self.methods, strict=True):
            if method.bounds_advantages and in_update:
                raise ValueError(
                    f"{name} acts on the advantages before the update, and {' and '.join(in_update)} in it: name "
                    f"{name} first, or leave it out"
                )
            if method.overrides("token_advantages"):
                in_update.append(name)
        for method in self.methods:
            _check_schedules(method)
        self.clip(_ANY)
        self.trackers()  # these two hooks are called before a run, so that an error comes before it

    def at(self, step: int) -> tuple[Method, ...]:
        """The methods with the numbers of a trainer step where a field follows a schedule."""
        if self.scheduled and self._current[0] != step:
            self._current = (step, tuple(method.at(step) for method in self.methods))
        return self._current[1]

    def _having(self, hook: str, *columns: Iterable[Any], step: int = 1) -> Iterator[tuple[Any, ...]]:
        """Each method that has the hook: its name, the method in `step`, and its entry of every column.

        A column has one entry for every method of the stack, in their order.
        """
        for name, method, *entries in zip(self.names, self.at(step), *columns, strict=True):
            if method.overrides(hook):
                yield name, method, *entries

    def _unresolved(self, hook: str) -> Iterator[tuple[str, Method]]:
        """The name of each method that has the hook, and the method with its schedules."""
        for name, method in zip(self.names, self.methods, strict=True):
            if method.overrides(hook):
                yield name, method

    def _only(self, hook: str, *columns: Iterable[Any], step: int = 1) -> tuple[Any, ...] | None:
        """The one that has a hook of ALONE, as `_having` yields it; None if no method has it."""
        return next(self._having(hook, *columns, step=step), None)

    def has(self, hook: str) -> bool:
        """Whether a method has this hook."""
        return any(self._having(hook))

    def owner(self, hook: str) -> str:
        """Name of the first method that has this hook."""
        return next(self._having(hook))[0]

    @property
    def acts_in_actor(self) -> bool:
        """Whether the actor's loss differs from the plain surrogate."""
        return self.moving_clip or any(self.has(hook) for hook in ACTOR)

    @property
    def own_surrogate(self) -> bool:
        """Whether the policy loss is computed here instead of by the trainer."""
        return self.moving_clip or self.has("policy_loss") or self.has("selection")

    @cached_property
    def moving_clip(self) -> bool:
        """Whether the clip range follows a schedule; verl's and TRL's own surrogates have one for all steps."""
        return any(
            method.at(1).clip(_ANY) != method.at(_end(method)).clip(_ANY) for _, method in self._unresolved("clip")
        )

    def run_clip(self, clip: Clip) -> Clip:
        """What a trainer keeps for `clip_in`: the range of all steps, or the actor's if `moving_clip`."""
        return clip if self.moving_clip else self.clip(clip)

    def clip_in(self, step: int, run_clip: Clip) -> Clip:
        """The clip range of the surrogate in a trainer step."""
        return self.clip(run_clip, step) if self.moving_clip else run_clip

    def scheduled_values(self, step: int, prefix: str = "") -> dict[str, float]:
        """The numbers of a step that follow a schedule, as metrics `<prefix><method>/<field>`."""
        return {
            f"{prefix}{name}/{field}": schedule.at(step)
            for name, method in zip(self.names, self.methods, strict=True)
            for field, schedule in method.schedules.items()
        }

    @property
    def needs_rollouts(self) -> bool:
        """Whether any hook needs the responses of a step and their log-prob pass, or a method their rewards."""
        return self.reads_rewards or any(self.has(hook) for hook in DRIVER)

    @property
    def reads_rewards(self) -> bool:
        """Whether any hook, or a tracker, reads the rewards of the responses."""
        hooks = ("rewards", "advantages", "response_value")
        return "rewards" in self.needs or any(self.has(hook) for hook in hooks)

    @property
    def needs(self) -> frozenset[str]:
        """What the run must provide: keys of `paec_loss.method.NEEDS`."""
        return frozenset().union(*(method.needs for method in self.methods))

    def too_few(self, setting: str, responses: int) -> Iterator[str]:
        """One sentence for each method that needs more responses to a prompt than a setting draws."""
        for name, method in zip(self.names, self.methods, strict=True):
            if responses < method.least_responses:
                yield (
                    f"{setting}={responses}: {name} compares the responses to one prompt: draw at least "
                    f"{method.least_responses}"
                )

    @cached_property
    def _nuclei(self) -> list[float]:
        """Masses of the nuclei that the methods read."""
        having = (m for m in self.methods if m.top_p < 1 or "top_p" in {field.name for field in fields(m)})
        return sorted({method.top_p for method in having})

    @property
    def top_p(self) -> float:
        """Nucleus mass of the token statistics.

        Raises:
            ValueError: two methods need different nuclei.
        """
        wanted = self._nuclei
        if len(wanted) > 1:
            raise ValueError(
                f"methods {', '.join(self.names)} need nuclei of different mass {wanted}: give them the same top_p"
            )
        return wanted[0] if wanted else 1.0

    def clip(self, clip: Clip, step: int = 1) -> Clip:
        """The clip range of the surrogate in a trainer step, from the actor's."""
        for name, method in self._having("clip", step=step):
            clip = self.checked(name, "clip", method.clip(clip))
        return clip

    def checked(self, name: str, hook: str, value: Any, seen: Tokens | Rollouts | None = None) -> Any:
        """What a hook of the method `name` returned for the tokens that it has seen.

        Raises:
            HookError: a type or shape that no trainer can use; one sentence.
        """
        return check_result(f"{name}.{hook}", hook, value, seen.response_mask.shape if seen is not None else ())

    def _called(self, name: str, method: Method, hook: str, seen: Tokens | Rollouts, *others: Any) -> Any:
        """The `checked` result of a hook for what it sees."""
        return self.checked(name, hook, _result(name, hook, getattr(method, hook), seen, *others), seen)

    # ---- driver ------------------------------------------------------------------------------------------------------

    def trackers(self) -> dict[str, Tracker]:
        """A new tracker for every method that has one, by the method's name."""
        made: dict[str, Tracker] = {}
        for name, method in self._unresolved("tracker"):
            tracker = self.checked(name, "tracker", method.at(1).tracker())
            if tracker is not None:
                check_tracker(f"{name}.tracker", tracker)
                made[name] = ScheduledTracker(method) if method.schedules else tracker
        return made

    def sampling(self, signals: Signals, step: int = 1) -> Sampling | None:
        """Different sampling for some prompts of the next step, `step`; None: the same for all."""
        owner = self._only("sampling", step=step)
        if owner is None:
            return None
        name, method = owner
        return self.checked(name, "sampling", method.sampling(_signal_of(name, signals)))

    def rewards(self, rollouts: Rollouts, signals: Signals = NO_SIGNALS) -> Tensor:
        """[B] rewards for the advantage estimator; `signals` are the trackers' for this step, by method name."""
        owner = self._only("rewards", step=rollouts.step)
        if owner is None:
            return rollouts.rewards
        name, method = owner
        return self._called(name, method, "rewards", _seen_by(name, rollouts, signals))

    def advantages(self, rollouts: Rollouts, signals: Signals = NO_SIGNALS) -> Tensor:
        """[B, R] advantages, each method's from those of the previous one; `signals` as for `rewards`."""
        for name, method in self._having("advantages", step=rollouts.step):
            found = self._called(name, method, "advantages", _seen_by(name, rollouts, signals))
            rollouts = replace(rollouts, advantages=found)
        return rollouts.advantages

    def response_value(self, rollouts: Rollouts, signals: Signals = NO_SIGNALS) -> Tensor | None:
        """[B] float32 `Tokens.response_value`, from graded rewards and final advantages; None if no method has it.

        `signals` as for `rewards`.
        """
        owner = self._only("response_value", step=rollouts.step)
        if owner is None:
            return None
        name, method = owner
        return self._called(name, method, "response_value", _seen_by(name, rollouts, signals)).float()

    # ---- actor -------------------------------------------------------------------------------------------------------

    def _after(self, name: str, method: Method, tokens: Tokens, context: Any, update: Update) -> Tokens:
        """The tokens with a method's advantages, without gradient."""
        if not method.overrides("token_advantages"):
            return tokens
        own = replace(tokens, advantages=tokens.advantages.clone())  # which it may change: others see the same tokens
        return replace(tokens, advantages=self._called(name, method, "token_advantages", own, context, update).detach())

    def sources(self) -> set[str]:
        """Sources of the mini-batch that the methods' `prepare` uses: "exact", "step", both or none."""
        return {method.statistics_from for _, method in self._having("prepare")}

    def updates(self, update: Update, signals: Signals) -> list[Update]:
        """The update as each method sees it: with the signal of its own tracker, empty without one.

        Raises:
            ValueError: a signal of something else than a method of the stack.
        """
        if unknown := [key for key in signals if key not in self.names]:
            raise ValueError(
                f"signals has {unknown[0]}, which is not a method of this stack: write signals = {{name: "
                "tracker.signal(step) for name, tracker in trackers.items()}"
            )
        return [replace(update, tracker_signal=_signal_of(name, signals)) for name in self.names]

    def prepare(self, batches: Mapping[str, Tokens], updates: Sequence[Update]) -> list[Any]:
        """Every method's context of a mini-batch, None for a method without `prepare`.

        Args:
            batches: the full mini-batch by source, for each of `sources()`.
            updates: the update as each method sees it (`updates`).

        Raises:
            ValueError: a method acts before the loss, and its update was made without a signal; or the statistics are
                known to have another nucleus than the methods'.
        """
        for batch in batches.values():
            top_p = getattr(batch.statistics, "top_p", None)
            if self._nuclei and top_p is not None and top_p != self.top_p:
                raise ValueError(
                    f"the statistics have top_p={top_p}, and {' and '.join(self.names)} a nucleus of {self.top_p}: "
                    "write token_statistics(..., top_p=stack.top_p)"
                )
        for name, method, update in zip(self.names, self.methods, updates, strict=True):
            calls = [call for hook, call in BEFORE_THE_LOSS.items() if method.overrides(hook)]
            if calls and update.tracker_signal is NO_SIGNAL:
                raise ValueError(
                    f"{name} also acts before the loss: in each step call {', '.join(calls)}, and give the loss "
                    'stack.updates(update, signals) (docs/methods.md, "Without verl")'
                )
        contexts: list[Any] = [None] * len(self.methods)
        now = self.at(updates[0].step)
        for i in self._in_update():
            name, method, update = self.names[i], now[i], updates[i]
            if method.overrides("prepare"):
                contexts[i] = _result(name, "prepare", method.prepare, batches[method.statistics_from], update)
            # The next method's statistics are computed on the advantages that it will see.
            batches = {at: self._after(name, method, seen, contexts[i], update) for at, seen in batches.items()}
        return contexts

    def _in_update(self) -> list[int]:
        """Places of the methods in the order in which they see advantages in an update.

        What leaves them as they are and owns the surrogate comes last: its loss is of the final ones.
        """
        owning = [m.overrides("policy_loss") or m.overrides("selection") for m in self.methods]
        last = [owns and not m.overrides("token_advantages") for owns, m in zip(owning, self.methods, strict=True)]
        return sorted(range(len(last)), key=last.__getitem__)

    def _seen(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> list[Tokens]:
        """The tokens as each method sees them, with the advantages of the methods before it (`_in_update`)."""
        seen, now = [tokens] * len(self.methods), self.at(updates[0].step)
        for i in self._in_update():
            seen[i] = tokens
            tokens = self._after(self.names[i], now[i], tokens, contexts[i], updates[i])
        return seen

    def token_advantages(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] advantages for the surrogate, without gradient, each method's from those of the previous one."""
        for name, method, context, update in self._having("token_advantages", contexts, updates, step=updates[0].step):
            tokens = self._after(name, method, tokens, context, update)
        return tokens.advantages

    def selection(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> tuple[Tensor, int]:
        """[B, R] bool, tokens in the surrogate's mean, and how many there are in the full mini-batch."""
        owner = self._only("selection", contexts, updates, step=updates[0].step)
        if owner is None:
            return tokens.response_mask, updates[0].tokens
        name, method, context, update = owner
        return self._called(name, method, "selection", tokens, context, update)

    def policy_loss(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] loss of every token, with gradient."""
        owner = self._only("policy_loss", contexts, updates, step=updates[0].step)
        if owner is None:
            return self.at(updates[0].step)[0].policy_loss(tokens, contexts[0], updates[0])
        name, method, context, update = owner
        return self._called(name, method, "policy_loss", tokens, context, update)

    def loss_term(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """The sum of all terms added to the policy loss, this micro-batch's share: a scalar with gradient."""
        term = torch.zeros((), dtype=tokens.log_prob.dtype, device=tokens.log_prob.device)
        seen = self._seen(tokens, contexts, updates)
        for name, method, visible, context, update in self._having(
            "loss_term", seen, contexts, updates, step=updates[0].step
        ):
            term = term + self._called(name, method, "loss_term", visible, context, update).to(term.dtype)
        return term

    def loss(self, tokens: Tokens, update: Update | Sequence[Update]) -> Tensor:
        """Loss of a full mini-batch in one piece, token mean, with gradient: for a trainer without micro-batches.

        Args:
            update: the update as each method sees it (`updates`), or one for all of them.

        Raises:
            ValueError: the tokens are only a part of the mini-batch (not looked at where that would wait for a device);
                a method acts before the loss, and its signal or its `Tokens.response_value` is missing; or one update
                for all of them has a signal, and more than one has a tracker.
        """
        whole = replace(tokens, statistics=tokens.statistics.detach())
        tracking = [name for name, _ in self._having("tracker")]
        if isinstance(update, Update) and update.tracker_signal and len(tracking) > 1:
            raise ValueError(
                f"tracker_signal would be read by {' and '.join(tracking)}, which each have a tracker of their own: "
                "give the loss stack.updates(update, signals)"
            )
        updates = [update] * len(self.methods) if isinstance(update, Update) else update
        mask = tokens.response_mask
        if (mask.device.type == "cpu" or self.has("prepare")) and (given := int(mask.sum())) != updates[0].tokens:
            raise ValueError(
                f"update.tokens is {updates[0].tokens}, and these responses have {given} tokens: stack.loss takes the "
                "whole mini-batch; for a part of it call stack.prepare with all of it first, then the hooks "
                '(docs/methods.md, "Micro-batches and ranks")'
            )
        if self.has("response_value") and tokens.response_value is None:
            raise ValueError(
                f"{self.owner('response_value')} needs a number of every response: write "
                "Tokens(..., response_value=stack.response_value(rollouts, signals))"
            )
        contexts = self.prepare({"exact": whole, "step": whole}, updates)
        term = self.loss_term(tokens, contexts, updates)
        tokens = replace(tokens, advantages=self.token_advantages(tokens, contexts, updates))
        mask, count = self.selection(tokens, contexts, updates)
        losses = self.policy_loss(tokens, contexts, updates)
        return torch.where(mask, losses, 0.0).sum() / max(count, 1) + term

    # ---- metrics -----------------------------------------------------------------------------------------------------

    def local_sums(
        self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]
    ) -> dict[str, dict[str, float]]:
        """Sums over a micro-batch, by method name, for every method that has some."""
        seen = self._seen(tokens, contexts, updates)
        return {
            name: self._called(name, method, "local_sums", visible, context, update)
            for name, method, visible, context, update in self._having(
                "local_sums", seen, contexts, updates, step=updates[0].step
            )
        }

    def metrics(
        self, contexts: Sequence[Any], sums: Mapping[str, Mapping[str, float]], updates: Sequence[Update]
    ) -> dict[str, float]:
        """Every method's metrics of an update, under `<method>/`, from `local_sums` summed over the mini-batch."""
        found: dict[str, float] = {}
        for name, method, context, update in self._having("metrics", contexts, updates, step=updates[0].step):
            values = self.checked(name, "metrics", method.metrics(context, sums.get(name, {}), update))
            found |= {f"{name}/{key}": value for key, value in values.items()}
        return found
