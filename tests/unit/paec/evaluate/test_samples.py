"""Files of samples: the layouts that are read, and each bad line named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from evaluation_cases import line, write_lines

from recipe.paec.common.errors import UserError
from recipe.paec.evaluate import benchmarks, samples


def test_sample_layouts(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    ours = [{**line("p1", 1), "finish_reason": "length", "seed": 9}, line("p1", 0)]
    dumps = [{"input": "Problem 0?", "output": output, "gts": "ignored", "score": 1.0} for output in "op"]
    many = {"question": "Problem 2?\n\nBox it.", "responses": ["r1", "r2"], "answer": "also ignored"}
    found = samples.read_samples(write_lines(tmp_path / "s.jsonl", [*ours, *dumps, many]), problems, "aime24")
    short = [(s["problem"], s["sample"], s["response"], s["ground_truth"], s["finish_reason"]) for s in found]
    assert short == [
        ("p1", 0, "\\boxed{1}\u2028", "101", "stop"),  # by its number, not by its place in the file
        ("p1", 1, "\\boxed{1}\u2028", "101", "length"),
        ("p0", 0, "o", "100", None),
        ("p0", 1, "p", "100", None),
        ("p2", 0, "r1", "102", None),
        ("p2", 1, "r2", "102", None),
    ]


def test_samples_with_their_own_references(tmp_path):
    lines = [{"prompt": "1+1?", "gold": 2, "generations": ["2"]}, {"prompt": "1+1?", "gold": 2, "generations": ["3"]}]
    one, two = samples.read_samples(write_lines(tmp_path / "s.jsonl", lines), {}, "math")
    assert one["problem"] == two["problem"] and (one["sample"], two["sample"]) == (0, 1)
    assert one["ground_truth"] == "2" and one["prompt"] == "1+1?"
    lines = [{**lines[0], "target": 2}, {**lines[1], "answer": "the response's", "gts": 2}]
    found = samples.read_samples(write_lines(tmp_path / "s.jsonl", lines), {}, "math")
    assert [s["ground_truth"] for s in found] == ["2", "2"]


@pytest.mark.parametrize(
    "bad, words",
    [
        ("{not json", ["line 2", "not JSON"]),
        ("[1]", ["line 2", "must be a JSON object, not list"]),
        ({"prompt": "q", "gold": "1", "output": 5}, ["line 2", "field response", "must be a string, not int"]),
        ({"prompt": "q", "output": "x"}, ["line 2", "field ground_truth"]),
        ({"prompt": "q", "gold": "1"}, ["line 2", "field response"]),
        (
            {"prompt": "r", "gold": "1", "answer": "2 - 1 = 1", "output": "x"},
            ["line 2, fields answer and gold: either may be the reference, and they differ: name the one that is it"],
        ),
        ({"prompt": "q", "gold": "1", "outputs": []}, ["line 2", "field response: is missing"]),
        ({"gold": "1", "output": "x"}, ["line 2", "field problem: is missing", "question, prompt, input"]),
        ({"prompt": "q", "gold": "2", "output": "x"}, ["line 2", "'2', but an earlier line gives this problem '1'"]),
        ({"prompt": "r", "gts": ["1"], "output": "x"}, ["line 2", "must be a string or a number, not ['1']"]),
        ('{"prompt": "r", "gold": NaN, "output": "x"}', ["line 2", "must be a string or a number, not nan"]),
        (
            {"prompt": "r", "gold": "\\boxed{1}", "output": "x"},
            ["line 2", "field ground_truth", "give the content of the box only"],
        ),
        ({"prompt": "q", "gold": "1", "output": "x", "tokens": 1.5}, ["line 2", "field tokens: must be an integer"]),
        ({"prompt": "q", "gold": "1", "output": "x", "data_source": "riddles"}, ["line 2", "no scorer for"]),
        (
            {**line("q", 0), "sample": "first", "gold": "1"} | {"benchmark": "math"},
            ["line 2", "field sample: must be an integer >= 0, not 'first'"],
        ),
        ("[" * 100_000, ["line 2", "not JSON"]),
        ({"prompt": "r", "gold": "1", "outputs": ["x", "y"]}, ["1 of 2 samples, missing 1"]),
    ],
)
def test_bad_sample_lines(tmp_path, bad, words):
    good = {"prompt": "q", "gold": "1", "output": "x"}
    with pytest.raises(UserError) as raised:
        samples.read_samples(write_lines(tmp_path / "s.jsonl", [good, bad]), {}, "math")
    assert all(word in str(raised.value) for word in words), raised.value


def test_sample_files_of_other_systems(tmp_path):
    """A byte order mark, CRLF and empty lines are read; another encoding is named."""
    path, text = tmp_path / "s.jsonl", json.dumps({"prompt": "é", "gold": "1", "output": "x"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n\r\n  \r\n{text}\r\n".encode())
    assert [(s["prompt"], s["sample"]) for s in samples.read_samples(path, {}, "math")] == [("é", 0), ("é", 1)]
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="line 1: is not UTF-8 .*: convert the file"):
        samples.read_samples(path, {}, "math")


def test_samples_that_are_counted_twice_or_not_at_all(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    twice = write_lines(tmp_path / "s.jsonl", [line(problem, 0) for problem in ("p0", "p2", "p0", "p1")])
    with pytest.raises(UserError, match="line 3: benchmark aime24, problem p0, sample 0 occurs twice"):
        samples.read_samples(twice, problems, None)
    some = write_lines(tmp_path / "s.jsonl", [line("p1", 0)])
    with pytest.raises(UserError, match=r"no response to 2 of the 3 problems of aime24 \(p0, p2\): add them"):
        samples.read_samples(some, problems, None)


def test_sample_of_an_unknown_problem(tmp_path, aime):
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    stray = write_lines(tmp_path / "s.jsonl", [{**line("p9", 0), "ground_truth": "1"}])
    with pytest.raises(UserError, match="line 1, field problem: 'p9' is not in the benchmark aime24"):
        samples.read_samples(stray, problems, "aime24")
    nameless = write_lines(tmp_path / "n.jsonl", [{"prompt": "q", "gold": "1", "output": "x"}])
    with pytest.raises(UserError, match="field benchmark: is missing:"):
        samples.read_samples(nameless, {}, None)


def test_prompts_within_a_chat_template(tmp_path, aime):
    """verl's validation dumps: the problem is known by its text, of which others may be a part."""
    problems = {"aime24": benchmarks.load_benchmark(aime / "aime24" / "test.parquet")}
    longer = replace(problems["aime24"][0], id="p3", prompt=[{"role": "user", "content": "1) Problem 0?\n\nBox it."}])
    problems["aime24"].append(longer)
    texts = ("Problem 0?\n\nBox it.", "Problem 1?", "Problem 2?\n\nBox it.", longer.prompt[0]["content"])
    dumps = [
        {"input": f"system\nReason.\nuser\n{text}\nassistant\n", "output": output, "gts": "1"}
        for text in texts
        for output in "op"
    ]
    found = samples.read_samples(write_lines(tmp_path / "s.jsonl", dumps), problems, "aime24")
    assert [(s["problem"], s["sample"], s["response"]) for s in found] == [
        (f"p{problem}", sample, "op"[sample]) for problem in range(4) for sample in range(2)
    ]
    assert [s["ground_truth"] for s in found[::2]] == ["100", "101", "102", "100"]
    assert found[2]["prompt"] == "Problem 1?\n\nBox it."
    both = write_lines(tmp_path / "s.jsonl", [{"input": "Problem 1? Problem 2?", "output": "o"}])
    with pytest.raises(UserError, match=r"line 1, field problem: .* contains the texts of 2 problems \(p1, p2\): add"):
        samples.read_samples(both, problems, "aime24")
    none = write_lines(tmp_path / "s.jsonl", [{"input": "user\nProblem 7?", "output": "o"}])
    with pytest.raises(UserError, match="is not in the benchmark aime24"):
        samples.read_samples(none, problems, "aime24")
