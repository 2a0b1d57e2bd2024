"""The file of a search: what it may say, and one sentence for everything that is wrong."""

from __future__ import annotations

import pytest
from search_cases import FILE, Made, request

from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import REPOSITORY
from recipe.search.loop import spaces_of
from recipe.search.objective import Objective
from recipe.search.request import Sampler, read, request_of
from recipe.search.space import Choices, Range


def test_a_complete_file():
    asked = request(all=["steps=4"], sampler={"name": "tpe", "seed": 3, "startup": 2})
    assert (asked.overrides, asked.seeds, asked.trials, asked.runner) == (("steps=4",), (11, 12), 3, "lab")
    assert asked.sampler == Sampler("tpe", 3, 2) and asked.objective == Objective("last", ("avg@4",))
    assert asked.methods["none"] == {} and asked.methods["paec"] == {"rho_min": Range(0.1, 0.9, log=False, whole=False)}
    assert (asked.settings("none"), asked.settings("paec")) == (1, 3)
    assert asked.written()["sampler"] == {"name": "tpe", "seed": 3, "startup": 2}
    assert request(runner="pipeline").written()["experiment"] == "tiny_cpu" and "experiment" not in asked.written()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"trials": 0}, "trials=0: must be an integer >= 1"),
        ({"trials": 2.5}, "trials=2.5: must be an integer >= 1"),
        ({"trials": None}, "trials: is missing"),
        ({"trial": 3}, "trial: is not a key of a search: did you mean trials?"),
        ({"seeds": []}, "seeds: must be a list of at least one seed"),
        ({"seeds": [1, 1]}, "seeds: 1 occurs twice: delete one of them"),
        ({"seeds": [-1]}, "seeds=-1: must be an integer >= 0"),
        ({"seeds": [0, 99999999999]}, "seeds=99999999999: must be an integer >= 0 and <= 4294901760"),
        ({"seeds": [True]}, "seeds=True: must be an integer >= 0"),
        ({"sampler": "cma"}, "sampler=cma: must be one of grid, random, tpe"),
        ({"sampler": {"seed": 1}}, "sampler: must be like {name: tpe, seed: 0}"),
        ({"sampler": {"name": "tpe", "seeds": 1}}, "sampler.seeds: a sampler has only name, seed and startup"),
        ({"sampler": {"name": "tpe", "seed": "a"}}, "sampler.seed=a: must be an integer >= 0"),
        ({"sampler": {"name": "random", "startup": 2}}, "sampler.startup: only tpe has one"),
        ({"sampler": "tpe"}, "trials=3: tpe draws the first 10 settings of a method at random"),
        ({"sampler": "grid"}, "methods.paec.rho_min: is a range, and a grid needs lists"),
        ({"runner": "slurm"}, "runner=slurm: must be one of lab, pipeline"),
        ({"experiment": "qwen7b"}, "experiment: is only for runner: pipeline"),
        ({"slurm": "--nodes=1"}, "slurm: is only for runner: pipeline"),
        ({"runner": "pipeline", "slurm": 3}, "slurm=3: must be text"),
        ({"all": "steps=3"}, "all: must be a list of overrides"),
        ({"all": ["method.rho=0.5"]}, "all: method.rho=0.5: the search sets the methods itself"),
        ({"all": ["seed=3"]}, "all: seed=3: the search sets the seeds itself: use seeds"),
        ({"methods": {}}, "methods: must name the methods and their knobs"),
        ({"methods": {"paec": [0.5]}}, "methods.paec: must be its knobs"),
        ({"methods": {"paec": {"rho": 3}}}, "methods.paec.rho=3: must be a list of values"),
        ({"objective": "accuracy"}, "objective: must be like"),
    ],
)
def test_a_bad_file_is_one_sentence(changes, sentence):
    with pytest.raises(UserError) as caught:
        request(**changes)
    assert str(caught.value).startswith(sentence) and len(caught.value.errors) == 1


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as caught:
        request(trials=0, seeds=[], runner="x", methods={"paec": {"rho": 3, "beta": {"low": 2, "high": 1}}})
    assert len(caught.value.errors) == 5
    with pytest.raises(UserError, match="^the file of a search has seeds, trials"):
        request_of([1], "made")


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"trials": 4, "methods": {"paec": {"rho_min": [0.7, 0.8]}}},
            "methods.paec: has 2 settings with its default, ",
        ),
        (
            {"sampler": "grid", "methods": {"paec": {"rho_min": [0.5, 0.6, 0.7]}}},
            "methods.paec: its grid has 4 settings with its default, but trials is 3: a grid is tried completely",
        ),
        (
            {"trials": 5, "methods": {"paec": {"anchor_steps": {"low": 3, "high": 6, "int": True}}}},
            "methods.paec: has 4 settings with its default, but trials is 5: every method gets the same number",
        ),
        ({"objective": {"take": "last", "of": "avg@8"}}, "objective.of: avg@8 is not a metric of these validations"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(changes, sentence):
    with pytest.raises(UserError) as caught:
        spaces_of(request(**changes), Made())
    assert str(caught.value).startswith(sentence)


def test_the_file_on_disk(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seeds: [1]\ntrials: 2\nsampler: random\nobjective: {take: last, of: avg@4}\nmethods:\n")
    with pytest.raises(UserError, match="^methods: must name"):
        read(file)
    with open(file, "a") as stream:
        stream.write("  clip_cov: {ratio: {low: 1e-4, high: 1e-2, log: true}}\n  none:\n")
    asked = read(file)
    assert asked.name == "mine" and asked.methods["none"] == {}
    assert asked.methods["clip_cov"]["ratio"] == Range(0.0001, 0.01, log=True, whole=False), "1e-4 is a number"
    file.write_text("seeds: [1\n")
    with pytest.raises(UserError, match="mine.yaml: is not YAML: "):
        read(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="mine.yaml: is not YAML: "):
        read(file)
    with pytest.raises(UserError, match="there is no such file"):
        read(tmp_path / "none.yaml")


def test_the_file_of_the_page(tmp_path):
    page = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")
    (tmp_path / "page.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0])
    asked, runner = read(tmp_path / "page.yaml"), Made()
    runner.metrics = lambda: ["avg@32", "pass@32"]
    assert spaces_of(asked, runner)["paec"].default == {"rho_min": 0.8, "top_p": 0.8}
    assert asked.sampler == Sampler("tpe", 0, 5) and asked.settings("entropy_bonus") == 12


def test_the_file_of_the_repository():
    """Its budget is equal, and every value is one that the method accepts."""
    asked = read(REPOSITORY / "benchmarks" / "lab" / "paec_search.yaml")
    runner = Made()
    runner.metrics = lambda: ["avg@32", "pass@32"]
    spaces = spaces_of(asked, runner)
    assert {name: space.count() for name, space in spaces.items()} == {
        "none": 1,
        **dict.fromkeys(("paec", "entropy_bonus", "clip_higher", "clip_cov"), 3),
    }
    assert spaces["clip_cov"].knobs["ratio"] == Choices((0.0002, 0.002, 0.02)) and FILE["trials"] == asked.trials
