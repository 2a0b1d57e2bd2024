"""The evaluation's configuration: protocols, samples of a benchmark, values that are refused."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import typed
from recipe.paec.config.schema import EvaluationConfig
from recipe.paec.evaluate import settings

PROTOCOLS = {
    "luffy": (0.6, 1.0, 8192, {"aime24": 32, "amc23": 32, "math500": 8}),
    "dapo": (1.0, 0.7, 8192, {"aime24": 32, "math500": 32}),
    "paec": (0.6, 1.0, 4096, {"aime24": 32, "amc23": 16, "math500": 8}),
    "tiny": (1.0, 1.0, 32, {"reasoning_gym/countdown": 8}),
}


@pytest.mark.parametrize("name", [path.stem for path in (CONFIGS / "protocol").glob("*.yaml")])
@pytest.mark.parametrize("cluster", ["cpu", "gpu_1x1", "gpu_1x8"])
def test_protocols(evaluation, name, cluster):
    config = evaluation("model=m", "benchmarks=[b]", f"protocol={name}", f"cluster={cluster}")
    temperature, top_p, max_tokens, counts = PROTOCOLS[name]
    protocol = config.protocol
    assert (protocol.name, protocol.temperature, protocol.top_p) == (name, temperature, top_p)
    assert (protocol.top_k, protocol.max_tokens) == (-1, max_tokens)
    assert settings.samples_per_problem(config, dict.fromkeys(counts, [])) == counts
    assert config.engine.dtype == ("float32" if cluster == "cpu" else "bfloat16")
    assert config.engine.enforce_eager is (cluster == "cpu")
    assert config.cluster.platform == ("cpu" if cluster == "cpu" else "cuda")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["model=m"], ["give model=... and benchmarks=[...]"]),
        (["model=m", "benchmarks=[a]", "samples=f"], ["give only one of them"]),
        (["model=m", "benchmarks=[a]", "protocol.samples=0"], ["protocol.samples=0: must be an integer >= 1"]),
        (["model=m", "benchmarks=[a]", "protocol.samples_of.aime24=-1"], ["protocol.samples_of.aime24=-1"]),
        (
            ["model=m", "benchmarks=[a]", "protocol.top_k=0"],
            ["protocol.top_k=0: must be an integer >= 1, or -1"],
        ),
        (["model=m", "benchmarks=[a]", "grader.workers=0"], ["grader.workers=0: must be an integer >= 1, or null"]),
        (["model=m", "benchmarks=[a]", "context_length=0"], ["context_length=0: must be an integer >= 1, or null"]),
        (["model=m", "benchmarks=[a]", "stall_timeout=0"], ["stall_timeout=0.0: must be a number > 0"]),
        (["model=m", "benchmarks=[a]", "protocol.top_p=1.5"], ["protocol.top_p=1.5: must be a number in (0, 1]"]),
        (
            ["model=m", "benchmarks=[a]", "protocol.temperature=-1"],
            ["protocol.temperature=-1.0: must be a number"],
        ),
        (
            ["model=m", "benchmarks=[a]", "protocol.temperature=200"],
            ["protocol.temperature=200.0: must be a number >= 0 and < 100"],
        ),
        (["model=m", "benchmarks=[a]", "protocol.temperature=hot"], ["protocol.temperature", "hot"]),
        (["model=m", "benchmarks=[a]", "seed=x"], ["seed", "x"]),
        (["model=m", "benchmarks=[a]", "protocol.max_tokens=0"], ["protocol.max_tokens=0: must be an integer >= 1"]),
    ],
)
def test_bad_values_are_named(evaluation, overrides, words):
    with pytest.raises(UserError) as raised:
        evaluation(*overrides)
    assert all(word in str(raised.value) for word in words), raised.value


def test_samples_of_a_benchmark(evaluation):
    """Of any benchmark that is evaluated, whether the protocol names it or not; of no other."""
    config = evaluation("model=m", "benchmarks=[a]", "protocol=dapo", "protocol.samples_of.math500=4")
    assert settings.samples_per_problem(config, {"math500": [], "aime24": []}) == {"math500": 4, "aime24": 32}
    settings.check_samples(config, {"math500": []})
    with pytest.raises(UserError, match="protocol.samples_of.math500: must name one of the benchmarks aime24"):
        settings.check_samples(config, {"aime24": []})


def test_greedy_means_one_sample(evaluation):
    """LUFFY draws 32 on AIME, whatever protocol.samples is: the error names the key that counts."""
    greedy = ("model=m", "benchmarks=[a]", "protocol.temperature=0")
    with pytest.raises(UserError, match="also set protocol.samples_of.aime24=1 protocol.samples=1$"):
        settings.check_samples(evaluation(*greedy), {"aime24": [], "math500": []})
    one = evaluation(*greedy, "protocol.samples=1")
    settings.check_samples(one, {"math500": []})
    with pytest.raises(UserError, match="every time: also set protocol.samples_of.aime24=1$"):
        settings.check_samples(one, {"aime24": [], "math500": []})


def test_config_dump_has_no_leftovers(evaluation):
    text = OmegaConf.to_yaml(evaluation("model=m", "benchmarks=[a]"))
    assert "${" not in text and "actor_rollout_ref" not in text


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("steps=10", "steps=10: must be a list of integers, or null: write steps=[10]"),
        ("steps=[10.7]", "steps=[10.7]: must be a list of integers, or null"),
        ("seed=1.9", "seed=1.9: must be an integer"),
        ("fresh=no", "fresh=no: must be true or false"),
        ("engine.enforce_eager=off", "engine.enforce_eager=off: must be true or false"),
    ],
)
def test_values_of_an_evaluation(evaluation, override, sentence):
    with pytest.raises(UserError) as raised:
        evaluation("model=m", "benchmarks=[b]", override)
    assert raised.value.errors == [sentence]


def test_numbers_of_samples_are_integers(evaluation):
    with pytest.raises(UserError, match=r"^protocol.samples_of=\{.*'a': 1.5\}: must be a table of integers$"):
        evaluation("model=m", "benchmarks=[b]", "protocol.samples_of.a=1.5")


def test_what_an_evaluation_takes(evaluation):
    config = evaluation(
        "model=m", "benchmarks=[b]", "steps=[10,20]", "stall_timeout=5", "cluster.env.OMP_NUM_THREADS=2"
    )
    assert (list(config.steps), config.stall_timeout, config.cluster.env.OMP_NUM_THREADS) == ([10, 20], 5.0, "2")


def test_no_message_names_a_type_of_the_library(evaluation):
    plain, said = OmegaConf.to_container(evaluation("model=m", "benchmarks=[b]")), []
    for value in ("word", 1.5, True, None, [None], {"a": None}):
        for key in typed.rules_of(EvaluationConfig):
            config = OmegaConf.create(plain)
            OmegaConf.update(config, key, value, merge=False)
            try:
                settings.resolved(config)
            except UserError as error:
                said += error.errors
    assert len(said) > 100
    assert not [line for line in said if "Node" in line or "Config" in line]
