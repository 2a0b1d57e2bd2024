"""The FSDP engine with token statistics: PAEC's quantities computed where the logits are.

`PAECEngine` replaces verl's FSDP engine for language models.

* Log-probs, entropy and the nucleus statistics come from one `token_statistics` call on the local (sequence) shard of
  the logits, before the Ulysses gather of the per-token results; for `method=none` too, without the nucleus. Its
  backward pass writes over the logits. With `fused_head` the LM head makes the statistics itself (`head.py`).
* With PAEC, before the micro-batches of a mini-batch run, Hbar and its normaliser are known for the whole mini-batch
  and all data-parallel ranks (`_measure`), so that the gradient does not depend on how the mini-batch is split.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from tensordict import NonTensorData, TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from paec_loss import (
    Measurement,
    PAECConfig,
    TokenStatistics,
    mask_from_score,
    penalty_coefficient,
    penalty_value,
    position_score,
    position_threshold,
    regularized_entropy,
    token_statistics,
)
from paec_loss.linear import CHUNK_SIZE
from recipe.paec.engine_config import MethodEngineConfig
from recipe.paec.head import StatisticsHead, Targets
from recipe.paec.safety import tensors_only
from recipe.paec.statistics import pack, padded_mask, response_statistics, unpack


@dataclass(frozen=True)
class MiniBatchContext:
    """What the loss of a micro-batch needs to know about its mini-batch; the same on every rank.

    coefficient: lambda_ent plus the penalty's slope at Hbar. normalizer: Z. threshold: kappa of the mini-batch, or None
    where it is per response. vocab_size: V.
    """

    coefficient: float
    normalizer: float
    threshold: float | None
    vocab_size: int


def _flag(micro_batch: TensorDict, name: str) -> bool:
    return tu.get_non_tensor_data(micro_batch, name, default=False)


def _inside(shape: torch.Size, micro_batch: TensorDict) -> torch.Tensor:
    """[B, L] bool, which places of padded rows are tokens."""
    lengths = micro_batch["input_ids"].offsets().diff()
    return torch.arange(shape[1], device=lengths.device) < lengths[:, None]


class NonFiniteLogits(FloatingPointError):
    """NaN or inf in the policy's logits."""


@EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu", "cuda"], vendor=["cpu", "nvidia"]
)
class PAECEngine(FSDPEngineWithLMHead):
    """See the module. State of a rank: `_previous`, the last mini-batch's Measurement (for `statistics=lagged`)."""

    def __init__(self, model_config, engine_config, optimizer_config, checkpoint_config):
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)
        # The reference policy comes with verl's own engine config, which knows no method.
        method = engine_config.method if isinstance(engine_config, MethodEngineConfig) else None
        self.method: PAECConfig | None = method if isinstance(method, PAECConfig) else None
        self._previous: Measurement | None = None
        self._nan_rows = 0
        self._head: StatisticsHead | None = None
        self._vocab_size = int(model_config.hf_config.get_text_config().vocab_size)
        if self.method is not None and model_config.use_fused_kernels:
            raise ValueError(
                "actor_rollout_ref.model.use_fused_kernels=true never materialises the logits that PAEC reads: set it "
                "to false; actor_rollout_ref.actor.fsdp_config.fused_head=true saves the same memory"
            )

    def load_checkpoint(self, local_path, *args, **kwargs):
        with tensors_only(Path(local_path)):
            super().load_checkpoint(local_path, *args, **kwargs)

    # ---- one micro-batch -------------------------------------------------------------------------------------------

    def _build_module(self):
        module = super()._build_module()
        if isinstance(self.engine_config, MethodEngineConfig) and self.engine_config.fused_head:
            self._head = StatisticsHead.install(module, self.engine_config.head_chunk_size or CHUNK_SIZE)
        return module

    def prepare_model_inputs(self, micro_batch: TensorDict):
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        if self._head is not None:
            if not self._is_ours(micro_batch):
                raise ValueError("fused_head=true leaves no logits for distillation or sum_pi_squared: set it to false")
            self._head.targets = self._targets(model_inputs["input_ids"].shape, output_args, micro_batch)
        return model_inputs, output_args

    def prepare_model_outputs(self, output, output_args, micro_batch: TensorDict, logits_processor_func):
        if not self._is_ours(micro_batch):
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
        if self.method is None:
            wanted = {"log_probs", "entropy"} if _flag(micro_batch, "calculate_entropy") else {"log_probs"}
            model_output = {name: values for name, values in model_output.items() if name in wanted}
        return model_output

    def _is_ours(self, micro_batch: TensorDict) -> bool:
        """Whether token statistics are all that is asked for; distillation and the like go verl's own way."""
        others = ("use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk", "distillation_only")
        return self.method is not None or not any(_flag(micro_batch, name) for name in others)

    def _targets(self, shape: torch.Size, output_args, micro_batch: TensorDict) -> Targets:
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
        return Targets(labels, temperature, 1.0 if self.method is None else self.method.top_p)

    def _packed_statistics(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        # Nothing but these statistics reads the logits, so their memory may become the gradient's.
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
        training = self.method is not None and not forward_only
        if training:
            floor = tu.get_non_tensor_data(data, "entropy_floor", default=None)
            before = self._measure(data)
            hbar = before.selected_entropy(self.method)
            context = MiniBatchContext(
                coefficient=penalty_coefficient(hbar, floor, self.method),
                normalizer=before.normalizer(self.method),
                threshold=before.threshold,
                vocab_size=self._vocab_size,
            )
            tu.assign_non_tensor(data, method_context=NonTensorData(context))
        output = super().forward_backward_batch(data, loss_function, forward_only)
        self._raise_on_nan(data)
        if training:
            sums = torch.tensor(output["metrics"].pop("method_sums"), dtype=torch.float64)
            sums = sums.reshape(-1, 3).sum(0)
            now = Measurement(*self._all_reduce(sums).tolist(), threshold=context.threshold)
            self._previous = now
            output["metrics"].update(self._update_metrics(hbar, now, context, floor))
        return output

    def optimizer_step(self):
        grad_norm = super().optimizer_step()
        if self.scaler is None and not math.isfinite(grad_norm):
            # verl has skipped the update already; going on in silence would hide a broken run. (With float16 the loss
            # scaler meets infinite gradients as a matter of course.)
            raise FloatingPointError(f"the gradient norm is {grad_norm}: the parameters were not updated")
        return grad_norm

    def _update_metrics(self, hbar: float, now: Measurement, context: MiniBatchContext, floor: float | None) -> dict:
        """Metrics of one update; lists, because verl averages over micro-batches, mini-batches and ranks."""
        measured = now.selected_entropy(self.method)
        return {
            "paec/update_selected_entropy": [measured],
            "paec/update_staleness": [hbar - measured],
            "paec/update_coefficient": [context.coefficient],
            "paec/update_penalty": [penalty_value(measured, floor, self.method)],
            "paec/update_mask_mass": [now.mass / now.tokens if now.tokens else 0.0],
        }

    # ---- Hbar and Z of the mini-batch, before its updates ------------------------------------------------------------

    def _measure(self, data: TensorDict) -> Measurement:
        """The Measurement of this mini-batch over all data-parallel ranks, by `method.statistics`."""
        if self.method.statistics == "lagged" and self._previous is not None:
            return self._rescaled(self._previous, data)
        if self.method.statistics == "step":
            if "position_score" not in data.keys():
                raise KeyError(
                    "method.statistics=step needs position_score and position_entropy from the step's log-prob pass; "
                    "use statistics=exact where there is no such pass"
                )
            score = data["position_score"].to_padded_tensor(0.0).double()
            entropy = data["position_entropy"].to_padded_tensor(0.0).double()
            response_mask = padded_mask(data["response_mask"], score.shape[1])
            return self._measure_scores(score, entropy, response_mask)
        # `exact`, and the very first update of `lagged`, which has no previous mini-batch to look back on.
        statistics = self.forward_statistics(data)
        response_mask = padded_mask(data["response_mask"], statistics.entropy.shape[1])
        score = position_score(statistics, self.method)
        return self._measure_scores(score, regularized_entropy(statistics, self.method), response_mask)

    def forward_statistics(self, data: TensorDict) -> TokenStatistics:
        """TokenStatistics [B, R] of the responses in `data` under the current parameters; one forward, no gradient."""
        with torch.no_grad():
            output = super().forward_backward_batch(data, None, forward_only=True)
        self._raise_on_nan(data)
        return response_statistics(output["model_output"], data.to(get_device_id()), self._vocab_size)

    def _measure_scores(self, score, entropy, response_mask) -> Measurement:
        """Local scores and entropies [B, R] -> the mini-batch's Measurement, identical on all ranks."""
        score, entropy, response_mask = (x.to(get_device_id()) for x in (score, entropy, response_mask))
        threshold = None
        if self.method.quantile_scope == "mini_batch":
            threshold = self._mini_batch_threshold(score[response_mask])
        kappa = threshold if threshold is not None else position_threshold(score, response_mask, self.method)
        mask = mask_from_score(score, response_mask, self.method, kappa)
        local = Measurement.of(entropy, mask, response_mask)
        sums = torch.tensor([local.weighted_entropy, local.mass, local.tokens], dtype=torch.float64)
        return Measurement(*self._all_reduce(sums).tolist(), threshold=threshold)

    def _mini_batch_threshold(self, scores: torch.Tensor) -> float:
        """kappa over the scores of all data-parallel ranks; O(T) floats are exchanged."""
        group = self.get_data_parallel_group()
        shards: list[list[float]] = [[] for _ in range(dist.get_world_size(group))]
        dist.all_gather_object(shards, scores.tolist(), group=group)
        everything = torch.tensor([s for shard in shards for s in shard], dtype=torch.float64)
        inside = torch.ones_like(everything, dtype=torch.bool)
        return float(position_threshold(everything, inside, self.method))

    def _rescaled(self, previous: Measurement, data: TensorDict) -> Measurement:
        """The previous mini-batch's Measurement per token, for this mini-batch's number of tokens."""
        tokens = float(self._all_reduce(data["response_mask"].values().sum().double().reshape(1)))
        scale = tokens / previous.tokens if previous.tokens else 0.0
        return Measurement(
            weighted_entropy=previous.weighted_entropy * scale,
            mass=previous.mass * scale,
            tokens=tokens,
            threshold=previous.threshold,
        )

    def _all_reduce(self, sums: torch.Tensor) -> torch.Tensor:
        sums = sums.to(get_device_id())
        dist.all_reduce(sums, group=self.get_data_parallel_group())
        return sums.cpu()

    # ---- NaN guard ---------------------------------------------------------------------------------------------------

    def _count_nan_rows(self, log_prob: torch.Tensor) -> None:
        # A row with NaN or +inf has the log-prob NaN whatever its label; -inf logits are legal.
        self._nan_rows = self._nan_rows + log_prob.detach().isnan().sum()

    def _raise_on_nan(self, data: TensorDict) -> None:
        """Raise on all ranks together, before any optimizer step: one rank alone would leave the others waiting."""
        count = torch.as_tensor(self._nan_rows, dtype=torch.int64, device=get_device_id()).clone()
        dist.all_reduce(count)
        if count.item():
            step = tu.get_non_tensor_data(data, "trainer_step", default="?")
            raise NonFiniteLogits(
                f"logits: NaN or inf in {count.item()} rows at step {step}; the parameters were not updated. Resume "
                "from an earlier checkpoint with a lower actor_rollout_ref.actor.optim.lr, or check the model's dtype"
            )
