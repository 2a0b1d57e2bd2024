"""Settings of verl that would be ignored, or fail late: one sentence that names the key."""

from __future__ import annotations

import itertools

import pytest
from train_check import check
from verl.trainer.ppo import rollout_corr_helper

from recipe.paec.config import rules, verl_rules

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
CORRECTION = "algorithm.rollout_correction"


def problems(compose, *overrides: str) -> list[str]:
    return rules.check_config(compose("experiment=qwen7b", *overrides))


def test_a_teacher_needs_the_loss_that_a_method_replaces(compose):
    teacher = ["distillation.enabled=true"]
    assert problems(compose, *teacher) == [
        "distillation.enabled=true: paec replaces the loss that would learn from the teacher: set it to false, or "
        "method=none"
    ]
    for driver_only in ("none", "unlikeliness"):
        assert problems(compose, f"method={driver_only}", *teacher) == []


def test_two_entropy_bonuses_are_one_too_many(compose):
    coefficient = f"{ACTOR}.entropy_coeff=0.01"
    assert problems(compose, "method=entropy_bonus", coefficient) == [
        f"{coefficient}: entropy_bonus is the same term: set its coefficient instead"
    ]
    assert problems(compose, "method=none", coefficient) == []


def test_a_critic_that_is_not_there_needs_no_warm_up(compose):
    assert problems(compose, "trainer.critic_warmup=0") == []
    assert problems(compose, "trainer.critic_warmup=5") == [
        "trainer.critic_warmup=5: must be 0: there is no critic, and the actor would not train"
    ]


@pytest.mark.parametrize(
    ("override", "missing"),
    [
        ("save_contents=[model]", "optimizer and extra"),
        ("save_contents=[hf_model]", "model and optimizer and extra"),
        ("load_contents=[model,extra]", "optimizer"),
        ("save_contents=null", "model and optimizer and extra"),
        ("save_contents=[model,optimizer,extra,hf_model]", None),
    ],
)
def test_a_checkpoint_is_whole(compose, override, missing):
    found = problems(compose, f"{ACTOR}.checkpoint.{override}")
    if missing is None:
        assert found == []
    else:
        assert [problem.split(": ")[1] for problem in found] == [f"a run could not resume exactly without {missing}"]
        assert found[0].startswith(f"{ACTOR}.checkpoint.{override.partition('=')[0]}=")


@pytest.mark.parametrize(
    ("overrides", "accepted"),
    [
        (["raw_logprobs"], True),
        (["raw_logprobs", f"{ROLLOUT}.temperature=0.7"], False),
        (["raw_logprobs", "method=aepo"], False),
        (["processed_logprobs", f"{ROLLOUT}.temperature=0.7"], True),
        (["raw_logits"], False),
    ],
)
def test_the_rollouts_log_probs_are_those_of_what_is_sampled(compose, overrides, accepted):
    found = problems(compose, f"{ROLLOUT}.logprobs_mode={overrides[0]}", *overrides[1:])
    assert (found == []) if accepted else found[0].startswith(f"{ROLLOUT}.logprobs_mode={overrides[0]}: ")


def test_sampling_from_a_part_of_the_vocabulary_is_noted(compose, monkeypatch, capsys):
    assert verl_rules.notes(compose("experiment=qwen7b")) == []
    assert verl_rules.notes(compose(f"{ROLLOUT}.val_kwargs.top_p=0.9")) == [], "a validation trains nothing"
    (note,) = verl_rules.notes(compose(f"{ROLLOUT}.top_p=0.9", f"{ROLLOUT}.top_k=50"))
    assert note.startswith(f"{ROLLOUT}.top_p=0.9 and {ROLLOUT}.top_k=50: tokens are drawn from a part")
    code, out, _ = check(monkeypatch, capsys, "experiment=qwen7b", f"{ROLLOUT}.top_k=50")
    assert code == 0 and out.splitlines()[0].startswith(f"note: {ROLLOUT}.top_k=50: ")


@pytest.mark.parametrize("name", ["enable=true", "tool_config_path=tools.yaml", "function_tool_path=tools.py"])
def test_several_turns_need_an_agent_loop_that_takes_them(compose, name):
    given, loop = f"{ROLLOUT}.multi_turn.{name}", f"{ROLLOUT}.agent.default_agent_loop=tool_agent"
    assert problems(compose, given) == [f"{given}: single_turn_agent answers once, without tools: add {loop}"]
    assert problems(compose, given, loop) == []


BUFFER = "reward.reward_kwargs.overlong_buffer_cfg"
WHOLE = [f"+{BUFFER}.{part}" for part in ("enable=true", "len=512", "penalty_factor=1.0", "log=false")]
DAPO, LONGEST = "reward.reward_manager.name=dapo", "+reward.reward_kwargs.max_resp_len=1024"


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ([*WHOLE, LONGEST], f"{BUFFER}: is only read with reward.reward_manager.name=dapo"),
        ([f"+{BUFFER}.len=512"], f"{BUFFER}: is only read with reward.reward_manager.name=dapo"),
        ([f"+{BUFFER}.enable=false"], None),
        ([*WHOLE, DAPO, LONGEST], None),
        ([*WHOLE, DAPO], "reward.reward_kwargs.max_resp_len is missing: set it to data.max_response_length="),
        ([*WHOLE[:3], DAPO, LONGEST], f"{BUFFER}.log is missing"),
        ([WHOLE[0], f"+{BUFFER}.len=2048", *WHOLE[2:], DAPO, LONGEST], f"{BUFFER}.len=2048: must be > 0 and at most "),
    ],
)
def test_the_penalty_of_long_responses_is_applied_or_refused(compose, overrides, start):
    found = problems(compose, *overrides)
    assert (found == []) if start is None else (len(found) == 1 and found[0].startswith(start))


def test_dapos_reward_manager_applies_the_penalty_to_our_score(tiny_files):
    """What the sentence promises: the score is this recipe's, the penalty verl's."""
    import asyncio

    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from tensordict import TensorDict
    from transformers import AutoTokenizer
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    from recipe.paec.rollout.rewards import compute_score

    tokenizer = AutoTokenizer.from_pretrained(tiny_files / "model")
    ids = tokenizer("#### 4", return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    buffer = {"enable": True, "len": 4, "penalty_factor": 0.5, "log": False}
    config = OmegaConf.create({"reward": {"reward_kwargs": {"overlong_buffer_cfg": buffer, "max_resp_len": length}}})
    data = DataProto(batch=TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1))
    row = {"data_source": "gsm8k", "reward_model": {"ground_truth": "4"}, "extra_info": {}}
    for name, value in row.items():
        data.non_tensor_batch[name] = np.empty(1, dtype=object)
        data.non_tensor_batch[name][0] = value

    async def scored():
        manager = get_reward_manager_cls("dapo")(config, tokenizer, compute_score)
        return await manager.run_single(data)

    assert float(asyncio.run(scored())["reward_score"]) == compute_score("gsm8k", "#### 4", "4")["score"] - 0.5


def test_the_ways_to_reject_are_verls():
    assert set(verl_rules.REJECTIONS) == rollout_corr_helper.SUPPORTED_ROLLOUT_RS_OPTIONS


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["rollout_rs=nonsense"], f"{CORRECTION}.rollout_rs=nonsense: must be of token_k1, token_k2"),
        (["rollout_rs=token_k7"], f"{CORRECTION}.rollout_rs=token_k7: must be of token_k1, token_k2"),
        (["rollout_rs=''"], f"{CORRECTION}.rollout_rs=: names no way to reject"),
        (["rollout_rs=token_k1"], f"{CORRECTION}.rollout_rs=token_k1: needs a threshold"),
        (["rollout_rs=token_k1", "rollout_rs_threshold=0.5"], f"{CORRECTION}.rollout_rs_threshold=0.5: must be"),
        (["rollout_rs='token_k1,seq_mean_k3'", "rollout_rs_threshold='0.5_2.0,0.1'"], None),
        (["rollout_is_threshold=-5"], f"{CORRECTION}.rollout_is_threshold=-5: must be a number > 0, or two"),
        (["rollout_is_threshold=0.5_5"], f"{CORRECTION}.rollout_is_threshold=0.5_5: is read as a number"),
        (['rollout_is_threshold="0.5_5"'], None),
        (["rollout_is_threshold=2.0_0.5"], f"{CORRECTION}.rollout_is_threshold=2.0_0.5: must be a number > 0, or two"),
    ],
)
def test_the_correction_can_be_computed(compose, overrides, start):
    found = problems(compose, *(f"{CORRECTION}.{override}" for override in overrides))
    assert (found == []) if start is None else (len(found) == 1 and found[0].startswith(start)), found


THRESHOLDS = (
    1,
    0.5,
    2.0,
    0,
    -1.0,
    True,
    "",
    "2",
    "0.5_2.0",
    "2.0_0.5",
    "-1_2",
    "x",
    "1_2_3",
    "0.5_2,3",
    "3,0.5",
    "2,3,4",
)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_what_verl_takes_is_taken(threshold):
    """The verdict on every threshold is that of verl's own parsers."""

    def taken(parse, *arguments) -> bool:
        try:
            parse(*arguments)
        except (ValueError, TypeError, ZeroDivisionError):
            return False
        return True

    assert bool(verl_rules._bounds(threshold)) == taken(rollout_corr_helper._parse_rollout_is_threshold, threshold)
    for names in itertools.chain([["token_k1"], ["seq_max_k3"]], itertools.permutations(["seq_sum_k1", "token_k2"])):
        section = {"rollout_rs": ",".join(names), "rollout_rs_threshold": threshold}
        ours = not list(verl_rules._rejection(section))
        assert ours == taken(rollout_corr_helper._parse_rollout_rs_thresholds, names, threshold), names
