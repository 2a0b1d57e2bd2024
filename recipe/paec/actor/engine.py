"""The FSDP engine with token statistics: what methods read is computed where the logits are.

`PAECEngine` replaces verl's FSDP engine for language models.

* Log-probs, entropy and the nucleus statistics come from one `token_statistics` call on the local (sequence) shard of
  the logits, before the Ulysses gather of the per-token results; also for `method=none`, but without the nucleus. Its
  backward pass overwrites the logits. With `fused_head` the LM head computes the statistics itself (`fused_head.py`).
* Before the micro-batches of a mini-batch run, every method has seen the whole mini-batch of all data-parallel ranks
  (`_prepare`), so that nothing depends on how the mini-batch is split.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist
from tensordict import NonTensorData, TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from paec_loss import MethodStack, Tokens, TokenStatistics, Update, token_statistics
from paec_loss.linear import CHUNK_SIZE
from paec_loss.methods import METHODS
from recipe.paec.actor.batches import NUCLEUS, RECORDED, micro_batch_tokens, pack, queued_tokens, unpack
from recipe.paec.actor.engine_config import MethodEngineConfig
from recipe.paec.actor.fused_head import HeadLabels, StatisticsHead
from recipe.paec.actor.loss import MiniBatch
from recipe.paec.run.safe_load import tensors_only


def _flag(micro_batch: TensorDict, name: str) -> bool:
    return tu.get_non_tensor_data(micro_batch, name, default=False)


def _inside(shape: torch.Size, micro_batch: TensorDict) -> torch.Tensor:
    """[B, L] bool, True at the tokens of padded rows."""
    lengths = micro_batch["input_ids"].offsets().diff()
    return torch.arange(shape[1], device=lengths.device) < lengths[:, None]


class NonFiniteLogits(FloatingPointError):
    """NaN or inf in the policy's logits."""


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu", "cuda"], vendor=["cpu", "nvidia"]
)
class PAECEngine(FSDPEngineWithLMHead):
    """verl's FSDP engine for language models, with token statistics and the methods' mini-batch context."""

    def __init__(self, model_config, engine_config, optimizer_config, checkpoint_config):
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)
        # The reference policy comes with verl's own engine config, which knows no method.
        ours = isinstance(engine_config, MethodEngineConfig)
        self.stack = engine_config.stack if ours else MethodStack([METHODS["none"]()])
        self._read_by_methods = self.stack.acts_in_actor or self.stack.needs_rollouts
        self._nan_rows = 0
        self._without_adapter = False
        self._head: StatisticsHead | None = None
        self._vocab_size = int(model_config.hf_config.get_text_config().vocab_size)
        if self._read_by_methods and model_config.use_fused_kernels:
            raise ValueError(
                f"actor_rollout_ref.model.use_fused_kernels=true never materialises the logits that "
                f"{', '.join(self.stack.names)} read: set it to false; "
                "actor_rollout_ref.actor.fsdp_config.fused_head=true saves the same memory"
            )

    def load_checkpoint(self, local_path, *args, **kwargs):
        with tensors_only(Path(local_path)):
            super().load_checkpoint(local_path, *args, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """A pass of the reference policy. Of its results, only the log-probs may enter the queue.

        Everything else has the same name there as the policy's own statistics, which `statistics_from=step` reads.
        """
        self._without_adapter = True
        try:
            with super().disable_adapter():
                yield
        finally:
            self._without_adapter = False

    # ---- one micro-batch -------------------------------------------------------------------------------------------

    def _build_module(self):
        module = super()._build_module()
        if isinstance(self.engine_config, MethodEngineConfig) and self.engine_config.fused_head:
            self._head = StatisticsHead.install(module, self.engine_config.head_chunk_size or CHUNK_SIZE)
        return module

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        if self._head is not None:
            if not self._only_statistics(micro_batch):
                raise ValueError("fused_head=true leaves no logits for distillation or sum_pi_squared: set it to false")
            self._head.targets = self._targets(model_inputs["input_ids"].shape, output_args, micro_batch)
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        if not self._only_statistics(micro_batch):
            model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
            self._count_nan_rows(model_output["log_probs"].values())
            return model_output
        packed = output.logits
        if self._head is None:
            packed = self._packed_statistics(packed, self._targets(packed.shape[:2], output_args, micro_batch))
        else:
            self._head.targets = None
        without_padding = tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True)
        packed = packed.squeeze(0) if without_padding else packed[_inside(packed.shape[:2], micro_batch)]
        self._count_nan_rows(packed[:, 0])
        if without_padding:
            packed = self._gather_and_unpad_packed(packed, output_args["pad_size"])
        model_output = unpack(packed, micro_batch["input_ids"].offsets())
        if self._without_adapter or not (self._read_by_methods or _flag(micro_batch, RECORDED)):
            wanted = {"log_probs", "entropy"} if _flag(micro_batch, "calculate_entropy") else {"log_probs"}
            model_output = {name: values for name, values in model_output.items() if name in wanted}
        return model_output

    def _only_statistics(self, micro_batch: TensorDict) -> bool:
        """Whether only token statistics are requested; distillation and similar features use verl's own code."""
        others = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
        return self._read_by_methods or not any(_flag(micro_batch, name) for name in others)

    def _targets(self, shape: torch.Size, output_args, micro_batch: TensorDict) -> HeadLabels:
        """Label and temperature of every row of the model's output [*shape, ...]."""
        labels, temperature = output_args["input_ids_rmpad_rolled"], 1.0
        if tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True):
            labels = labels.unsqueeze(0)
            if not output_args["temperature_is_one"]:
                temperature = output_args["temperature_rmpad"].clamp(min=1e-8).unsqueeze(0)
        else:
            inside = _inside(shape, micro_batch)
            labels = torch.full(shape, -100, device=labels.device).masked_scatter(inside, labels)
            if not output_args["temperature_is_one"]:
                temperature = output_args["temperature"].clamp(min=1e-8)[:, None].expand(shape)
        return HeadLabels(labels, temperature, self.stack.top_p)

    def _packed_statistics(self, logits: torch.Tensor, targets: HeadLabels) -> torch.Tensor:
        # Only these statistics read the logits, so their memory can be reused for the gradient.
        statistics = token_statistics(
            logits,
            targets.labels,
            top_p=targets.top_p,
            temperature=targets.temperature,
            inplace_backward=logits.requires_grad,
        )
        return pack(statistics)

    # ---- one mini-batch --------------------------------------------------------------------------------------------

    def forward_backward_batch(self, data: TensorDict, loss_function, forward_only: bool = False):
        self._nan_rows = 0
        training = self.stack.acts_in_actor and not forward_only
        if training:
            mini_batch = self._prepare(data)
            tu.assign_non_tensor(data, mini_batch=NonTensorData(mini_batch))
        output = super().forward_backward_batch(data, loss_function, forward_only)
        self._raise_on_nan(data)
        if training:
            sums = self._totals(output["metrics"].pop("method_sums"))
            found = self.stack.metrics(mini_batch.contexts, sums, mini_batch.updates)
            # Lists, because verl averages over micro-batches, mini-batches and ranks.
            output["metrics"].update({name: [value] for name, value in found.items()})
        return output

    def optimizer_step(self):
        grad_norm = super().optimizer_step()
        if self.scaler is None and not math.isfinite(grad_norm):
            # verl has already skipped the update; continuing silently would hide a broken run. (With float16 the loss
            # scaler regularly sees infinite gradients.)
            raise FloatingPointError(f"the gradient norm is {grad_norm}: the parameters were not updated")
        return grad_norm

    # ---- the whole mini-batch, before its micro-batches --------------------------------------------------------------

    def _prepare(self, data: TensorDict) -> MiniBatch:
        """What the methods need to know about this mini-batch; identical on all ranks."""
        tokens = self._all_reduce(data["response_mask"].values().sum().double().reshape(1))
        signals = tu.get_non_tensor_data(data, "method_signals", default={})
        step = tu.get_non_tensor_data(data, "trainer_step", default=0)
        update = Update(
            step=step,
            seed=self.engine_config.seed,
            tokens=int(tokens.item()),
            clip=self.stack.clip_in(step, self.engine_config.clip),
        )
        updates = self.stack.updates(update, signals)
        sources = self.stack.sources()
        batches = {}
        if "step" in sources:
            if NUCLEUS not in data.keys():
                raise KeyError(
                    "method.statistics_from=step needs the step's log-prob pass, and there was none: set "
                    "method.statistics_from=exact"
                )
            batches["step"] = self._gathered(queued_tokens(data, self._vocab_size))
        if "exact" in sources:
            batches["exact"] = self._gathered(self.forward_tokens(data))
        contexts = self.stack.prepare(batches, updates)
        return MiniBatch(self.stack, contexts, updates, self._vocab_size)

    def forward_tokens(self, data: TensorDict) -> Tokens:
        """The tokens of this rank's `data` under the current parameters; one forward pass, no gradient."""
        with torch.no_grad():
            output = super().forward_backward_batch(data, None, forward_only=True)
        self._raise_on_nan(data)
        return micro_batch_tokens(output["model_output"], data.to(get_device_id()), self._vocab_size)

    def _gathered(self, tokens: Tokens) -> Tokens:
        """The tokens of all data-parallel ranks, in the order of the ranks, padded to the longest response."""
        device = get_device_id()
        length = torch.tensor(tokens.response_mask.shape[1], device=device)
        dist.all_reduce(length, op=dist.ReduceOp.MAX, group=self.get_data_parallel_group())
        names = [f.name for f in fields(TokenStatistics) if f.name != "vocab_size"]
        others = ["old_log_prob", "advantages", "response_mask"]
        others += ["ref_log_prob"] if tokens.ref_log_prob is not None else []
        columns = [getattr(tokens.statistics, name) for name in names] + [getattr(tokens, name) for name in others]
        kind = tokens.log_prob.dtype  # a nucleus size is an integer below 2^24: exact in float32
        local = torch.stack([column.to(device=device, dtype=kind) for column in columns], dim=-1)
        local = torch.nn.functional.pad(local, (0, 0, 0, int(length) - local.shape[1]))
        numbers, values = self._of_all_ranks(tokens.response_id), self._of_all_ranks(tokens.response_value)
        found = dict(zip([*names, *others], self._of_all_ranks(local).unbind(-1), strict=True))
        found["nucleus_size"], found["response_mask"] = found["nucleus_size"].long(), found["response_mask"] != 0
        statistics = TokenStatistics(**{name: found.pop(name) for name in names}, vocab_size=self._vocab_size)
        return Tokens(statistics=statistics, response_id=numbers, response_value=values, **found)

    def _of_all_ranks(self, local: torch.Tensor | None) -> torch.Tensor | None:
        """The rows of all data-parallel ranks, of one shape on each; None where there are none."""
        if local is None:
            return None
        group, local = self.get_data_parallel_group(), local.to(get_device_id()).contiguous()
        if (ranks := dist.get_world_size(group)) == 1:
            return local
        shards = [torch.empty_like(local) for _ in range(ranks)]
        dist.all_gather(shards, local, group=group)
        return torch.cat(shards)

    def _totals(self, parts: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
        """`local_sums` of the methods, summed by name over this rank's micro-batches and over the ranks."""
        totals: dict[str, dict[str, float]] = {}
        for method, first in parts[0].items():
            if any(part[method].keys() != first.keys() for part in parts):
                raise ValueError(f"{method}: local_sums must return the same names for every micro-batch")
            local = torch.tensor([[part[method][name] for name in first] for part in parts], dtype=torch.float64).sum(0)
            totals[method] = dict(zip(first, self._all_reduce(local).tolist(), strict=True)) if first else {}
        return totals

    def _all_reduce(self, sums: torch.Tensor) -> torch.Tensor:
        sums = sums.to(get_device_id())
        dist.all_reduce(sums, group=self.get_data_parallel_group())
        return sums.cpu()

    # ---- NaN guard ---------------------------------------------------------------------------------------------------

    def _count_nan_rows(self, log_prob: torch.Tensor) -> None:
        # A row with NaN or +inf has the log-prob NaN whatever its label; -inf logits are legal.
        self._nan_rows = self._nan_rows + log_prob.detach().isnan().sum()

    def _raise_on_nan(self, data: TensorDict) -> None:
        """Raise on all ranks together, before any optimizer step: a single rank would leave the others waiting."""
        count = torch.as_tensor(self._nan_rows, dtype=torch.int64, device=get_device_id()).clone()
        dist.all_reduce(count)
        if count.item():
            step = tu.get_non_tensor_data(data, "trainer_step", default="?")
            raise NonFiniteLogits(
                f"logits: NaN or inf in {count.item()} rows at step {step}; the parameters were not updated. Resume "
                "from an earlier checkpoint with a lower actor_rollout_ref.actor.optim.lr, or check the model's dtype"
            )
