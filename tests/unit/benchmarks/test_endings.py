"""What the policies of finished runs draw: by hand, against the validation, and as it was recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.lab import endings, results
from benchmarks.lab.records import read as read_runs
from recipe.grading import countdown
from recipe.lab import grpo
from recipe.lab.policy import Prompts
from recipe.lab.runs import save
from recipe.lab.sampling import sample
from recipe.lab.task import generator_of, rows_of
from recipe.paec.scoring.estimators import Difference


def write(folder, name, correct, expressions, solutions, entropy=20.0, high_entropy=5.0):
    """A record of two problems and 100 tokens, of which one is above HIGH."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {"tokens": 100.0, "entropy": entropy, "high": 1.0, "high_entropy": high_entropy}
    sums |= {"ungraded_high_entropy": high_entropy * 0.8, "mask_entropy": 8.0, "high_mask_entropy": 4.0}
    counts = {"correct": correct, "expressions": expressions, "solutions": solutions}
    about = {"step": 1000, "date": "2026-11-21", "cores": 2}
    (folder / f"{name}.json").write_text(json.dumps({**about, **counts, **sums}))


def test_an_ending_by_hand(small, task, monkeypatch):
    """Every number again, response by response, from the same random numbers."""
    monkeypatch.setattr(endings, "HIGH", 0.5)
    settings = small("test_samples=4", "seed=3")
    state = grpo.started(settings)
    found = endings.ending(state.policy, task, settings, 7, "validation")
    expected = {name: [] for name in endings.COUNTS}
    sums = dict.fromkeys(endings.SUMS, 0.0)
    generator, length = generator_of(3, 7, "validation"), settings.max_response_length
    for first in range(0, len(task.validation), 128):
        part = task.validation[first : first + 128]
        prompts = Prompts.of([problem.ids for problem in part])
        drawn = sample(state.policy, prompts, 4, length, torch.ones(len(part)), task.end, generator)
        for place, problem in enumerate(part):
            texts = task.texts(rows_of(drawn.tokens[place], drawn.inside[place]))
            right = [v.answer for v in task.verdicts([problem] * 4, texts) if v.correct]
            expected["correct"].append(len(right))
            expected["expressions"].append(len({answer.replace(" ", "") for answer in right}))
            expected["solutions"].append(len({countdown.solution(answer) for answer in right}))
            for row in range(4):
                tokens = drawn.tokens[place, row][drawn.inside[place, row]].tolist()
                log_probs = drawn.logits[place, row][drawn.inside[place, row]].double().log_softmax(-1)
                entropy = -(log_probs.exp() * log_probs).sum(-1)
                last = max((k for k, token in enumerate(tokens) if chr(token) == ";"), default=-1)
                sums["tokens"] += len(tokens)
                sums["entropy"] += entropy.sum().item()
                sums["high"] += (entropy > 0.5).sum().item()
                sums["high_entropy"] += entropy[entropy > 0.5].sum().item()
                ungraded = torch.arange(len(tokens)) <= last
                sums["ungraded_high_entropy"] += entropy[(entropy > 0.5) & ungraded].sum().item()
    assert {name: found[name] for name in endings.COUNTS} == expected
    for name in endings.SUMS[:5]:
        assert found[name] == pytest.approx(sums[name], rel=1e-4), name
    assert 0 < found["high_mask_entropy"] <= found["mask_entropy"] < found["entropy"]


def test_the_policy_of_a_run_and_the_one_before_it(small, tmp_path):
    settings = small("steps=1")
    state = grpo.started(settings)
    with torch.no_grad():
        for parameter in state.policy.parameters.values():
            parameter.mul_(0.5)
    state.step = 1
    folder = tmp_path / "none-seed1"
    folder.mkdir()
    save(folder, state, settings)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings.record)))
    found = endings.endings_of(folder, "validation")
    assert {name: record["step"] for name, record in found.items()} == {"start-seed1": 0, "none-seed1": 1}
    assert found["start-seed1"]["entropy"] != found["none-seed1"]["entropy"]
    folder.rename(tmp_path / "paec-seed1")
    (again,) = endings.endings_of(tmp_path / "paec-seed1", "validation").values()
    assert again == found["none-seed1"]


def test_the_section_by_hand(tmp_path):
    folder = tmp_path / endings.FOLDER / "countdown_four"
    assert endings.section(tmp_path) == "" and endings.in_short(tmp_path) == []
    for seed in (1, 2):
        write(folder, f"none-seed{seed}", [3, 0], [2, 0], [1, 0], high_entropy=0.0)
        write(folder, f"start-seed{seed}", [1, 1], [1, 1], [1, 1])
        write(folder, f"paec-seed{seed}", [5, 1], [4, 1], [2, 1], entropy=40.0, high_entropy=10.0)
    write(folder, "siren-seed1", [1, 1], [1, 1], [1, 1])
    text = endings.section(tmp_path, draws=5)
    assert "### Four numbers, 1,000 steps, 2 validation problems, 2 seeds" in text
    assert "| before training | 1.000 | 1.00 | 1.00 | 0.000 | 0.200 | 1.0% | 25% | 0.150 |" in text
    assert "| `none` | 0.500 | 1.00 | 0.50 | 0.000 | 0.200 | 1.0% | 0% | 0.200 |" in text
    assert "| `paec` | 1.000 | 2.50 | 1.50 | 0.500 | 0.400 | 1.0% | 25% | 0.300 |" in text
    assert "siren" not in text, "its other seed is missing"
    assert "alone" not in text
    for seed in (1, 2):
        write(folder, f"pass_at_k-seed{seed}", [3, 0], [2, 0], [1, 0])
        write(folder, f"pass_at_k+paec-seed{seed}", [5, 1], [4, 1], [2, 1])
    *_, alone = endings.section(tmp_path, draws=5).split("Minus ")
    assert alone.startswith("`pass_at_k` alone; 95 % intervals, bold what differs:")
    assert "| `pass_at_k+paec` | " in alone and "+1.50 [" in alone and "+1.00 [" in alone
    assert (
        "* Four numbers, 1,000 steps: 25% of `paec`'s token entropy is at tokens above 2 nats, which are 1.0% of the "
        "tokens (0% with GRPO); 80% of that is where no grader reads. They have 50% of the entropy that counts "
        "towards the floor. With them counted as 0 the token entropy is 0.300, GRPO's 0.200." in text
    )
    (first, *_) = endings.in_short(tmp_path, draws=5)
    assert "+1.50 [" in first and "expressions are +1.00 [" in first and "(four numbers, 1,000 steps)" in first


def test_differences_are_of_means():
    values = {"correct": np.array([[2, 0], [1, 1]]), "expressions": np.array([[2, 0], [1, 1]])}
    one = endings.Ending((1, 2), 5, {**values, "solutions": np.array([[2, 0], [2, 1]])}, {}, ())
    other = endings.Ending((1, 2), 5, {name: np.zeros((2, 2), int) for name in endings.COUNTS}, {}, ())
    found = endings.differences(one, other, draws=50)
    assert isinstance(found["solutions"], Difference)
    means = {"pass@32": 0.75, "expressions": 1.0, "solutions": 1.25, "several solutions": 0.5}
    assert {name: of.value for name, of in found.items()} == pytest.approx(means)


@pytest.mark.parametrize("table", endings.TABLES, ids=lambda table: table.folder)
def test_the_recorded_responses_are_those_of_the_last_validation(table):
    """Drawn again, they have the counts that the training recorded; the policy before it, those of its step 0."""
    found = endings.read(results.RECORDS / endings.FOLDER / table.folder)
    runs = read_runs(results.RECORDS / table.folder, table.split)
    assert {endings.START, "none"} <= found.keys()
    for name, one in found.items():
        of, step = (runs["none"], 0) if name == endings.START else (runs[name], -1)
        assert (one.seeds, one.step) == (of.seeds, of.steps[step])
        assert np.array_equal(one.counts["correct"], of.correct[:, step]), name
        assert np.array_equal(one.counts["expressions"], of.distinct[:, step]), name
        assert (one.counts["solutions"] <= one.counts["expressions"]).all()
        assert one.entropy == pytest.approx(of.entropy[:, step], abs=1e-4), name


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    assert endings.main(["long", str(tmp_path / "none-seed1")]) == 1
    assert "has no state.pt: give folders of finished runs" in capsys.readouterr().err
