"""The responses of a prompt, handled together, reach the queue as verl would put them there one by one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from data_prep import tiny_model
from recipe.paec.common.seeds import rollout_seed
from recipe.paec.rollout.agent_loop import (
    EARLIER_DRAWS,
    PROMPT_FIELDS,
    SeededAgentLoopWorker,
    VerlAgentLoopWorker,
)

SAMPLES = 3
NOT_STORED = {
    *("raw_prompt", "extra_info", "session_id", "global_steps"),  # of the prompt, and read by nobody later
    *("multi_modal_inputs", "mm_processor_kwargs", "mm_processor_output"),  # of images
}
"""What verl stores with each response besides."""


class Remote:
    """A method of an actor: `.remote(...)` gives an awaitable."""

    def __init__(self, function):
        self.function = function

    async def remote(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def response(parameters: dict[str, Any]) -> TokenOutput:
    """A response made of the seed: from 1 token to more than are allowed."""

    ids = [int(digit) + 40 for digit in str(parameters["seed"])]
    ids = (ids * 9)[: 1 + parameters["seed"] % 70]
    probs = [-0.1 * place - parameters["temperature"] for place in range(len(ids))]
    return TokenOutput(token_ids=ids, log_probs=probs, stop_reason="completed", extra_fields={"global_steps": 6})


def score(row: Any) -> dict[str, Any]:
    """A reward made of the response, under the keys of a reward worker."""
    item = row[0]
    length = int(item.batch["attention_mask"][-item.batch["responses"].shape[-1] :].sum())
    assert item.non_tensor_batch["reward_model"]["ground_truth"] == "7"
    value = float(item.batch["responses"][:length].sum() % 2)
    return {"reward_score": value, "reward_extra_info": {"acc": value, "split": item.non_tensor_batch["extra_info"]}}


class Calls:
    """Fakes of everything outside the worker, and what it was asked for."""

    def __init__(self):
        self.count = {"generate": 0, "generate_many": 0, "compute_score": 0, "compute_score_batch": 0}
        self.statuses: list[tuple[str, str, str]] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.puts = 0
        self.failing = False

        def generate(prompt_ids, sampling_params, **_):
            self.count["generate"] += 1
            return response(sampling_params)

        def generate_many(prompt_ids, parameters):
            self.count["generate_many"] += 1
            if self.failing:
                raise RuntimeError("the engine is dead")
            return [response(own) for own in parameters]

        def compute_score(data):
            self.count["compute_score"] += 1
            return score(data)

        def compute_score_batch(data):
            self.count["compute_score_batch"] += 1
            return [score(data[i : i + 1]) for i in range(len(data))]

        self.engine = SimpleNamespace(generate=Remote(generate), generate_many=Remote(generate_many))
        self.rewards = SimpleNamespace(
            compute_score=Remote(compute_score), compute_score_batch=Remote(compute_score_batch)
        )

    async def put_status(self, key, partition_id, tag):
        self.statuses.append((partition_id, key, tag["status"]))

    async def put_rows(self, keys, tags, partition_id, fields=None):
        if fields is None:
            self.statuses += [(partition_id, key, tag["status"]) for key, tag in zip(keys, tags, strict=True)]
            return
        self.puts += 1
        for place, (key, tag) in enumerate(zip(keys, tags, strict=True)):
            row = {name: fields[name][place] for name in fields.keys()}
            self.rows[key] = {**row, "tag": tag, "partition": partition_id}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent_loop") / "model"
    tiny_model.build(folder)
    return folder


@pytest.fixture
def worker(compose, model, monkeypatch):
    """A worker whose surroundings are `Calls`, as `worker.calls`."""

    config = compose(f"model.path={model}", f"actor_rollout_ref.rollout.n={SAMPLES}")
    OmegaConf.update(config, "actor_rollout_ref.model.external_lib", None)  # it needs vLLM
    OmegaConf.update(config, "trainer.v1.trainer_mode", "sync")  # as the trainer of this mode sets it
    calls, made = Calls(), object.__new__(SeededAgentLoopWorker)
    made.config, made.calls = config, calls
    made.rollout_config = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    made.model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    made.tokenizer, made.processor, made.hf_model_type = made.model_config.tokenizer, None, "qwen2"
    made.dataset_cls, made.tools, made.mm_processor_kwargs = RLHFDataset, [], {}
    made.distillation_enabled, made.reward_loop_worker_handles = False, [calls.rewards]
    made.llm_client = LLMServerClient(
        config,
        SimpleNamespace(
            require_acquire_fields=Remote(list),
            require_release_fields=Remote(list),
            acquire_server=Remote(lambda request_id: ("one", calls.engine)),
            release_server=SimpleNamespace(remote=lambda server_id: None),
        ),
    )
    monkeypatch.setattr(tq, "async_kv_put", calls.put_status)
    monkeypatch.setattr(tq, "async_kv_batch_put", calls.put_rows)
    return made


def prompt(**more: Any) -> dict[str, Any]:
    return {
        "uid": "000007-000002",
        "raw_prompt": [{"role": "user", "content": "1 2 4 > 7"}],
        "data_source": "reasoning_gym/countdown",
        "reward_model": {"ground_truth": "7"},
        "extra_info": {"split": "train"},
        "index": 12,
        "agent_name": "single_turn_agent",
        "global_steps": 7,
        **more,
    }


def run(worker, given, kind=None, validate=False) -> Calls:
    trajectory = {"step": 7, "sample_index": 12, "rollout_n": 0, "validate": validate}
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
    asyncio.run((kind or type(worker))._run_prompt(worker, dict(given), sampling, trajectory))
    return worker.calls


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("more", [{}, {"rollout_temperature": 1.4}], ids=["", "own temperature"])
@pytest.mark.parametrize("validate", [False, True])
def test_as_verl_would_put_them(worker, more, validate, monkeypatch):

    ours = run(worker, prompt(**more), validate=validate)
    rows, samples = ours.rows, worker.config.actor_rollout_ref.rollout.val_kwargs.n if validate else SAMPLES
    partition = "val" if validate else "train"
    assert ours.count == {"generate": 0, "generate_many": 1, "compute_score": 0, "compute_score_batch": 1}
    assert ours.puts == 1 and ours.statuses == [(partition, "000007-000002", "finished")]

    worker.calls.__init__()
    monkeypatch.setattr(tq, "async_kv_put", worker.calls.put_status)
    monkeypatch.setattr(tq, "async_kv_batch_put", worker.calls.put_rows)
    worker.llm_client._load_balancer.acquire_server = Remote(lambda request_id: ("one", worker.calls.engine))
    worker.reward_loop_worker_handles = [worker.calls.rewards]
    verls = run(worker, prompt(**more), VerlAgentLoopWorker, validate)
    assert verls.count == {"generate": samples, "generate_many": 0, "compute_score": samples, "compute_score_batch": 0}
    assert verls.statuses[-1] == ours.statuses[-1] and rows.keys() == verls.rows.keys() and len(rows) == samples

    lengths = set()
    for key, expected in verls.rows.items():
        row = rows[key]
        lengths.add(len(row["responses"]))
        assert row["tag"] == expected["tag"] and row["partition"] == expected["partition"]
        assert row.keys() <= expected.keys() and expected.keys() - row.keys() == NOT_STORED
        assert set(prompt(**more)) & set(PROMPT_FIELDS) <= row.keys()
        for name in row.keys() - {"tag", "partition", "metrics"}:
            assert same(row[name], expected[name]), name
    assert len(lengths) > 1 and max(lengths) <= worker.rollout_config.response_length


def test_prompts_that_finish_together_are_put_together(worker):
    names = [f"000007-{place:06d}" for place in range(20)]
    shared = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

    async def several():
        trajectory = {"step": 7, "sample_index": 12, "rollout_n": 0, "validate": False}
        await asyncio.gather(*(worker._run_prompt(prompt(uid=name), shared, trajectory) for name in names))

    asyncio.run(several())
    calls = worker.calls
    assert calls.count["generate_many"] == 20 and 1 <= calls.puts <= 10
    assert sorted(calls.statuses) == [("train", name, "finished") for name in names]
    assert sorted(calls.rows) == [f"{name}_{sample}_0" for name in names for sample in range(SAMPLES)]
    first, last = (calls.rows[f"{names[place]}_2_0"] for place in (0, -1))
    assert first["uid"] == names[0] and last["uid"] == names[-1]
    assert torch.equal(first["responses"], last["responses"])  # the same index, so the same seed


def test_each_response_has_the_seed_of_its_place(worker):
    calls = run(worker, prompt())
    for sample in range(SAMPLES):
        seed = rollout_seed(
            seed=worker.rollout_config.seed, validate=False, step=7, data_source="reasoning_gym/countdown", index=12,
            sample=sample,
        )  # fmt: skip
        row = calls.rows[f"000007-000002_{sample}_0"]
        expected = response({"seed": seed, "temperature": 1.0}).token_ids[: worker.rollout_config.response_length]
        assert row["responses"].tolist() == expected
        assert row["input_ids"].tolist() == row["prompts"].tolist() + expected
        assert row["position_ids"].tolist() == list(range(len(row["input_ids"])))
        assert row["rm_scores"].tolist() == [0.0] * (len(expected) - 1) + [float(sum(expected) % 2)]


def test_a_row_that_is_drawn_again_gets_other_responses(worker):
    first = worker._parameters({}, {"validate": False, "step": 7}, prompt(), 0, "single_turn_agent")["seed"]
    again = prompt(**{EARLIER_DRAWS: 1})
    second = worker._parameters({}, {"validate": False, "step": 7}, again, 0, "single_turn_agent")["seed"]
    expected = (worker.rollout_config.seed, False, 7, "reasoning_gym/countdown", 12, 0)
    assert (first, second) == (rollout_seed(*expected), rollout_seed(*expected, earlier=1)) and first != second


def test_a_dead_engine_is_a_failed_prompt(worker):
    worker.calls.failing = True
    calls = run(worker, prompt())
    assert calls.rows == {} and calls.statuses == [("train", "000007-000002", "failure")]


@pytest.mark.parametrize(
    "change",
    [
        lambda worker, given: OmegaConf.update(worker.config, "trainer.v1.trainer_mode", "colocate_async"),
        lambda worker, given: given.update(agent_name="tool_agent"),
        lambda worker, given: given.update(__rollout_n__=2),
        lambda worker, given: setattr(worker, "processor", object()),
        lambda worker, given: setattr(worker, "distillation_enabled", True),
        lambda worker, given: setattr(worker, "reward_loop_worker_handles", None),
    ],
    ids=["asynchronous", "several turns", "own number of samples", "images", "distillation", "reward model"],
)
def test_what_is_left_to_verl(worker, change):
    given = prompt()
    assert worker._one_request_each(given)
    change(worker, given)
    assert not worker._one_request_each(given)
