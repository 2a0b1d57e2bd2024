"""Methods used together: which hooks act, in which order, and which combinations are invalid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paec_loss import _torch as torch
from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.method import Method, Sampling, Tracker
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
"""Hooks of which a run has at most one, and their names in errors."""
ACTOR = ("prepare", "token_advantages", "selection", "policy_loss", "loss_term")
"""Hooks that act on the actor's tokens."""
DRIVER = ("rewards", "advantages", "tracker")
"""Hooks that read the step's log-prob pass."""


def name_of(method: Method) -> str:
    """The method's name in the catalogue; the import path for a user's own method."""
    kind = type(method)
    return NAMES.get(kind, f"{kind.__module__}.{kind.__qualname__}")


def _after(method: Method, tokens: Tokens, context: Any, update: Update) -> Tokens:
    """The tokens with a method's advantages, without gradient."""
    if not method.overrides("token_advantages"):
        return tokens
    return replace(tokens, advantages=method.token_advantages(tokens, context, update).detach())


class MethodStack:
    """Methods in the order in which they act; the first is the run's, the others are additional (`also=`).

    Advantages are passed from one to the next, loss terms are summed, every other hook belongs to one method.

    Raises:
        ValueError: a method twice, or two methods with the same exclusive hook; one sentence.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = tuple(methods)
        self.names = [name_of(method) for method in self.methods]
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
        earlier: list[str] = []
        for name, method in self._having("advantages"):
            if method.own_advantages and earlier:
                raise ValueError(
                    f"{name} makes its own advantages from the rewards and would discard those of "
                    f"{' and '.join(earlier)}: name it first, or leave it out"
                )
            earlier.append(name)

    def _having(self, hook: str, *columns: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """Each method that has the hook: its name, the method, and its entry of every column.

        A column has one entry for every method of the stack, in their order.
        """
        for name, method, *entries in zip(self.names, self.methods, *columns, strict=True):
            if method.overrides(hook):
                yield name, method, *entries

    def has(self, hook: str) -> bool:
        """Whether a method has this hook."""
        return any(self._having(hook))

    def owner(self, hook: str) -> str:
        """Name of the first method that has this hook."""
        return next(self._having(hook))[0]

    @property
    def acts_in_actor(self) -> bool:
        """Whether the actor's loss differs from the plain surrogate."""
        return any(self.has(hook) for hook in ACTOR)

    @property
    def own_surrogate(self) -> bool:
        """Whether the policy loss is not one of verl's."""
        return self.has("policy_loss") or self.has("selection")

    @property
    def needs_rollouts(self) -> bool:
        """Whether any hook acts on the driver."""
        return any(self.has(hook) for hook in DRIVER)

    @property
    def needs(self) -> frozenset[str]:
        """What the run must provide: keys of `paec_loss.method.NEEDS`."""
        return frozenset().union(*(method.needs for method in self.methods))

    @property
    def top_p(self) -> float:
        """Nucleus mass of the token statistics.

        Raises:
            ValueError: two methods need different nuclei.
        """
        wanted = sorted({method.top_p for method in self.methods if method.top_p < 1})
        if len(wanted) > 1:
            raise ValueError(
                f"methods {', '.join(self.names)} need nuclei of different mass {wanted}: give them the same top_p"
            )
        return wanted[0] if wanted else 1.0

    def clip(self, clip: Clip) -> Clip:
        """The clip range of the surrogate, from the actor's."""
        for _, method in self._having("clip"):
            clip = method.clip(clip)
        return clip

    # ---- driver ------------------------------------------------------------------------------------------------------

    def trackers(self) -> dict[str, Tracker]:
        """A new tracker for every method that has one, by the method's name."""
        made = {name: method.tracker() for name, method in self._having("tracker")}
        return {name: tracker for name, tracker in made.items() if tracker is not None}

    def sampling(self, signals: Mapping[str, Mapping[str, float]]) -> Sampling | None:
        """Different sampling for some prompts of the next step; None: the same for all."""
        for name, method in self._having("sampling"):
            return method.sampling(signals.get(name, {}))
        return None

    def rewards(self, rollouts: Rollouts) -> Tensor:
        """[B] rewards for the advantage estimator."""
        for _, method in self._having("rewards"):
            return method.rewards(rollouts)
        return rollouts.rewards

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """[B, R] advantages, each method's from those of the previous one."""
        for _, method in self._having("advantages"):
            rollouts = replace(rollouts, advantages=method.advantages(rollouts))
        return rollouts.advantages

    # ---- actor -------------------------------------------------------------------------------------------------------

    def sources(self) -> set[str]:
        """Sources of the mini-batch for `prepare`: those of "exact" and "step" that a method uses."""
        return {method.statistics_from for _, method in self._having("prepare")}

    def prepare(self, batches: Mapping[str, Tokens], updates: Sequence[Update]) -> list[Any]:
        """Every method's context of a mini-batch, None for a method without `prepare`.

        Args:
            batches: the full mini-batch by source, for each of `sources()`.
            updates: the update as each method sees it (its own tracker's signal).
        """
        contexts: list[Any] = []
        for method, update in zip(self.methods, updates, strict=True):
            context = None
            if method.overrides("prepare"):
                context = method.prepare(batches[method.statistics_from], update)
            contexts.append(context)
            # The next method's statistics are computed on the advantages that it will see.
            batches = {source: _after(method, batch, context, update) for source, batch in batches.items()}
        return contexts

    def _seen(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Iterator[Tokens]:
        """The tokens as each method sees them, with the advantages of the methods before it."""
        for method, context, update in zip(self.methods, contexts, updates, strict=True):
            yield tokens
            tokens = _after(method, tokens, context, update)

    def token_advantages(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] advantages for the surrogate, without gradient, each method's from those of the previous one."""
        for _, method, context, update in self._having("token_advantages", contexts, updates):
            tokens = _after(method, tokens, context, update)
        return tokens.advantages

    def selection(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> tuple[Tensor, int]:
        """[B, R] bool, tokens in the surrogate's mean, and how many there are in the full mini-batch."""
        for _, method, context, update in self._having("selection", contexts, updates):
            return method.selection(tokens, context, update)
        return tokens.response_mask, updates[0].tokens

    def policy_loss(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """[B, R] loss of every token, with gradient."""
        for _, method, context, update in self._having("policy_loss", contexts, updates):
            return method.policy_loss(tokens, context, update)
        return self.methods[0].policy_loss(tokens, contexts[0], updates[0])

    def loss_term(self, tokens: Tokens, contexts: Sequence[Any], updates: Sequence[Update]) -> Tensor:
        """The sum of all terms added to the policy loss, this micro-batch's share: a scalar with gradient."""
        term = torch.zeros((), dtype=tokens.log_prob.dtype, device=tokens.log_prob.device)
        seen = self._seen(tokens, contexts, updates)
        for _, method, visible, context, update in self._having("loss_term", seen, contexts, updates):
            term = term + method.loss_term(visible, context, update).to(term.dtype)
        return term

    def loss(self, tokens: Tokens, update: Update) -> Tensor:
        """Loss of a full mini-batch in one piece, token mean, with gradient: for a trainer without micro-batches."""
        whole = replace(tokens, statistics=tokens.statistics.detach())
        updates = [update] * len(self.methods)
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
        """The sums over a micro-batch of every method that has some, by the method's name."""
        seen = self._seen(tokens, contexts, updates)
        return {
            name: method.local_sums(visible, context, update)
            for name, method, visible, context, update in self._having("local_sums", seen, contexts, updates)
        }

    def metrics(
        self, contexts: Sequence[Any], sums: Mapping[str, Mapping[str, float]], updates: Sequence[Update]
    ) -> dict[str, float]:
        """Every method's metrics of an update, under `<method>/`, from `local_sums` summed over the mini-batch."""
        found: dict[str, float] = {}
        for name, method, context, update in self._having("metrics", contexts, updates):
            values = method.metrics(context, sums.get(name, {}), update)
            found |= {f"{name}/{key}": value for key, value in values.items()}
        return found
