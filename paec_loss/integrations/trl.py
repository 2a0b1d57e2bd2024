"""TRL's GRPOTrainer with the methods of this library: `PAECTrainer(model, rewards, args, methods=["clip_cov"], ...)`.

Everything that a method does not change is TRL's own code: generation, rewards, advantages, loss types, KL, logging.

* The loss over a mini-batch (all accumulation steps of an optimizer step, all ranks) does not depend on its split: what
  methods need to know about the mini-batch is computed once, before its first accumulation step, from the slices that
  TRL has in its buffer.
* Token statistics come from `token_statistics` on the model's own logits at `args.temperature`.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad

from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.integrations.trl_refusals import refusals
from paec_loss.method import Method
from paec_loss.methods import METHODS
from paec_loss.stack import MethodStack, observed
from paec_loss.statistics import TokenStatistics, token_statistics
from paec_loss.token_texts import token_pieces

STATE_FILE = "paec_state.json"
"""In every checkpoint folder: the number of generations so far, and the state of every tracker by method."""
RESPONSE_ID = "paec_response_id"
"""Key of a batch: [B] int64, the number of the response in the run."""
RESPONSE_VALUE = "paec_response_value"
"""Key of a batch: [B] one number per response, if a method has the hook `response_value`."""
STEP_PREFIX = "paec_step_"
"""Prefix of the keys of a batch that hold the step's statistics, [B, R] each."""

Methods = MethodStack | Method | str | Sequence[Method | str]


def stack_of(methods: Methods) -> MethodStack:
    """The methods as one: a MethodStack, a method or its name in the catalogue, or several of these.

    Raises:
        ValueError: an unknown name, or an invalid combination; one sentence.
    """
    if isinstance(methods, MethodStack):
        return methods
    several = [methods] if isinstance(methods, Method | str) else list(methods)
    for name in several:
        if isinstance(name, str) and name not in METHODS:
            raise ValueError(f"methods={name!r}: must be one of {', '.join(METHODS)}, or a paec_loss.Method")
    return MethodStack([METHODS[method]() if isinstance(method, str) else method for method in several])


@dataclass(frozen=True)
class _MiniBatch:
    """What an accumulation step needs to know about its mini-batch; the same on every rank."""

    contexts: list[Any]
    updates: list[Update]
    sums: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """`local_sums` of the accumulation steps so far."""


class PAECTrainer(GRPOTrainer):
    """GRPOTrainer with one or several methods; everything else is TRL's.

    Args:
        model, reward_funcs, args, train_dataset, others: as for GRPOTrainer; `args`, a GRPOConfig, is not modified.
        methods: the methods, as `stack_of` takes them; `MethodStack` says in which order they act.
        answer_func: required by methods that need answers (`empo`, `seed_grpo`, `spurious`, `ttrl`): called like a
            reward function, returns every response's answer, equal and hashable values for equal answers, or None for a
            response without one.

    Raises:
        ValueError: a method that TRL has no place for, or an option that excludes it; one sentence.
    """

    reward_weights: Tensor

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: GRPOConfig,
        train_dataset: Any = None,
        *others: Any,
        methods: Methods = "paec",
        answer_func: Callable[..., list[Any]] | None = None,
        **options: Any,
    ) -> None:
        self.stack = stack_of(methods)
        self._observes = self.stack.needs_rollouts or "step" in self.stack.sources()
        self._acts = self.stack.acts_in_actor
        reason = next(refusals(self.stack, args, answer_func is not None), None)
        if reason is not None:
            raise ValueError(reason)
        args = copy.copy(args)
        own = _clip_of(args)
        clip = self.stack.clip(own)
        args.epsilon, args.epsilon_high = clip.low, clip.high
        args.delta = None if clip.dual_clip == float("inf") else clip.dual_clip
        super().__init__(model, reward_funcs, args, train_dataset, *others, **options)
        if self._acts or self._observes:
            self._refuse_models()
        self._clip = self.stack.run_clip(own)
        self._answer_func: Any = answer_func
        self._trackers = self.stack.trackers()
        self._generation = 0
        self._generated: tuple[list[list[int]], list[list[int]]] = ([], [])
        self._early: TokenStatistics | None = None
        self._graded: Tensor | None = None
        self._rewards: Tensor | None = None
        self._answers: list[Any] | None = None
        self._mini_batch = _MiniBatch([], [])
        self._computed: TokenStatistics | None = None
        self._vocab_size = 0
        parameters = inspect.signature(self._base_model().forward).parameters
        self._keeps_logits = "logits_to_keep" in parameters
        if self.stack.has("rewards"):
            # `_calculate_rewards` adds a column with the method's reward, the only one that counts.
            self._graded_weights = self.reward_weights
            self.reward_weights = torch.cat([torch.zeros_like(self.reward_weights), torch.ones(1)])

    def _base_model(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _refuse_models(self) -> None:
        names = " and ".join(self.stack.names)
        if self._is_vlm:
            raise ValueError(f"{names} cannot be trained with a vision-language model: use a text model")
        if self.tools:
            raise ValueError(f"{names} cannot be trained with tools or environments: leave them out")
        if self.aux_loss_enabled:
            raise ValueError(f"{names} cannot be combined with a router loss: set router_aux_loss_coef=0.0")

    # ---- token statistics --------------------------------------------------------------------------------------------

    def _statistics(self, model: Any, inputs: Mapping[str, Tensor], rows: int | None = None) -> TokenStatistics:
        """Statistics [B, R] of the completions, `rows` of them at a time, with gradient if it is enabled."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        length = inputs["completion_ids"].shape[1]
        # One more row than tokens: the one before a token predicts it, and the last one predicts nothing.
        labels = ids[:, -length:].masked_fill(attention[:, -length:] == 0, -100)
        labels = torch.nn.functional.pad(labels, (0, 1), value=-100)
        keep = {"logits_to_keep": length + 1} if self._keeps_logits else {}
        parts = []
        for start in range(0, len(ids), rows or len(ids)):
            part = slice(start, start + (rows or len(ids)))
            with self.accelerator.autocast():
                logits = model(input_ids=ids[part], attention_mask=attention[part], use_cache=False, **keep).logits
            parts.append(
                token_statistics(
                    logits[:, -length - 1 :],
                    labels[part],
                    top_p=self.stack.top_p,
                    temperature=self.temperature,
                    inplace_backward=logits.requires_grad,
                )
            )
        columns = [[getattr(part, f.name)[:, :-1] for part in parts] for f in _TENSORS]
        return TokenStatistics.of([torch.cat(column) for column in columns], parts[0].vocab_size)

    def _without_gradient(self, inputs: Mapping[str, Tensor]) -> TokenStatistics:
        with torch.no_grad():
            return self._statistics(self.model, inputs, self.args.per_device_train_batch_size)

    def _of_the_step(self, inputs: Mapping[str, Tensor]) -> TokenStatistics:
        return TokenStatistics.of([inputs[STEP_PREFIX + f.name] for f in _TENSORS], self._vocab_size)

    def _tokens(self, inputs: Mapping[str, Tensor], statistics: TokenStatistics) -> Tokens:
        advantages, old = inputs["advantages"], inputs.get("old_per_token_logps")
        return Tokens(
            statistics=statistics,
            # Without it the mini-batch is the first update after its generation.
            old_log_prob=statistics.log_prob.detach() if old is None else old,
            advantages=advantages if advantages.dim() == 2 else advantages[:, None].expand_as(statistics.log_prob),
            response_mask=inputs["completion_mask"].bool(),
            response_id=inputs[RESPONSE_ID],
            ref_log_prob=inputs.get("ref_per_token_logps"),
            response_value=inputs.get(RESPONSE_VALUE),
        )

    def _all_ranks(self, record: Any) -> Any:
        """Tokens or Rollouts of all ranks, in the order of the ranks, padded to the longest response."""
        if self.accelerator.num_processes == 1:
            return record

        def gathered(value: Any) -> Any:
            if isinstance(value, TokenStatistics):
                return value.map(gathered)
            if isinstance(value, list):
                return gather_object(value)
            if not isinstance(value, Tensor):
                return value
            kind = value.dtype
            value = value.to(torch.uint8) if kind == torch.bool else value
            if value.dim() == 2:
                value = self.accelerator.pad_across_processes(value, dim=1)
            return self.accelerator.gather(value.contiguous()).to(kind)

        return replace(record, **{f.name: gathered(getattr(record, f.name)) for f in fields(record)})

    # ---- a generation ------------------------------------------------------------------------------------------------

    def _generate(self, prompts: list) -> Any:
        generated = super()._generate(prompts)
        self._generated = generated[:2]
        return generated

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training and (self._acts or self._observes)
        self._early = self._graded = self._rewards = self._answers = None
        if training:
            self._generation += 1
        output = super()._generate_and_score_completions(inputs)
        if not training:
            return output
        if "tool_mask" in output:
            raise ValueError(
                f"{' and '.join(self.stack.names)} cannot be trained on completions with the output of tools: "
                "rollout_func must not return an env_mask"
            )
        for name, value in self.stack.scheduled_values(self._generation).items():
            self._metrics["train"][name].append(value)
        output[RESPONSE_ID] = self._response_ids(len(output["completion_ids"]))
        if not self._observes:
            return output
        statistics = self._without_gradient(output) if self._early is None else self._early
        if "step" in self.stack.sources():
            self._vocab_size = statistics.vocab_size
            output |= {STEP_PREFIX + f.name: getattr(statistics, f.name) for f in _TENSORS}
        if self.stack.needs_rollouts:
            self._observe(output, statistics)
        return output

    def _response_ids(self, rows: int) -> Tensor:
        accelerator = self.accelerator
        first = (self._generation * accelerator.num_processes + accelerator.process_index) * rows
        return torch.arange(first, first + rows, device=accelerator.device)

    def _signals(self) -> dict[str, dict[str, float]]:
        return {name: tracker.signal(self._generation) for name, tracker in self._trackers.items()}

    def _observe(self, output: dict[str, Any], statistics: TokenStatistics) -> None:
        """The driver's part in other trainers: trackers see the responses of all ranks, advantages are replaced."""
        rollouts = self._rollouts(output["completion_ids"], output["completion_mask"], statistics)
        graded = replace(rollouts, rewards=self._graded if "rewards" in self.stack.needs else None)
        for name, value in observed(self._trackers, graded).items():
            self._metrics["train"][name].append(value)
        if not (self.stack.has("advantages") or self.stack.has("response_value")):
            return
        rows, length = output["completion_ids"].shape
        start = self.accelerator.process_index * rows
        own = self.accelerator.gather(output["advantages"])
        advantages = torch.where(rollouts.response_mask, own[:, None], 0.0)
        if self.stack.has("advantages"):
            changed = replace(rollouts, rewards=self._rewards, advantages=advantages)
            advantages = self.stack.advantages(changed, self._signals())
            output["advantages"] = advantages[start : start + rows, :length].to(own.dtype).contiguous()
        final = replace(rollouts, rewards=self._graded, advantages=advantages)
        values = self.stack.response_value(final, self._signals())
        if values is not None:
            output[RESPONSE_VALUE] = values[start : start + rows].contiguous()

    def _rollouts(self, ids: Tensor, mask: Tensor, statistics: TokenStatistics) -> Rollouts:
        """The responses of all ranks."""
        needs, inside = self.stack.needs, mask.bool()
        texts = [row[here].tolist() for row, here in zip(ids, inside, strict=True)]
        answers = self._answer_classes() if "answer_ids" in needs else None
        numbers = self._response_ids(len(ids))
        local = Rollouts(
            statistics=statistics.detach(),
            response_mask=inside,
            group_id=numbers // self.num_generations,
            step=self._generation,
            seed=self.args.seed,
            tokens=ids,
            text=[self._tokenizer.decode(row) for row in texts] if "text" in needs else None,
            token_texts=token_pieces(texts, self._tokenizer) if "token_texts" in needs else None,
            place=numbers % self.num_generations,
            max_response_length=self.max_completion_length,
        )
        return replace(self._all_ranks(local), answer_ids=answers)

    def _answer_classes(self) -> Tensor:
        """[B] of all ranks: equal numbers for equal answers to a prompt; a unique negative one for a missing answer."""
        answers = gather_object(self._answers)
        numbers: dict[Any, int] = {}
        found = [
            -1 - row if answer is None else numbers.setdefault((row // self.num_generations, answer), len(numbers))
            for row, answer in enumerate(answers)
        ]
        return torch.tensor(found, device=self.accelerator.device)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        graded = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        training = self.model.training
        if not self.stack.reads_rewards:
            return graded
        weights = self._graded_weights if self.stack.has("rewards") else self.reward_weights
        self._graded = rewards = (graded * weights.to(graded.device)).nansum(dim=1)
        if training and graded.isnan().all(dim=1).any():
            raise ValueError(
                f"every reward function returned None for a response, and {' and '.join(self.stack.names)} needs the "
                "reward of every response: return a number"
            )
        if training and "answer_ids" in self.stack.needs:
            names = set(inputs[0]) - {"prompt", "completion", "completion_ids"}
            columns = {name: [example[name] for example in inputs] for name in names}
            self._answers = self._answer_func(
                prompts=prompts, completions=completions, completion_ids=completion_ids_list, **columns
            )
            if len(self._answers) != len(prompts):
                raise ValueError(
                    f"answer_func returned {len(self._answers)} answers for {len(prompts)} responses: return one for "
                    "each, None for a response without an answer"
                )
        if not self.stack.has("rewards"):
            self._rewards = rewards
            return graded
        if training:
            early = self._padded()
            self._early = self._without_gradient(early)
            rollouts = self._rollouts(early["completion_ids"], early["completion_mask"], self._early)
            rewards = self.stack.rewards(replace(rollouts, rewards=rewards), self._signals()).to(graded.dtype)
            name = f"{self.stack.owner('rewards')}/reward"
            self._metrics["train"][name].append(rewards.double().mean().item())
        self._rewards = rewards
        return torch.cat([graded, rewards[:, None]], dim=1)

    def _padded(self) -> dict[str, Tensor]:
        """The prompts and completions just generated, padded as TRL pads them afterwards."""
        prompts, completions = self._generated
        made = {}
        for name, rows, side in (("prompt", prompts, "left"), ("completion", completions, "right")):
            tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
            options = {"padding_side": side, "pad_to_multiple_of": self.pad_to_multiple_of}
            made[f"{name}_ids"] = pad(tensors, self._tokenizer.pad_token_id, **options)
            made[f"{name}_mask"] = pad([torch.ones_like(row) for row in tensors], 0, **options)
        return {name: values.to(self.accelerator.device) for name, values in made.items()}

    # ---- a mini-batch ------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if self._acts and self.model.training:
            first, count = self._step % self.args.steps_per_generation, self.args.gradient_accumulation_steps
            if first % count == 0:
                self._mini_batch = self._prepared(self._buffered_inputs[first : first + count])
        return inputs

    def _prepared(self, slices: list[dict[str, Any]]) -> _MiniBatch:
        """What the methods need to know about the mini-batch of all ranks, before its first accumulation step."""
        count = torch.stack([part["completion_mask"].sum() for part in slices]).sum()
        update = Update(
            step=self._generation,
            seed=self.args.seed,
            tokens=int(self.accelerator.reduce(count, reduction="sum")),
            clip=self.stack.clip_in(self._generation, self._clip),
        )
        signals = self._signals()
        updates = self.stack.updates(update, signals)
        compute = {"exact": self._without_gradient, "step": self._of_the_step}
        batches = {}
        for source in sorted(self.stack.sources()):
            parts = [self._tokens(part, compute[source](part)) for part in slices]
            batches[source] = self._all_ranks(_joined(parts))
            if batches[source].log_prob.isnan().any():
                raise FloatingPointError(
                    f"logits: NaN or inf at step {self.state.global_step + 1}; the parameters were not updated: "
                    "resume from an earlier checkpoint with a lower learning_rate"
                )
        return _MiniBatch(self.stack.prepare(batches, updates), updates)

    # ---- an accumulation step ----------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **options: Any) -> Any:
        if self._computed is None:
            return super()._get_per_token_logps_and_entropies(*arguments, **options)
        return self._computed.log_prob, self._computed.entropy.detach(), None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not (self._acts and self.model.training):
            return super()._compute_loss(model, inputs)
        stack, mini_batch = self.stack, self._mini_batch
        contexts, updates = mini_batch.contexts, mini_batch.updates
        self._computed = self._statistics(model, inputs)
        try:
            tokens = self._tokens(inputs, self._computed)
            term = stack.loss_term(tokens, contexts, updates)
            mini_batch.sums.append(stack.local_sums(tokens, contexts, updates))
            tokens = replace(tokens, advantages=stack.token_advantages(tokens, contexts, updates))
            if not stack.own_surrogate:
                loss = super()._compute_loss(model, {**inputs, "advantages": tokens.advantages})
            else:
                # TRL's policy loss of advantages 0 is 0; its KL and metrics stay.
                without = {**inputs, "advantages": torch.zeros_like(tokens.advantages)}
                loss = super()._compute_loss(model, without) + self._policy_loss(tokens, mini_batch, inputs)
                for name in [name for name in self._metrics["train"] if name.startswith("clip_ratio/")]:
                    del self._metrics["train"][name]  # of a surrogate that is not in use
        finally:
            self._computed = None
        if len(mini_batch.sums) == self.args.gradient_accumulation_steps:
            self._record(mini_batch)
        # Gradients are averaged over the ranks, and the term is a sum over them.
        return loss + term * self.accelerator.num_processes

    def _policy_loss(self, tokens: Tokens, mini_batch: _MiniBatch, inputs: Mapping[str, Any]) -> Tensor:
        """The methods' policy loss over their selection of tokens, this accumulation step's share, as `loss_type`."""
        contexts, updates, args = mini_batch.contexts, mini_batch.updates, self.args
        losses = self.stack.policy_loss(tokens, contexts, updates)
        if self.use_vllm and self.vllm_importance_sampling_correction:
            losses = losses * inputs["importance_sampling_ratio"]
        mask, count = self.stack.selection(tokens, contexts, updates)
        losses = torch.where(mask, losses, 0.0)
        if self.loss_type == "grpo":
            return (losses.sum(-1) / mask.sum(-1).clamp_min(1)).mean() / args.gradient_accumulation_steps
        if self.loss_type == "dr_grpo":
            return losses.sum() / (len(losses) * self.max_completion_length) / args.gradient_accumulation_steps
        # TRL's "dapo": the tokens of the generation, divided by its optimizer steps and by the ranks.
        share = args.gradient_accumulation_steps / args.steps_per_generation
        tokens_of_a_step = inputs["num_items_in_batch"].clamp_min(1) * share / self.accelerator.num_processes
        return losses.sum() / (tokens_of_a_step * max(count, 1) / max(updates[0].tokens, 1))

    def _record(self, mini_batch: _MiniBatch) -> None:
        """The methods' metrics of the mini-batch, into TRL's log as `<method>/<name>`."""
        sums = {}
        for method, first in mini_batch.sums[0].items():
            rows = [[part[method][name] for name in first] for part in mini_batch.sums]
            # float64 is exact where a GPU reduces it; the sums are few.
            local = torch.tensor(rows, dtype=torch.float64, device=self.accelerator.device).sum(0)
            sums[method] = dict(zip(first, self.accelerator.reduce(local, reduction="sum").tolist(), strict=True))
        for name, value in self.stack.metrics(mini_batch.contexts, sums, mini_batch.updates).items():
            self._metrics["train"][name].append(value)

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save and (self._acts or self._observes):
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            methods = {name: tracker.state_dict() for name, tracker in self._trackers.items()}
            text = json.dumps({"generation": self._generation, "methods": methods})
            (folder / STATE_FILE).write_text(text, encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not (self._acts or self._observes):
            return
        file = Path(checkpoint) / STATE_FILE
        if not file.is_file():
            raise ValueError(
                f"{file} does not exist, and {' and '.join(self.stack.names)} cannot be resumed without it: resume "
                "from a checkpoint that PAECTrainer wrote with the same methods"
            )
        state = json.loads(file.read_text(encoding="utf-8"))
        if set(state["methods"]) != set(self._trackers):
            raise ValueError(
                f"{file} has the memory of {', '.join(state['methods']) or 'no method'}, and this run needs that of "
                f"{', '.join(self._trackers) or 'no method'}: resume with the methods of the run"
            )
        self._generation = state["generation"]
        for name, tracker in self._trackers.items():
            tracker.load_state_dict(state["methods"][name])


_TENSORS = [f for f in fields(TokenStatistics) if f.name != "vocab_size"]


def _clip_of(args: GRPOConfig) -> Clip:
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    return Clip(args.epsilon, high, float("inf") if args.delta is None else args.delta)


def _joined(parts: list[Tokens]) -> Tokens:
    """The responses of all `parts`, which are padded to the same length."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], TokenStatistics):
            columns = [[getattr(value, f.name) for value in values] for f in _TENSORS]
            return TokenStatistics.of([torch.cat(column) for column in columns], values[0].vocab_size)
        return values[0] if values[0] is None else torch.cat(values)

    return Tokens(**{f.name: join([getattr(part, f.name) for part in parts]) for f in fields(Tokens)})
