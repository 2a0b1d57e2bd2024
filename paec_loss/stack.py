"""Methods used together, as one: which hooks act, in which order, and which combinations make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch
from paec_loss.method import Clip, Method, Rollouts, Sampling, Tokens, Tracker, Update
from paec_loss.methods import NAMES

if TYPE_CHECKING:
    from torch import Tensor

ALONE = {
    "policy_loss": "a policy loss",
    "selection": "a selection of the tokens in the mean",
    "clip": "a clip range",
    "rewards": "a reward",
    "sampling": "a way of sampling",
}
"""Hooks of which a run has at most one, and what they are called."""
ACTOR = ("prepare", "token_advantages", "selection", "policy_loss", "loss_term")
"""Hooks that act on the actor's tokens."""
DRIVER = ("rewards", "advantages", "tracker")
"""Hooks that read the step's log-prob pass."""


def name_of(method: Method) -> str:
    """The method's name in the catalogue; a user's own goes by its import path."""
    kind = type(method)
    return NAMES.get(kind, f"{kind.__module__}.{kind.__qualname__}")


def _after(method: Method, tokens: Tokens, context: Any, update: Update) -> Tokens:
    """The tokens with the advantages that a method leaves, without gradient."""
    if not method.overrides("token_advantages"):
        return tokens
    return replace(tokens, advantages=method.token_advantages(tokens, context, update).detach())


class MethodStack:
    """Methods in the order in which they act; the first is the run's, the others were added (`also=`).

    Advantages pass from one to the next, loss terms add up, every other hook belongs to one method.

    Raises:
        ValueError: a method twice, or two methods that claim the same place; one sentence.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = tuple(methods)
        self.names = [name_of(method) for method in self.methods]
        for name in self.names:
            if self.names.count(name) > 1:
                raise ValueError(f"also={name}: {name} acts already; name every method once")
        for hook, what in ALONE.items():
            owners = [name_of(method) for method in self._having(hook)]
            if len(owners) > 1:
                raise ValueError(f"{' and '.join(owners)} each bring {what}: choose one of them")
        for changer in self._having("clip"):
            for owner in self._having("policy_loss"):
                if not owner.uses_clip:
                    raise ValueError(
                        f"{name_of(changer)} brings a clip range and {name_of(owner)} a policy loss without any: "
                        "choose one of them"
                    )
        earlier: list[str] = []
        for method in self._having("advantages"):
            if method.own_advantages and earlier:
                raise ValueError(
                    f"{name_of(method)} makes its own advantages from the rewards and would discard those of "
                    f"{' and '.join(earlier)}: name it first, or leave it out"
                )
            earlier.append(name_of(method))

    def _having(self, hook: str) -> list[Method]:
        return [method for method in self.methods if method.overrides(hook)]

    def has(self, hook: str) -> bool:
        """Whether a method has this hook."""
        return bool(self._having(hook))

    def owner(self, hook: str) -> str:
        """Name of the first method that has this hook."""
        return name_of(self._having(hook)[0])

    @property
    def acts_in_actor(self) -> bool:
        """Whether the actor's loss is anything but the plain surrogate."""
        return any(self.has(hook) for hook in ACTOR)

    @property
    def own_surrogate(self) -> bool:
        """Whether the policy loss is not one of verl's."""
        return self.has("policy_loss") or self.has("selection")

    @property
    def needs_rollouts(self) -> bool:
        """Whether a hook on the driver acts."""
        return any(self.has(hook) for hook in DRIVER)

    @property
    def needs(self) -> frozenset[str]:
        """Of "text", "pieces" and "clusters", what `Rollouts` must bring."""
        return frozenset().union(*(method.needs for method in self.methods))

    @property
    def needs_reference(self) -> bool:
        """Whether a method reads the reference policy's log-probs."""
        return any(method.needs_reference for method in self.methods)

    @property
    def curriculum(self) -> bool:
        """Whether a method needs an order of the training data."""
        return any(method.curriculum for method in self.methods)

    @property
    def top_p(self) -> float:
        """Nucleus mass of the token statistics.

        Raises:
            ValueError: two methods want different nuclei.
        """
        wanted = sorted({method.top_p for method in self.methods if method.top_p < 1})
        if len(wanted) > 1:
            raise ValueError(f"methods {', '.join(self.names)} want nuclei of mass {wanted}: give them one top_p")
        return wanted[0] if wanted else 1.0

    def clip(self, clip: Clip) -> Clip:
        """The clip range of the surrogate, from the actor's."""
        for method in self.methods:
            clip = method.clip(clip)
        return clip

    # ---- driver ------------------------------------------------------------------------------------------------------

    def trackers(self) -> dict[str, Tracker]:
        """A new tracker for every method that has one, by the method's name."""
        made = {name: method.tracker() for name, method in zip(self.names, self.methods, strict=True)}
        return {name: tracker for name, tracker in made.items() if tracker is not None}

    def sampling(self, signals: Mapping[str, Mapping[str, float]]) -> Sampling | None:
        """How some prompts of the next step are drawn in another way; None: all alike."""
        for method in self._having("sampling"):
            return method.sampling(signals.get(name_of(method), {}))
        return None

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """[B] rewards for the advantage estimator."""
        for method in self._having("rewards"):
            return method.rewards(rollouts)
        return rollouts.rewards

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """[B, R] advantages, each method's from the one before."""
        for method in self._having("advantages"):
            rollouts = replace(rollouts, advantages=method.advantages(rollouts))
        return rollouts.advantages

    # ---- actor -------------------------------------------------------------------------------------------------------

    def sources(self) -> set[str]:
        """Where `prepare` takes its mini-batch from: "exact", "step", "lagged"."""
        return {method.statistics for method in self._having("prepare")}

    def prepare(
        self,
        batches: Mapping[str, Tokens],
        updates: Sequence[Update],
        previous: Sequence[tuple[Any, list[float]]] | None,
    ) -> list[Any]:
        """Every method's context of a mini-batch.

        Args:
            batches: the whole mini-batch by source, "exact" and "step" as far as needed; "exact" also for a method
                with statistics=lagged at its first mini-batch.
            updates: the update as each method sees it (its own signal).
            previous: every method's context and `report` totals of the mini-batch before, None at the first.
        """
        contexts: list[Any] = []
        for i, (method, update) in enumerate(zip(self.methods, updates, strict=True)):
            context = None
            if method.overrides("prepare") and method.statistics == "lagged" and previous is not None:
                context = method.carry(*previous[i], update)
            elif method.overrides("prepare"):
                context = method.prepare(batches["step" if method.statistics == "step" else "exact"], update)
            contexts.append(context)
            # The next method's statistics are of what it will see.
            batches = {source: _after(method, batch, context, update) for source, batch in batches.items()}
        return contexts

    def token_advantages(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] advantages for the surrogate, without gradient, each method's from the one before."""
        for method, context, update in zip(self.methods, contexts, updates, strict=True):
            tokens = _after(method, tokens, context, update)
        return tokens.advantages

    def _one_by_one(
        self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]
    ) -> Iterator[tuple[Method, Tokens, Any, Update]]:
        """Every method with its context, its update, and the tokens with the advantages that those before it leave."""
        for method, context, update in zip(self.methods, contexts, updates, strict=True):
            yield method, tokens, context, update
            tokens = _after(method, tokens, context, update)

    def selection(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> tuple[Tensor, int]:
        """[B, R] bool, tokens in the surrogate's mean, and how many there are in the whole mini-batch."""
        for method, context, update in zip(self.methods, contexts, updates, strict=True):
            if method.overrides("selection"):
                return method.selection(tokens, context, update)
        return tokens.response_mask, updates[0].tokens

    def policy_loss(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] loss of every token, with gradient."""
        for method, context, update in zip(self.methods, contexts, updates, strict=True):
            if method.overrides("policy_loss"):
                return method.policy_loss(tokens, context, update)
        return self.methods[0].policy_loss(tokens, contexts[0], updates[0])

    def loss_term(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """The sum of all terms beside the policy loss, this micro-batch's share: a scalar with gradient."""
        term = torch.zeros((), dtype=tokens.log_prob.dtype, device=tokens.log_prob.device)
        for method, seen, context, update in self._one_by_one(tokens, contexts, updates):
            if method.overrides("loss_term"):
                term = term + method.loss_term(seen, context, update).to(term.dtype)
        return term

    def loss(self, tokens: Tokens, update: Update) -> Tensor:
        """Loss of a whole mini-batch in one piece, token mean, with gradient: for a trainer without micro-batches."""
        whole = replace(tokens, statistics=tokens.statistics.detach())
        updates = [update] * len(self.methods)
        contexts = self.prepare({"exact": whole, "step": whole}, updates, None)
        term = self.loss_term(tokens, contexts, updates)
        tokens = replace(tokens, advantages=self.token_advantages(tokens, contexts, updates))
        mask, count = self.selection(tokens, contexts, updates)
        losses = self.policy_loss(tokens, contexts, updates)
        return torch.where(mask, losses, 0.0).sum() / max(count, 1) + term

    def report(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> list[list[float]]:
        """Every method's sums over a micro-batch."""
        return [
            m.report(seen, context, update) for m, seen, context, update in self._one_by_one(tokens, contexts, updates)
        ]

    def metrics(
        self, contexts: Sequence[Any], totals: Sequence[list[float]], updates: Sequence[Update]
    ) -> dict[str, float]:
        """Every method's metrics of an update, under `<method>/`."""
        found = {}
        for name, method, *rest in zip(self.names, self.methods, contexts, totals, updates, strict=True):
            found |= {f"{name}/{key}": value for key, value in method.metrics(*rest).items()}
        return found
