"""What the generating process is told, and the room that a prompt leaves for its response."""

from __future__ import annotations

from dataclasses import replace

from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.generation_process import Job, Replica, _requests, max_new_tokens


def test_room_for_a_response():
    assert max_new_tokens(100, 8192, 4096) == 3996
    assert max_new_tokens(100, 3072, 4096) == 3072


def test_prompts_are_encoded_as_the_job_tells_the_template(tmp_path, tiny_files):
    """Digits are a token each."""
    problem = Problem("aime24", "p3", [{"role": "user", "content": "123"}], "1", "").asked()
    template, sampling = "{{ messages[0]['content'] }}{{ '9' * nines }}", {"max_tokens": 9}
    job = Job(
        str(tiny_files / "model"),
        template,
        str(tmp_path / "j"),
        [problem],
        {"aime24": 1},
        0,
        sampling,
        64,
        {},
        1,
        1,
        {},
    )
    for nines in (0, 3):
        (request,) = _requests(replace(job, apply_chat_template_kwargs={"nines": nines}))
        assert len(request["prompt_token_ids"]) == 3 + nines


def test_job_travels(tmp_path, aime):
    job = Job("m", None, "j", [], {"aime24": 2}, 0, {"top_p": 1.0}, 64, {}, 1, 1, {}, {"A": "1"})
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_vllm_takes_its_servers_defaults(tiny_files, monkeypatch):
    """Sequences at once and tokens per step of a server on the same GPU, as in training, where the job gives none."""
    from vllm.v1.engine.async_llm import AsyncLLM

    seen = []
    monkeypatch.setattr(AsyncLLM, "__init__", lambda self, vllm_config, usage_context, **_: seen.append(usage_context))
    Replica(str(tiny_files / "model"), 64, {})
    assert seen == ["OPENAI_API_SERVER"]
