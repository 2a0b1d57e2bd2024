"""What is refused before a run with TRL starts; without TRL."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from paec_loss import MethodStack
from paec_loss.integrations import trl_refusals
from paec_loss.integrations.trl_refusals import condition, refusals, refused_method
from paec_loss.methods import METHODS


def args(**options) -> SimpleNamespace:
    """What GRPOConfig has by default, of what is read."""
    defaults = {
        "beta": 0.0,
        "num_generations": 8,
        "loss_type": "dapo",
        "multi_objective_aggregation": "sum_then_normalize",
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 4,
        "epsilon": 0.2,
        "epsilon_high": None,
        "delta": None,
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "off_policy_mask_threshold": None,
    }
    return SimpleNamespace(**defaults | options)


def found(*names: str, answers: bool = False, **options) -> list[str]:
    return list(refusals(MethodStack([METHODS[name]() for name in names]), args(**options), answers))


def test_methods_that_trl_has_no_place_for():
    refused = {name for name, kind in METHODS.items() if refused_method(name, kind())}
    assert refused == {"aepo", "sent"}
    (aepo,) = found("aepo")
    assert aepo.startswith("aepo draws some prompts at a temperature of their own") and "verl recipe" in aepo
    assert "curriculum" in refused_method("sent", METHODS["sent"]())


def test_every_other_method_is_accepted_with_the_defaults_and_what_it_asks_for():
    asks = {name: condition(kind()) for name, kind in METHODS.items() if condition(kind())}
    answers, reference = "`answer_func`", "`beta` above 0"
    asking = dict.fromkeys(("empo", "seed_grpo", "spurious", "ttrl"), answers)
    assert asks == {"archer": reference, "sent": reference, **asking}
    for name in METHODS.keys() - {"aepo", "sent"}:
        assert found(name, answers=True, beta=0.1) == [], name
        assert found(name, answers=True) == [] or name == "archer", name
    (reason,) = found("archer")
    assert reason == "archer needs a reference policy, which TRL only has if beta is above 0: set args.beta"
    assert found("none", "clip_higher", "pear") == []


@pytest.mark.parametrize("name", ["seed_grpo", "empo", "ttrl", "spurious"])
def test_answers_must_be_given(name):
    (reason,) = found(name)
    assert reason == f"{name} compares the answers of a prompt's responses: pass answer_func=, which returns them"


def test_groups_that_are_too_small():
    (reason,) = found("pass_at_k", num_generations=4)
    assert reason == "num_generations=4: pass_at_k compares the responses to one prompt: draw at least 5"
    assert found("pass_at_k", num_generations=5) == [] and found("qae", num_generations=2) == []


def test_sent_names_both_reasons():
    assert len(found("sent")) == 2 and len(found("sent", beta=0.1)) == 1


@pytest.mark.parametrize(
    ("names", "options", "part"),
    [
        (("steer",), {"loss_type": "bnpo"}, "loss_type='bnpo' cannot be combined with steer"),
        (("paec",), {"loss_type": "cispo"}, "choose one of dapo, grpo, dr_grpo"),
        (("clip_higher",), {"loss_type": "sapo"}, "loss_type='sapo' has no clip range, and clip_higher brings one"),
        (("forking_tokens",), {"loss_type": "grpo"}, "forking_tokens selects those of the mean: set loss_type='dapo'"),
        (("paec",), {"steps_per_generation": 2}, "steps_per_generation=2 is not a multiple of gradient_accumulation"),
        (("paec",), {"steps_per_generation": 6}, "steps_per_generation=6 is not a multiple of gradient_accumulation"),
        (("kl_cov",), {"delta": 1.1}, "delta=1.1 is below 1 + epsilon_high = 1.2"),
        (("paec",), {"importance_sampling_level": "sequence"}, "set it to 'token'"),
        (("paec",), {"top_entropy_quantile": 0.2}, "the method forking_tokens is the same): set it to 1.0"),
        (("paec",), {"entropy_coef": 0.01}, "entropy_coef=0.01 cannot be combined with paec"),
        (("paec",), {"use_adaptive_entropy": True}, "set it to False"),
        (("kl_cov",), {"off_policy_mask_threshold": 0.5}, "set it to None"),
        (("pear",), {"multi_objective_aggregation": "normalize_then_sum"}, "set it to 'sum_then_normalize'"),
    ],
)
def test_options(names, options, part):
    (reason,) = found(*names, **options)
    assert part in reason and reason.count(": ") >= 1


def test_options_that_only_matter_beside_a_loss_of_its_own():
    assert found("paec", off_policy_mask_threshold=0.5) == []
    assert found("none", "w_reinforce", loss_type="vespo", entropy_coef=0.1, steps_per_generation=1) == []
    assert found("clip_higher", loss_type="luspo") == []


def test_the_tables_name_options_that_trl_has():
    trl = pytest.importorskip("trl", minversion="1.16", reason="needs trl 1.16: pip install -e .[trl]")
    options = {name: getattr(trl.GRPOConfig, name, ...) for name in vars(args())}
    assert ... not in options.values()
    neutral = trl_refusals.NEUTRAL | trl_refusals.NEUTRAL_WITH_OWN_LOSS
    assert {name: options[name] for name in neutral} == {name: value for name, (value, _) in neutral.items()}


def test_the_page_lists_every_method_where_it_belongs():
    page = (Path(__file__).parents[4] / "docs" / "trl.md").read_text(encoding="utf-8")
    section = page[page.index("## Which methods") : page.index("## What is the same")]
    rows = dict(re.findall(r"^\| ([a-z].*?) \| (`.*) \|$", section, flags=re.M))
    listed = {heading: re.findall(r"`(\w+)`", names) for heading, names in rows.items()}
    assert list(listed) == [
        "as they are",
        "with `answer_func`",
        "with `beta` above 0 (TRL's KL is added to the method's own)",
        "refused: other temperatures for some prompts, which TRL does not draw",
        "refused: a curriculum, which TRL's sampler does not have",
    ]
    as_they_are, with_answers, with_reference, *refused = listed.values()
    assert refused == [["aepo"], ["sent"]]
    assert with_answers == [name for name, kind in METHODS.items() if condition(kind()) == "`answer_func`"]
    assert with_reference == ["archer"]
    rest = [name for name in METHODS if name not in (*with_answers, *with_reference, "aepo", "sent")]
    assert as_they_are == rest
