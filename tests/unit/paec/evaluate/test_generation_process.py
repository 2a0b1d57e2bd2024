"""What the generating process is told, and the room that a prompt leaves for its response."""

from __future__ import annotations

from recipe.paec.evaluate.generation_process import Job, max_new_tokens


def test_room_for_a_response():
    assert max_new_tokens(100, 8192, 4096) == 3996
    assert max_new_tokens(100, 3072, 4096) == 3072


def test_job_travels(tmp_path, aime):
    job = Job("m", None, "j", [], {"aime24": 2}, 0, {"top_p": 1.0}, 64, {}, 1, 1, {}, {"A": "1"})
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job
