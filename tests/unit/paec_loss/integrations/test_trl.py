"""Methods inside TRL's GRPOTrainer: the stack's loss and gradient for any split, real training, and resuming."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

pytest.importorskip("trl", minversion="1.16", reason="needs trl 1.16: pip install -e .[trl]")

import trl_cases as cases  # noqa: E402
from ranks import torchrun  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from paec_loss import PAEC, Clip, Method, MethodStack, measure  # noqa: E402
from paec_loss.integrations.trl import STATE_FILE, PAECTrainer, stack_of  # noqa: E402
from paec_loss.methods import METHODS  # noqa: E402
from recipe.grading import countdown  # noqa: E402

CLIP = Clip(0.2, 0.2, math.inf)
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]
"""Responses of an accumulation step, and accumulation steps: eight responses each."""
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def split(rows: int, steps: int) -> dict[str, int]:
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps}


@dataclass(frozen=True)
class NeutralTerm(Method):
    """Acts on the loss, and adds nothing."""

    def loss_term(self, tokens, context, update):
        return super().loss_term(tokens, context, update)


@dataclass(frozen=True)
class NeutralLoss(Method):
    """The clipped surrogate as a policy loss of its own."""

    def policy_loss(self, tokens, context, update):
        return super().policy_loss(tokens, context, update)


# ---- the formula -----------------------------------------------------------------------------------------------------

ACTING = cases.acting()


@pytest.mark.parametrize("rows,steps", SPLITS)
@pytest.mark.parametrize("name", ACTING)
def test_the_stacks_loss_for_any_split(tmp_path, name, rows, steps):
    batch = cases.generated()
    found = cases.gradient(cases.trainer(tmp_path, ACTING[name], **split(rows, steps)), batch)
    cases.assert_same(found, cases.expected(ACTING[name], batch, CLIP), TOLERANCE)
    if name != "paec and clip_higher":
        plain = cases.expected([METHODS["none"]()], batch, CLIP)
        with pytest.raises(AssertionError):
            cases.assert_same(found, plain, 100 * TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"delta": 1.5}, {"epsilon_high": 0.4}, {"beta": 0.3}])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("methods", ["none", "neutral term", "neutral loss"])
def test_a_method_that_changes_nothing_is_trls_own_loss(tmp_path, methods, loss_type, options):
    stack = {"none": "none", "neutral term": NeutralTerm(), "neutral loss": NeutralLoss()}[methods]
    options = {**options, "loss_type": loss_type}
    batch = cases.generated(reference="beta" in options)
    torch.manual_seed(0)
    theirs = cases.gradient(cases.trainer(tmp_path, None, **options), batch)
    torch.manual_seed(0)
    ours = cases.gradient(cases.trainer(tmp_path, stack, **options), batch)
    assert math.isclose(ours[0], theirs[0], rel_tol=1e-6, abs_tol=1e-6)
    cases.assert_same(ours, theirs, 1e-6 if methods == "none" else TOLERANCE)


def test_the_first_update_of_a_generation_has_ratio_one(tmp_path):
    batch = cases.generated(off_policy=False)
    methods = [METHODS["steer"](), METHODS["entropy_bonus"](coefficient=0.1)]
    found = cases.gradient(cases.trainer(tmp_path, methods), batch)
    cases.assert_same(found, cases.expected(methods, batch, CLIP), TOLERANCE)


@pytest.mark.parametrize("source", ["exact", "step"])
def test_memory_and_source_of_the_statistics(tmp_path, source):
    method = PAEC(anchor_steps=1, rho_min=0.5, penalty="two_sided", statistics_from=source)
    batch, made = cases.generated(), cases.trainer(tmp_path, method, **split(2, 4))
    cases.gradient(made, batch)
    assert made._trackers["paec"].signal(1) == {}
    found = cases.gradient(made, batch)
    floor = made._trackers["paec"].signal(2)["floor"]
    statistics = cases.statistics(cases.model(), batch, method.top_p)
    measured = measure(statistics.detach(), batch["completion_mask"].bool(), method)
    assert math.isclose(floor, 0.5 * measured.selected_entropy(method), rel_tol=1e-5)
    wanted = cases.expected([method], batch, CLIP, step=2, tracker_signal={"floor": floor})
    cases.assert_same(found, wanted, TOLERANCE)
    log = {name: values[-1] for name, values in made._metrics["train"].items() if name.startswith("paec/")}
    assert math.isclose(log["paec/floor"], floor) and abs(log["paec/update_staleness"]) < 1e-5
    assert math.isclose(log["paec/selected_entropy"], log["paec/update_selected_entropy"], rel_tol=1e-5)


def test_a_schedule_has_the_numbers_of_its_generation(tmp_path):
    """The coefficient .1 then .3, and the clip range, which then is in the stack's surrogate; both are in the log."""
    methods = [
        METHODS["entropy_bonus"](coefficient="warmup:0.6:6"),
        METHODS["clip_higher"](clip_high="linear:0.4:0.1:2"),
    ]
    batch, made = cases.generated(), cases.trainer(tmp_path, methods, **split(2, 4))
    for coefficient, high in ((0.1, 0.4), (0.2, 0.25), (0.3, 0.1)):
        found = cases.gradient(made, batch)
        fixed = [METHODS["entropy_bonus"](coefficient=coefficient), METHODS["clip_higher"](clip_high=high)]
        cases.assert_same(found, cases.expected(fixed, batch, CLIP), TOLERANCE)
        log = {name: values[-1] for name, values in made._metrics["train"].items()}
        assert math.isclose(log["entropy_bonus/coefficient"], coefficient, rel_tol=1e-12)
        assert math.isclose(log["clip_higher/clip_high"], high, rel_tol=1e-12)


def test_several_updates_of_a_generation_each_have_their_own_mini_batch(tmp_path):
    """The term is the mini-batch's; the policy loss has the normaliser that TRL gives each of them."""
    methods = [METHODS["entropy_bonus"](coefficient=0.1)]
    batch = cases.generated()
    made = cases.trainer(tmp_path, methods, **split(2, 2), steps_per_generation=4)
    for _ in range(2):
        first = made._step
        found = cases.gradient(made, batch)
        slices = made._buffered_inputs[first : first + 2]
        part = {
            name: value if value.dim() == 0 else torch.cat([piece[name] for piece in slices])
            for name, value in batch.items()
        }
        policy = cases.model()
        tokens = cases.tokens(policy, part, 1.0)
        surrogate = torch.where(tokens.response_mask, NeutralLoss().policy_loss(tokens, None, _Update()), 0.0).sum()
        loss = surrogate / (sum(cases.LENGTHS) / 2) - 0.1 * tokens.total(tokens.entropy) / tokens.response_mask.sum()
        loss.backward()
        wanted = loss.item(), {name: parameter.grad for name, parameter in policy.named_parameters()}
        cases.assert_same(found, wanted, TOLERANCE)


class _Update:
    clip = CLIP


def test_two_ranks(tmp_path):
    """A mini-batch over two ranks, each with responses of other lengths, and two real steps."""
    torchrun("trl_worker.py", 2, tmp_path, timeout=500)
    for name in ACTING:
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        cases.assert_same(found, cases.expected(ACTING[name], cases.generated(), CLIP), TOLERANCE)
    first, second = (json.loads((tmp_path / f"trained-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and len(first["observations"]) == 2 and first["norm"] > 0


# ---- rewards and advantages ------------------------------------------------------------------------------------------


def test_a_method_can_replace_the_advantages(tmp_path):
    made = cases.trainer(tmp_path, "w_reinforce")
    batch = cases.generated()
    batch["advantages"] = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 0.0, 3.0])
    with cases.generating(batch):
        made.model.train()
        output = made._generate_and_score_completions([])
    weight = METHODS["w_reinforce"]().positive_weight
    inside = batch["completion_mask"].bool()
    wanted = torch.where(batch["advantages"] > 0, weight * batch["advantages"], batch["advantages"])
    assert torch.equal(output["advantages"], torch.where(inside, wanted[:, None], 0.0))


@dataclass(frozen=True)
class Lengths(Method):
    """Every response's number is its length plus its reward, which is below 1."""

    seen: ClassVar[list[float]] = []

    def response_value(self, rollouts):
        return rollouts.lengths + rollouts.rewards / 2

    def loss_term(self, tokens, context, update):
        assert torch.equal(tokens.response_value.floor(), tokens.lengths.float())
        self.seen.extend((tokens.response_value % 1).tolist())
        return super().loss_term(tokens, context, update)


def test_a_method_can_give_every_response_a_number(tmp_path):
    """TRL shuffles the responses and splits them; each keeps its number, which is of the graded reward."""
    Lengths.seen.clear()
    made = cases.trainer(tmp_path, [METHODS["pear"](), Lengths()], **split(2, 4), max_steps=1)
    made.train()
    graded = made.state.log_history[0]["rewards/reward/mean"]
    assert len(Lengths.seen) == 8 and 2 * sum(Lengths.seen) / 8 == pytest.approx(graded, rel=1e-5)


def test_advantages_by_answers(tmp_path):
    """seed_grpo from real generations: equal answers are counted per prompt, one without an answer is alone."""
    seen = {}

    def answers(prompts, completions, completion_ids, number, **_):
        seen.update(prompts=prompts, number=number, completions=completions)
        return ["a", "a", "b", None, "a", "b", "c", "d"]

    made = cases.trainer(tmp_path, METHODS["seed_grpo"](weights="counts"), answer_func=answers)
    rows = [{"prompt": f"{n} =", "number": n} for n in (1, 1, 1, 1, 2, 2, 2, 2)]
    made.model.train()
    output = made._generate_and_score_completions(rows)
    assert seen["number"] == [1, 1, 1, 1, 2, 2, 2, 2] and len(seen["completions"]) == 8
    reward = torch.tensor(cases.reward(seen["completions"]))
    entropies = [-(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)), math.log(4)]
    alpha = METHODS["seed_grpo"]().alpha
    for group, entropy in enumerate(entropies):
        mine = slice(4 * group, 4 * group + 4)
        wanted = (reward[mine] - reward[mine].mean()) / (1 + alpha * entropy / math.log(4))
        found = output["advantages"][mine]
        inside = output["completion_mask"][mine].bool()
        assert torch.allclose(found, torch.where(inside, wanted[:, None], 0.0), atol=1e-5)


def test_a_method_can_replace_the_rewards(tmp_path):
    """empo: rewards of answer classes, through TRL's own advantages; the graded ones stay in the log."""

    def answers(completions, **_):
        return ["a", "a", "a", "b", "a", "b", "a", "b"]

    made = cases.trainer(tmp_path, "empo", answer_func=answers)
    rows = [{"prompt": f"{n} ="} for n in (1, 1, 1, 1, 2, 2, 2, 2)]
    made.model.train()
    output = made._generate_and_score_completions(rows)
    rewards = torch.tensor([0.75, 0.75, 0.75, 0.25, 0.5, 0.5, 0.5, 0.5])
    groups = rewards.view(2, 4)
    wanted = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).view(-1)
    assert torch.allclose(output["advantages"], wanted, atol=1e-5)
    log = made._metrics["train"]
    assert log["empo/reward"] == [pytest.approx(rewards.mean().item())] == log["reward"]
    graded = cases.reward(list(made._logs["completion"]))
    assert log["rewards/reward/mean"][0] == pytest.approx(sum(graded) / 8)
    made.model.eval()
    evaluated = made._generate_and_score_completions(rows)
    assert evaluated["advantages"].shape == (8,) and "empo/reward" not in made._metrics["eval"]
    graded = cases.reward(list(made._logs["completion"])[-8:])
    assert made._metrics["eval"]["reward"][0] == pytest.approx(sum(graded) / 8)


def test_answers_and_rewards_must_be_complete(tmp_path):
    rows = [{"prompt": "1 ="}] * 8
    made = cases.trainer(tmp_path, "seed_grpo", answer_func=lambda **_: ["a"])
    made.model.train()
    with pytest.raises(ValueError, match="answer_func returned 1 answers for 8 responses"):
        made._generate_and_score_completions(rows)
    made = cases.trainer(tmp_path, "w_reinforce")
    made.reward_funcs = [lambda completions, **_: [None] * len(completions)]
    made.model.train()
    with pytest.raises(ValueError, match="w_reinforce needs the reward of every response: return a number"):
        made._generate_and_score_completions(rows)


def test_a_tracker_can_see_the_graded_rewards(tmp_path):
    """ares: the second generation's rewards are its formula's, with the memory of the first one's graded ones."""
    method = METHODS["ares"](window=1, triggers=[chr(code) for code in range(33, 127)])
    made = cases.trainer(tmp_path, [method])
    graded = [[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]]
    made.reward_funcs = [lambda completions, **_: graded[made._generation - 1]]
    made.model.train()
    seen, log, tracker = [], made._metrics["train"], made._trackers["ares"]
    made._trackers["ares"].observe = lambda rollouts: (seen.append(rollouts), type(tracker).observe(tracker, rollouts))[
        1
    ]
    for _ in range(2):
        made._generate_and_score_completions([{"prompt": f"{n} ="} for n in (1, 1, 1, 1, 2, 2, 2, 2)])
    assert [rollouts.rewards.tolist() for rollouts in seen] == graded
    assert log["ares/reward"][0] == log["rewards/reward/mean"][0] == 0.5
    signal = tracker.signal(2)
    assert {"theta", "target_easy", "target_hard"} <= signal.keys()
    expected = method.rewards(replace(seen[1], tracker_signal=signal)).mean().item()
    assert abs(expected - 0.5) > 0.01 and log["rewards/reward/mean"][1] == 0.5
    assert [log[name][1] for name in ("ares/reward", "reward")] == pytest.approx([expected] * 2, rel=1e-6)


# ---- training --------------------------------------------------------------------------------------------------------


def countdown_trainer(folder, methods, steps: int, **options) -> PAECTrainer:
    import pandas as pd
    from datasets import Dataset

    rows = pd.read_parquet(cases.PREPARED / "data" / "train.parquet").head(16)
    data = Dataset.from_list(
        [
            {"prompt": [dict(message) for message in prompt], "truth": model["ground_truth"]}
            for prompt, model in zip(rows["prompt"], rows["reward_model"], strict=True)
        ]
    )

    def correct(completions, truth, **_):
        return [float(countdown.score(c[0]["content"], t)[0]) for c, t in zip(completions, truth, strict=True)]

    args = cases.config(folder, max_steps=steps, max_completion_length=24, **options)
    return PAECTrainer(str(cases.PREPARED / "model"), correct, args, data, methods=methods)


@pytest.mark.parametrize(
    ("methods", "metrics"),
    [
        (["paec"], {"paec/selected_entropy", "paec/update_selected_entropy", "paec/anchor"}),
        (["entropy_adaptive", "clip_cov"], {"entropy_adaptive/entropy", "entropy_adaptive/coefficient"}),
        (["pear", "w_reinforce"], {"pear/reward"}),
    ],
)
def test_training(tmp_path, methods, metrics):
    made = countdown_trainer(tmp_path, methods, steps=3)
    before = {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}
    made.train()
    log = [entry for entry in made.state.log_history if "loss" in entry]
    assert len(log) == 3 and made._generation == 3
    for entry in log:
        assert metrics <= entry.keys() and all(math.isfinite(entry[name]) for name in metrics)
        assert math.isfinite(entry["loss"]) and entry["entropy"] > 0
    if methods == ["paec"]:
        assert len({entry["paec/anchor"] for entry in log}) == 3
    assert any(not torch.equal(before[name], parameter) for name, parameter in made.model.named_parameters())


def test_memory_is_resumed(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    method = PAEC(anchor_steps=3)
    first = countdown_trainer(tmp_path, method, steps=2, **options)
    first.train()
    checkpoint = tmp_path / "checkpoint-2"
    state = json.loads((checkpoint / STATE_FILE).read_text())
    assert state["generation"] == 2 and len(state["methods"]["paec"]["observations"]) == 2
    resumed = countdown_trainer(tmp_path, method, steps=4, **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    anchor = json.loads((tmp_path / "checkpoint-4" / STATE_FILE).read_text())["methods"]["paec"]["observations"]
    assert len(anchor) == 3 and anchor[:2] == state["methods"]["paec"]["observations"]
    assert resumed._generation == 4
    other = countdown_trainer(tmp_path, "entropy_adaptive", steps=4, **options)
    with pytest.raises(ValueError, match="has the memory of paec, and this run needs that of entropy_adaptive"):
        other.train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / STATE_FILE).unlink()
    again = countdown_trainer(tmp_path, method, steps=4, **options)
    with pytest.raises(ValueError, match="paec_state.json does not exist, and paec cannot be resumed without it"):
        again.train(resume_from_checkpoint=str(checkpoint))


def test_with_lora(tmp_path):
    from peft import LoraConfig

    made = PAECTrainer(
        cases.model(),
        cases.reward,
        cases.config(tmp_path),
        cases.data(),
        processing_class=cases.tokenizer(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
        methods="entropy_bonus",
    )
    made.train()
    assert made.state.global_step == 2 and math.isfinite(made.state.log_history[0]["loss"])


# ---- construction ----------------------------------------------------------------------------------------------------


def test_methods_as_names_objects_or_a_stack():
    stack = MethodStack([PAEC(), METHODS["clip_higher"]()])
    assert stack_of(stack) is stack
    assert stack_of("paec").methods == (PAEC(),) == stack_of(PAEC()).methods
    assert stack_of(["paec", METHODS["clip_higher"](clip_high=0.3)]).names == ["paec", "clip_higher"]
    with pytest.raises(ValueError, match="methods='clip_cvo': must be one of adaptive_clip, "):
        stack_of("clip_cvo")
    with pytest.raises(ValueError, match="clip_cov and clip_higher each bring a clip range"):
        stack_of(["clip_cov", "clip_higher"])


def test_the_clip_range_is_the_methods_and_the_callers_args_stay(tmp_path):
    settings = cases.config(tmp_path)
    made = PAECTrainer(
        cases.model(), cases.reward, settings, cases.data(), methods="clip_higher", processing_class=cases.tokenizer()
    )
    assert (made.epsilon_low, made.epsilon_high, made.args.delta) == (0.2, 0.28, None)
    assert (settings.epsilon, settings.epsilon_high, settings.delta) == (0.2, None, None)
    assert not made._acts and not made._observes, "TRL's own loss, without another forward pass"


def test_refused_at_construction(tmp_path):
    with pytest.raises(ValueError, match="^aepo draws some prompts at a temperature of their own"):
        cases.trainer(tmp_path, "aepo")
    with pytest.raises(ValueError, match="^loss_type='bnpo' cannot be combined with paec"):
        cases.trainer(tmp_path, "paec", loss_type="bnpo")
    with pytest.raises(ValueError, match="^seed_grpo compares the answers"):
        cases.trainer(tmp_path, "seed_grpo")


def test_broken_logits_end_the_run_before_the_update(tmp_path):
    broken = cases.model()
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = math.nan
    made = cases.trainer(tmp_path, METHODS["clip_cov"](), policy=broken)
    with pytest.raises(FloatingPointError, match="logits: NaN or inf at step 1; the parameters were not updated"):
        cases.gradient(made, {**cases.generated(off_policy=False)})


def test_importing_the_library_imports_neither_trl_nor_transformers():
    code = "import sys, paec_loss, paec_loss.methods, paec_loss.integrations.trl_refusals as r; "
    code += "assert not {'trl', 'transformers', 'accelerate'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_of_the_page(tmp_path, monkeypatch):
    page = (cases.ROOT / "docs" / "trl.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert '"outputs/trl"' in example and "data_prep/prepared/countdown" in example
    monkeypatch.chdir(cases.ROOT)
    seen = []

    def log(self, logs, *rest):
        seen.append(logs)  # TRL adds the metrics to it
        GRPOTrainer.log(self, logs, *rest)

    monkeypatch.setattr(PAECTrainer, "log", log)
    exec(example.replace('"outputs/trl"', repr(str(tmp_path))), {})
    steps = [logs for logs in seen if "paec/anchor" in logs]
    assert len(steps) == 3 and all(math.isfinite(logs["loss"]) for logs in steps)
