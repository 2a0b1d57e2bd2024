"""Generation without an engine: watching it, its errors, what is asked, and what a killed one leaves."""

from __future__ import annotations

import time

import pytest
from evaluation_cases import line, write_lines

from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import benchmarks, targets
from recipe.paec.evaluate import generation as evaluate_generation
from recipe.paec.evaluate.benchmarks import Problem


def test_watch_counts_and_notices_silence(tmp_path, capsys):
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n" * 3)
    watch = evaluate_generation.Watch(journal, 5, timeout=0.2)
    for _ in range(2):
        with open(journal, "a") as stream:
            stream.write("{}\n")
        watch.tick()
    assert "  5/5 responses" in capsys.readouterr().out
    time.sleep(0.15)
    journal.touch()  # what the engines do once they are up
    watch.tick()
    time.sleep(0.15)
    watch.tick()  # 0.3 s after the last response, 0.15 s after the last sign
    time.sleep(0.1)
    with pytest.raises(UserError, match="no response for"):
        watch.tick()


def test_the_time_left_is_that_of_the_responses_alone(tmp_path, capsys, monkeypatch):
    """400 s until the engines are up, 40 s until the first response, then one per second: 30 more take 30 s."""
    now = [0.0]
    monkeypatch.setattr(evaluate_generation.time, "monotonic", lambda: now[0])
    journal = tmp_path / "journal.jsonl"
    journal.write_text("{}\n" * 50)  # of an earlier start
    watch = evaluate_generation.Watch(journal, 111, timeout=1000)

    def at(seconds: float, count: int) -> str:
        now[0] = seconds
        with open(journal, "a") as stream:
            stream.write("{}\n" * (count - journal.read_text().count("\n")))
        watch.tick()
        return capsys.readouterr().out

    now[0] = 400
    journal.touch()
    watch.tick()
    assert capsys.readouterr().out == ""
    assert at(440, 51) == ""
    assert at(449, 60) == ""
    assert at(450, 61) == "  61/111 responses, 1.0 per second, 1 min left\n"
    assert at(455, 66) == ""
    assert at(500, 111) == "  111/111 responses, 1.0 per second, 0 min left\n"


def test_the_error_is_the_last_line_that_looks_like_one():
    printed = "ValueError: one\n  torch.OutOfMemoryError: CUDA out of memory\nloading é\n"
    assert evaluate_generation.last_error(printed) == "torch.OutOfMemoryError: CUDA out of memory"
    assert evaluate_generation.last_error("loading\n") == "no error message in the log (killed, or out of memory?)"


def test_a_kill_after_the_last_response_leaves_no_weights(evaluation, tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    write_lines(tmp_path / "journal.jsonl", [line(f"p{i}", 0) for i in range(3)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "job.json").touch()
    config = evaluation("model=m", "benchmarks=[a]", "protocol=tiny", "protocol.samples=1")
    target = targets.Target("c", tmp_path / "gone", True, None, 4, tmp_path)
    evaluate_generation.generate(config, target, problems)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "journal.jsonl"]


def test_what_decides_how_a_model_is_asked(evaluation, tiny_files):
    """Digits are a token each, so the second prompt is six tokens longer."""
    problems = [Problem("aime24", f"p{n}", [{"role": "user", "content": "1" * n}], "1", "") for n in (3, 9)]
    config = evaluation("model=m", "benchmarks=[a]", "context_length=40", "protocol.max_tokens=32")
    found = evaluate_generation.check_prompts(config, tiny_files / "model", problems)
    shorter = evaluate_generation.check_prompts(config, tiny_files / "model", problems[:1])
    assert found["longest_prompt"] == shorter["longest_prompt"] + 6
    assert found["least_room"] == min(32, 40 - found["longest_prompt"])
    assert found["context_length"] == 40 and found["chat_template"] == shorter["chat_template"]
    other = evaluation("model=m", "benchmarks=[a]", "context_length=40", "chat_template={{ messages[0]['content'] }}")
    assert (
        evaluate_generation.check_prompts(other, tiny_files / "model", problems)["chat_template"]
        != found["chat_template"]
    )


def test_what_the_template_is_told_decides_too(evaluation, tiny_files):
    problems = [Problem("aime24", "p3", [{"role": "user", "content": "123"}], "1", "")]
    template = "chat_template={{ messages[0]['content'] }}{% if enable_thinking is defined %}9{% endif %}"
    asked = ["model=m", "benchmarks=[a]", "context_length=40", template]
    plain = evaluate_generation.check_prompts(evaluation(*asked), tiny_files / "model", problems)
    told = evaluation(*asked, "+apply_chat_template_kwargs.enable_thinking=false")
    found = evaluate_generation.check_prompts(told, tiny_files / "model", problems)
    assert found["longest_prompt"] == plain["longest_prompt"] + 1 == 4
    assert found["chat_template"] != plain["chat_template"]


def test_prompt_longer_than_the_context(evaluation, tiny_files):
    config = evaluation("model=m", "benchmarks=[a]", "context_length=20")
    long = Problem("aime24", "p7", [{"role": "user", "content": "x" * 40}], "1", "")
    with pytest.raises(UserError, match="problem p7: its prompt has .* the model's context is 20"):
        evaluate_generation.check_prompts(config, tiny_files / "model", [long])
