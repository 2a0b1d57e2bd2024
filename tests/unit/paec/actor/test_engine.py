"""The actor update does not depend on how a mini-batch is split, and is what paec.md defines.

verl's real FSDP2 engine under torchrun (gloo), float32, against autograd on the plain Hugging Face model: loss and
gradient for micro-batch sizes, dynamic batches, data-parallel and Ulysses ranks, padded and packed, two temperatures.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engine_cases import ACTIVE, FLOOR, LORA, TEMPERATURES, case, mini_batch, oracle, paec, relative, with_adapters
from ranks import NO_ALLTOALL, gloo_has_alltoall, torchrun_cases

from data_prep import tiny_model
from paec_loss import MethodStack, PAECConfig
from paec_loss.methods import METHODS
from recipe.paec.actor.batches import OUTPUT_NAMES

TOLERANCE = 5e-5
"""Between splits of the same mini-batch, all in float32: products round by the shape of their matrices, and by the CPU.
Up to 1.2e-5 was seen (Xeon with AVX-512). A method changes the gradient by more than 1e-3, which is asserted below."""
TERMS = 1e-5
"""The same for a loss, absolute: it is a sum of terms of size 1 to 10, which may cancel."""
DEFINITION = 3e-5  # against a float64 model: the ramp mask multiplies the float32 model's rounding by 1 / mask_width
MERGED = {**LORA, "lora": {"merge": True}}

VARIANTS = {
    "default": {},
    "text": {"mask": "gated", "average": "mass", "entropy": "nucleus"},
    "mini_batch_quantile": {"quantile_scope": "mini_batch"},
    "exact": {"statistics_from": "exact"},
    "two_sided_normalized": {"penalty": "two_sided", "entropy": "normalized", "mask": "hard", "rho": 0.5},
}


METHOD_CASES = {
    # name: fields and signal with which it acts visibly on a mini-batch of 60 tokens
    "adaptive_clip": ({"clip_low": 0.02}, {"extra": 0.02}),
    "aer": ({}, {"alpha": 0.02}),
    "agentic_aepo": ({}, {}),
    "archer": ({"kl_certain": 0.1}, {}),
    "aspo": ({}, {}),
    "bapo": ({"low": 0.9, "max_low": 0.95, "high": 1.05}, {}),
    "ce_gppo": ({"clip_low": 0.05, "clip_high": 0.05}, {}),
    "cispo": ({"clip_low": 0.05, "clip_high": 0.05}, {}),
    "clip_cov": ({"ratio": 0.2, "lower": 0.01}, {}),
    "dppo": ({"low": 0.001, "high": 0.001}, {}),
    "entropy_adaptive": ({}, {"coefficient": 0.01}),
    "entropy_advantage": ({}, {}),
    "entropy_bonus": ({"coefficient": 0.01}, {}),
    "entropy_target": ({"coefficient": 0.01}, {}),
    "epo": ({"coefficient": 0.01}, {"past_entropy": 3.0}),
    "forking_tokens": ({}, {}),
    "gmpo": ({}, {}),
    "gspo": ({}, {}),
    "hapo": ({}, {}),
    "kl_cov": ({"ratio": 0.2}, {}),
    "paec": (ACTIVE, {"floor": FLOOR}),
    "paec_dual": ({}, {"multiplier": 0.1}),
    "paec_selective": (ACTIVE, {"floor": FLOOR}),
    "repo_r": ({}, {"zeta": 0.1}),
    "sapo": ({}, {}),
    "sent": ({"ratio": 0.2}, {}),
    "siren": ({"lambda_low": 0.5}, {"floor": 4.0}),
    "stare": ({}, {"positive": 1.5, "negative": 1.0}),
    "steer": ({}, {}),
    "tea_rl": ({"coefficient": 0.01}, {}),
}
"""Every method that acts in the actor; the others change advantages before the mini-batches are made."""


SCHEDULED = {
    "term": (
        ("entropy_bonus", {"coefficient": "linear:0:0.06:12"}),
        ("entropy_bonus", {"coefficient": 0.03}),
    ),
    "clip": (
        ("clip_higher", {"clip_low": 0.02, "clip_high": "linear:0.2:0.02:6"}),
        ("clip_higher", {"clip_low": 0.02, "clip_high": 0.02}),
    ),
}
"""A method with a schedule, and with the number that it has in step 7, the one of the worker."""


def method_case(name: str, prefix: str, **changes) -> dict:
    fields, signal = METHOD_CASES[name]
    return case(f"{prefix}-{name}", method=(name, fields), signal=signal, **changes)


def cases_one_rank() -> list[dict]:
    cases = []
    for name in METHOD_CASES:
        for micro in (1, "all", "dynamic"):
            cases.append(method_case(name, f"1-method-{micro}", micro=micro))
        for agg in ("seq-mean-token-mean", "seq-mean-token-sum"):
            for micro in (2, "all"):
                cases.append(method_case(name, f"1-{agg}-{micro}", micro=micro, loss_agg_mode=agg))
    for variant, fields in VARIANTS.items():
        method = paec(**fields)
        for micro in (1, 2, 4, "all", "dynamic"):
            cases.append(case(f"1-{variant}-{micro}", method=method, micro=micro))
    for temperature in TEMPERATURES:
        for padded in (False, True):
            cases.append(case(f"1-T{temperature}-padded{padded}", temperature=temperature, padded=padded, micro=2))
    for mode, agg in (("vanilla", "token-mean"), ("gspo", "seq-mean-token-mean"), ("cispo", "token-mean")):
        for micro in (1, "all"):
            cases.append(case(f"1-{mode}-{micro}", loss_mode=mode, loss_agg_mode=agg, micro=micro))
        for engine in ("stock", "paec"):
            changes = dict(loss_mode=mode, loss_agg_mode=agg, engine=engine, method=None, micro=2, signal=None)
            cases.append(case(f"1-none-{mode}-{engine}", **changes))
    for padded in (False, True):
        cases.append(case(f"1-fused-padded{padded}", fused=7, padded=padded, micro=2, temperature=0.7))
    cases.append(case("1-none-fused", fused=7, method=None, micro=2, signal=None))
    cases.append(case("1-exact-fused", fused=7, method=paec(statistics_from="exact"), micro=2))
    cases.append(case("1-fused-nan", fused=7, poison=True))
    for micro in (1, "all", "dynamic"):
        cases.append(case(f"1-lora-{micro}", lora=LORA, micro=micro))
    cases.append(case("1-lora-reference", lora=LORA, micro=2, reference=True))
    cases.append(case("1-lora-fused", lora=LORA, fused=7, micro=2))
    cases.append(case("1-lora-merged", lora=MERGED, send=True, micro=2))
    for name, fields in SCHEDULED.items():
        cases.append(case(f"1-scheduled-{name}", method=fields[0], signal=None, micro=2))
        cases.append(case(f"1-fixed-{name}", method=fields[1], signal=None, micro=2))
    cases.append(case("1-no-floor", signal=None, restore=True))
    cases.append(case("1-nan", poison=True))
    cases.append(case("1-nan-none", poison=True, method=None, signal=None))
    return cases


def cases_two_ranks() -> list[dict]:
    cases = [method_case(name, f"2-sp{sp}-method", sp=sp, micro=2) for name in METHOD_CASES for sp in (1, 2)]
    for sp in (1, 2):
        for variant, fields in VARIANTS.items():
            cases.append(case(f"2-sp{sp}-{variant}", sp=sp, method=paec(**fields), micro=2))
        for micro in (1, "all", "dynamic"):
            cases.append(case(f"2-sp{sp}-{micro}", sp=sp, micro=micro))
        cases.append(case(f"2-sp{sp}-T0.7", sp=sp, temperature=0.7, micro=2))
        cases.append(case(f"2-sp{sp}-nan", sp=sp, poison=True))
        cases.append(case(f"2-sp{sp}-fused", sp=sp, fused=7, micro=2))
        cases.append(case(f"2-sp{sp}-lora", sp=sp, lora=LORA, micro=2))
        for fused in (None, 7):
            cases.append(case(f"2-sp{sp}-untied-{fused}", sp=sp, fused=fused, model="untied", micro=2))
    cases.append(case("2-sp1-restore", restore=True))
    cases.append(case("2-sp1-lora-merged", lora=MERGED, send=True, micro=2))
    cases.append(case("2-sp1-padded", padded=True, micro=2))
    return cases


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A peaked random model and a ragged mini-batch with old log-probs near the model's own."""
    folder = tmp_path_factory.mktemp("engine")
    tiny_model.build(folder / "raw", seed=3)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "raw")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6.0)  # entropies from 4.1 to 5 nats and nuclei of 60 to 100 tokens, not log V
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "raw").save_pretrained(folder / "model")

    untied = copy.deepcopy(model)
    untied.config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0) * 0.7)
    untied.save_pretrained(folder / "untied")
    AutoTokenizer.from_pretrained(folder / "raw").save_pretrained(folder / "untied")

    generator = torch.Generator().manual_seed(5)
    model = model.double()
    torch.save(mini_batch(model, generator), folder / "batch.pt")
    adapters = {
        name: 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in with_adapters(copy.deepcopy(model)).named_parameters()
        if parameter.requires_grad
    }
    torch.save(adapters, folder / "adapters.pt")
    return folder


class Results(dict):
    """What each case gave. A test that asks for a case of Ulysses is skipped where gloo cannot do its exchange."""

    def __missing__(self, name: str) -> dict:
        if "-sp2" in name and not gloo_has_alltoall():
            pytest.skip(NO_ALLTOALL)
        raise KeyError(name)


def results_of(work: Path, ranks: int, cases: list[dict]) -> Results:
    cases = [c for c in cases if c["sp"] == 1 or gloo_has_alltoall()]
    torchrun_cases("engine_worker.py", work, ranks, cases, timeout=400)
    return Results({c["name"]: torch.load(work / f"{c['name']}.pt") for c in cases})


@pytest.fixture(scope="module")
def one_rank(work):
    return results_of(work, 1, cases_one_rank())


@pytest.fixture(scope="module")
def two_ranks(work):
    return results_of(work, 2, cases_two_ranks())


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_rank_is_the_definition(work, one_rank, variant):
    hbar, gradient = oracle(work, PAECConfig(**ACTIVE, **VARIANTS[variant]))
    result = one_rank[f"1-{variant}-all"]
    assert relative(result["gradient"], gradient) < DEFINITION
    assert result["metrics"]["paec/update_selected_entropy"][0] == pytest.approx(hbar, rel=DEFINITION)
    assert 0.1 < hbar < FLOOR - 1, "entropy must be there and the penalty active for this test to say anything"


def test_every_method_of_the_actor_has_a_case():
    acting = {name for name, method in METHODS.items() if MethodStack([method()]).acts_in_actor}
    assert acting == set(METHOD_CASES)


@pytest.mark.parametrize("name", METHOD_CASES)
def test_every_method_for_any_split(one_rank, two_ranks, name):
    """Micro-batches, dynamic batches, data-parallel and Ulysses ranks, three ways to aggregate."""
    whole = one_rank[f"1-method-all-{name}"]
    others = [one_rank[f"1-method-{micro}-{name}"] for micro in (1, "dynamic")]
    for other in [*others, *(two_ranks[f"2-sp{sp}-method-{name}"] for sp in (1, 2))]:
        assert relative(other["gradient"], whole["gradient"]) < TOLERANCE
        assert other["loss"] == pytest.approx(whole["loss"], rel=TOLERANCE, abs=TERMS)
    for agg in ("seq-mean-token-mean", "seq-mean-token-sum"):
        split, together = (one_rank[f"1-{agg}-{micro}-{name}"] for micro in (2, "all"))
        assert relative(split["gradient"], together["gradient"]) < TOLERANCE
    plain = one_rank["1-none-vanilla-paec"]["gradient"]
    assert relative(whole["gradient"], plain) > 1e-3, "the method must do something for this test to say anything"


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_has_the_number_of_the_step(one_rank, name):
    """A clip range that moves is in our own surrogate, which is verl's."""
    scheduled, fixed = (one_rank[f"1-{kind}-{name}"] for kind in ("scheduled", "fixed"))
    assert relative(scheduled["gradient"], fixed["gradient"]) < 1e-6
    assert scheduled["loss"] == pytest.approx(fixed["loss"], rel=1e-6)
    assert relative(fixed["gradient"], one_rank["1-none-vanilla-paec"]["gradient"]) > 1e-3


def test_the_term_matters(work, one_rank):
    """Without floor the gradient differs visibly, so agreement elsewhere is not agreement of zeros."""
    with_floor, without = one_rank["1-default-all"]["gradient"], one_rank["1-no-floor"]["gradient"]
    assert relative(with_floor, without) > 0.05


@pytest.mark.parametrize("micro", [1, 2, 4, "dynamic"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches(one_rank, variant, micro):
    whole, split = one_rank[f"1-{variant}-all"], one_rank[f"1-{variant}-{micro}"]
    assert relative(split["gradient"], whole["gradient"]) < TOLERANCE
    assert split["loss"] == pytest.approx(whole["loss"], rel=TOLERANCE, abs=TERMS)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("padded", [False, True])
def test_temperature_and_padding(work, one_rank, temperature, padded):
    _, gradient = oracle(work, PAECConfig(**ACTIVE), temperature)
    assert relative(one_rank[f"1-T{temperature}-padded{padded}"]["gradient"], gradient) < DEFINITION


@pytest.mark.parametrize("sp", [1, 2], ids=["data_parallel", "ulysses"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks(one_rank, two_ranks, sp, variant):
    one, two = one_rank[f"1-{variant}-all"], two_ranks[f"2-sp{sp}-{variant}"]
    assert relative(two["gradient"], one["gradient"]) < TOLERANCE
    assert two["loss"] == pytest.approx(one["loss"], rel=TOLERANCE, abs=TERMS)
    key = "paec/update_selected_entropy"
    assert two["metrics"][key][0] == pytest.approx(one["metrics"][key][0], rel=TOLERANCE)


@pytest.mark.parametrize("sp", [1, 2], ids=["data_parallel", "ulysses"])
@pytest.mark.parametrize("micro", [1, "all", "dynamic"])
def test_two_ranks_micro_batches(one_rank, two_ranks, sp, micro):
    assert relative(two_ranks[f"2-sp{sp}-{micro}"]["gradient"], one_rank["1-default-all"]["gradient"]) < TOLERANCE


def test_two_ranks_temperature_and_padding(one_rank, two_ranks):
    reference = one_rank["1-T0.7-paddedFalse"]["gradient"]
    for sp in (1, 2):
        assert relative(two_ranks[f"2-sp{sp}-T0.7"]["gradient"], reference) < TOLERANCE
    assert relative(two_ranks["2-sp1-padded"]["gradient"], one_rank["1-default-all"]["gradient"]) < TOLERANCE


@pytest.mark.parametrize("mode", ["vanilla", "gspo", "cispo"])
def test_composes_with_surrogates(one_rank, mode):
    """The same for every split, and the difference from the bare surrogate is the PAEC term, for any surrogate."""
    whole = one_rank[f"1-{mode}-all"]["gradient"]
    assert relative(one_rank[f"1-{mode}-1"]["gradient"], whole) < TOLERANCE
    term = whole - one_rank[f"1-none-{mode}-paec"]["gradient"]
    vanilla = one_rank["1-vanilla-all"]["gradient"] - one_rank["1-none-vanilla-paec"]["gradient"]
    assert relative(term, vanilla) < 1e-4


@pytest.mark.parametrize("mode", ["vanilla", "gspo", "cispo"])
def test_method_none_is_stock_verl(one_rank, mode):
    ours, stock = one_rank[f"1-none-{mode}-paec"], one_rank[f"1-none-{mode}-stock"]
    assert relative(ours["gradient"], stock["gradient"]) < 1e-6
    assert ours["loss"] == pytest.approx(stock["loss"], rel=1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_a_fused_head_changes_nothing(one_rank, padded):
    plain = one_rank[f"1-T0.7-padded{padded}"]
    fused = one_rank[f"1-fused-padded{padded}"]
    assert relative(fused["gradient"], plain["gradient"]) < TOLERANCE
    assert fused["metrics"]["paec/update_selected_entropy"] == pytest.approx(
        plain["metrics"]["paec/update_selected_entropy"], rel=TOLERANCE
    )


def test_a_fused_head_with_other_methods(one_rank):
    assert relative(one_rank["1-none-fused"]["gradient"], one_rank["1-none-vanilla-stock"]["gradient"]) < TOLERANCE
    assert relative(one_rank["1-exact-fused"]["gradient"], one_rank["1-exact-2"]["gradient"]) < TOLERANCE


@pytest.mark.parametrize("sp", [1, 2], ids=["data_parallel", "ulysses"])
def test_a_fused_head_on_two_ranks_tied_and_untied(one_rank, two_ranks, sp):
    """FSDP2 shards an untied head by itself; its weight is gathered for the head's own forward and backward."""
    assert relative(two_ranks[f"2-sp{sp}-fused"]["gradient"], one_rank["1-default-all"]["gradient"]) < TOLERANCE
    untied, fused = (two_ranks[f"2-sp{sp}-untied-{fused}"] for fused in (None, 7))
    assert relative(fused["gradient"], untied["gradient"]) < TOLERANCE
    assert untied["gradient"].numel() > one_rank["1-default-all"]["gradient"].numel()


def test_adapters_get_the_gradient_of_the_definition(work, one_rank, two_ranks):
    """LoRA: the gradient of A and B, whatever the split; the frozen weights get none."""
    hbar, gradient = oracle(work, PAECConfig(**ACTIVE), adapters=True)
    whole = one_rank["1-lora-all"]
    assert whole["gradient"].numel() == gradient.numel() < one_rank["1-default-all"]["gradient"].numel()
    assert relative(whole["gradient"], gradient) < DEFINITION
    assert whole["metrics"]["paec/update_selected_entropy"][0] == pytest.approx(hbar, rel=DEFINITION)
    assert abs(hbar - oracle(work, PAECConfig(**ACTIVE))[0]) > 1e-3, "the adapters must change the policy"
    for other in (one_rank["1-lora-1"], one_rank["1-lora-dynamic"], one_rank["1-lora-fused"]):
        assert relative(other["gradient"], whole["gradient"]) < TOLERANCE
    for sp in (1, 2):
        assert relative(two_ranks[f"2-sp{sp}-lora"]["gradient"], whole["gradient"]) < TOLERANCE


def test_the_reference_pass_leaves_the_policy_statistics_alone(one_rank):
    """LoRA: the reference policy is the actor without its adapter, and its results go to the same queue entries."""
    policy, reference = one_rank["1-lora-reference"]["passes"]
    assert policy.keys() == set(OUTPUT_NAMES)
    assert reference.keys() == {"log_probs"}
    assert (policy["log_probs"] - reference["log_probs"]).abs().max() > 1e-3
    assert relative(one_rank["1-lora-reference"]["gradient"], one_rank["1-lora-all"]["gradient"]) < TOLERANCE


def test_the_policy_of_a_steps_start_comes_back_and_goes(one_rank, two_ranks):
    """separate_async measures every mini-batch under the old policy; verl's own copies would be no copies on a host."""
    assert one_rank["1-no-floor"]["restored"] == (True, True)
    assert two_ranks["2-sp1-restore"]["restored"] == (True, True)


def test_merged_adapters_are_what_vllm_gets(work, one_rank, two_ranks):
    """lora.merge=true: W + alpha / r B A in bfloat16 for every adapted layer; the adapters are as before afterwards."""
    from transformers import AutoModelForCausalLM

    adapters = torch.load(work / "adapters.pt")
    expected = AutoModelForCausalLM.from_pretrained(work / "model").state_dict()
    plain = expected["model.layers.0.self_attn.q_proj.weight"].clone()
    for name, a in adapters.items():
        if "lora_A" in name:
            layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
            expected[f"{layer}.weight"] += 2.0 * adapters[name.replace("lora_A", "lora_B")] @ a
    assert relative(plain, expected["model.layers.0.self_attn.q_proj.weight"]) > 0.05
    for result in (one_rank["1-lora-merged"], two_ranks["2-sp1-lora-merged"]):
        assert set(expected) - {"lm_head.weight"} <= set(result["sent"]) <= set(expected)
        for name, weight in result["sent"].items():
            torch.testing.assert_close(weight.float(), expected[name], rtol=2**-8, atol=1e-6)
        assert relative(result["gradient"], one_rank["1-lora-all"]["gradient"]) < TOLERANCE


def test_local_sums_are_added_by_name():
    """Over micro-batches, whatever the order of the names; other names in one of them are refused."""
    from recipe.paec.actor.engine import PAECEngine

    two_ranks = SimpleNamespace(_all_reduce=lambda sums: 2 * sums)
    parts = [{"mine": {"a": 1.0, "b": 2.0}, "other": {}}, {"mine": {"b": 0.5, "a": 3.0}, "other": {}}]
    assert PAECEngine._totals(two_ranks, parts) == {"mine": {"a": 8.0, "b": 5.0}, "other": {}}
    with pytest.raises(ValueError, match="mine: local_sums must return the same names for every micro-batch"):
        PAECEngine._totals(two_ranks, [{"mine": {"a": 1.0}}, {"mine": {"c": 1.0}}])


def test_nan_logits_stop_the_step(one_rank, two_ranks):
    for result in (
        one_rank["1-nan"],
        one_rank["1-nan-none"],
        one_rank["1-fused-nan"],
        two_ranks["2-sp1-nan"],
        two_ranks["2-sp2-nan"],
    ):
        assert "logits: NaN or inf" in result["error"] and "step 7" in result["error"]
        assert result["unchanged"]
