"""Contamination: problems inside longer texts, in other spellings and words, and what only looks alike."""

import json
import random

import pytest

from data_prep import contamination
from data_prep.contamination import Match, benchmarks_of, find_contamination, main, problems_of
from data_prep.contract import ContractError, write_parquet
from data_prep.shingles import tokens
from data_prep.templates import FOREIGN_PREFIXES, FOREIGN_SUFFIXES

PROBLEM = (
    "Flora the frog starts at 0 on the number line and makes a sequence of jumps to the right. In any one jump, "
    "Flora leaps a positive integer distance $m$ with probability $\\tfrac{1}{2^m}$. What is the probability that "
    "Flora will eventually land at 10?"
)


def one(text, problem=PROBLEM, **options):
    """Class and similarity of the only match of a problem with a training text, or None."""
    overlap = find_contamination(["unrelated", text], {"set": ["Another problem 7?", problem]}, **options).benchmarks[
        "set"
    ]
    assert overlap.size == 2
    found = [("copy", match) for match in overlap.copies] + [
        ("other numbers", match) for match in overlap.other_numbers
    ]
    assert len(found) <= 1
    for _, match in found:
        assert (match.problem, match.row) == (1, 1)
    return (found[0][0], found[0][1].similarity) if found else None


def test_embedded_in_a_longer_text():
    text = (
        "Training row of 3 parts. " * 30 + PROBLEM + " Give the answer as a reduced fraction a/b, and find a+b+5. " * 30
    )
    assert one(text) == ("copy", 1.0)


@pytest.mark.parametrize(
    "text",
    [
        PROBLEM.upper().replace(" ", "\n "),
        PROBLEM.replace("$", "").replace(",", "").replace("\\tfrac{1}{2^m}", "\\dfrac{1}{2^{m}}"),
        PROBLEM.replace("0", "０").replace("Flora", "\u200bFlora"),
    ],
)
def test_other_spellings(text):
    assert one(text) == ("copy", 1.0)


def test_other_words():
    text = PROBLEM.replace("eventually land at", "ever come to").replace("Flora the frog", "A frog called Flora")
    kind, similarity = one(text)
    assert kind == "copy" and 0.6 < similarity < 0.9


def test_similarity_by_hand():
    # 11 tokens, 8 runs of 4, of which one holds the last word.
    problem = "Find the x with 2x + 3 = 9 please"
    assert tokens(problem) == ["find", "the", "x", "with", "2", "x", "+", "3", "=", "9", "please"]
    text = "Find the x with 2x + 3 = 9 now"
    assert one(text, problem) == ("copy", 7 / 8)
    assert one(text, problem, threshold=0.88) is None
    assert one(problem, problem, threshold=1) == ("copy", 1.0)


def test_other_numbers_are_the_weaker_class():
    assert one(PROBLEM.replace("10", "12")) == ("other numbers", 1.0)


def test_other_numbers_name_the_most_similar_row_once():
    texts = [PROBLEM.replace("10", "12").replace("eventually", "ever"), PROBLEM.replace("10", "13")]
    texts += [PROBLEM.replace("10", "14"), texts[0]]
    overlap = find_contamination(texts, {"set": [PROBLEM]}).benchmarks["set"]
    assert overlap.copies == ()
    assert overlap.other_numbers == (Match(0, 1, 1.0, PROBLEM[:200], texts[1][:200]),)


def test_a_number_between_is_another_problem():
    assert one("Compute the value of 3 + 4 * 5 now.", "Compute the value of 3 + 4 * 5 now.")[0] == "copy"
    assert one("Compute the value of 13 + 4 * 5 now.", "Compute the value of 3 + 4 * 5 now.")[0] == "other numbers"
    assert one("Compute the value of 3 + 4 * 56 now.", "Compute the value of 3 + 4 * 5 now.")[0] == "other numbers"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "Find the number of positive integers n such that 2^n + 12 is a perfect square.",
            "Find the number of positive integers n such that n divides 12.",
        ),
        (
            "Find the number of positive integers n such that every cat likes n of its sisters.",
            "Find the number of positive integers n such that n divides k.",
        ),
        (
            "Let ABC be a triangle with AB = 5. What is the area of the triangle?",
            "What is the area of the triangle with sides 5, 12 and 13 and a circle inside?",
        ),
        (
            "The answer can be written as m/n. What is m + n?",
            "The answer can be written as m/n. What is m + n? Toss 9 coins.",
        ),
    ],
)
def test_a_common_phrase_is_not_a_copy(text, problem):
    assert one(text, problem) is None


def test_a_problem_without_numbers():
    problem = "Which regular polygons tile the plane when only this kind may be used?"
    assert one(f"Part 7. {problem} Explain.", problem) == ("copy", 1.0)
    # 13 tokens, 10 runs: 7 are left, fewer than (1 + 0.45) / 2 of all.
    assert one("Which regular polygons tile the plane when only this kind is taken?", problem) is None


def test_short_problems_have_to_be_the_whole_text():
    assert one("$1 + 1$ ?", "1+1?") == ("copy", 1.0)
    assert one("1+2?", "1+1?") == ("other numbers", 1.0)
    assert one("What is 1+1?", "1+1?") is None
    assert one("hello", "Hello!") == ("copy", 1.0)
    # Four tokens are no run of a longer text.
    assert one("we compute tan x once more", "compute tan x once") is None
    assert one("", "") is None and one("text", "") is None and one("", PROBLEM) is None


def test_scattered_phrases_are_not_a_copy():
    """All of a problem's runs occur in a long text, but nowhere together."""
    found = tokens(PROBLEM)
    pieces = [" ".join(found[i : i + 5]) for i in range(0, len(found), 2)]
    assert one((" unrelated filler" * 20).join(pieces)) is None
    assert one(" ".join(pieces)) is not None


def test_figures_do_not_count():
    problem = (
        "What is the area of the shaded region with radius 2 [asy] draw((0,0)--(3,4)); fill(5,6); [/asy] in total?"
    )
    assert one("What is the area of the shaded region with radius 2 in total?", problem) == ("copy", 1.0)


def test_chinese():
    problem = "已知一个长方形的长是12厘米，宽是5厘米，求它的面积是多少平方厘米。"
    assert one("练习三：" + problem + "请写出过程。", problem) == ("copy", 1.0)
    assert one(problem.replace("12", "15"), problem) == ("other numbers", 1.0)


def test_giant_text():
    filler = " ".join(f"word{i % 977} {i}" for i in range(45_000))
    assert len(filler) > 500_000
    assert one(filler + PROBLEM + filler) == ("copy", 1.0)


def reference(text, problem, threshold):
    """The rule as it is stated: all stretches, one after the other."""
    words, wanted = (["#" if t[0].isdigit() else t for t in tokens(x)] for x in (text, problem))
    n, stretch = contamination.SHINGLE, contamination.STRETCH * len(wanted)
    runs = {tuple(wanted[i : i + n]) for i in range(len(wanted) - n + 1)}
    with_number = {run for run in runs if "#" in run}
    best = best_with_number = 0
    for start in range(len(words)):
        part = words[start : start + stretch]
        there = {tuple(part[i : i + n]) for i in range(len(part) - n + 1)}
        best = max(best, len(there & runs))
        best_with_number = max(best_with_number, len(there & with_number))
    needed = threshold if with_number else (1 + threshold) / 2
    enough = best / len(runs) >= needed and (not with_number or best_with_number / len(with_number) >= threshold)
    return best / len(runs) if enough else None


@pytest.mark.parametrize("threshold", [0.25, 0.45, 0.75, 1.0])
def test_against_the_rule_as_stated(threshold):
    rng = random.Random(0)
    words = ["red", "cat", "sees", "dog", "3", "4", "x", "+"]
    texts = [" ".join(rng.choices(words, k=rng.randint(6, 90))) for _ in range(120)]
    problems = [" ".join(rng.choices(words, k=rng.randint(6, 12))) for _ in range(60)]
    problems += [" ".join(text.split()[:8]) for text in texts[:20]]
    overlap = find_contamination(texts, {"set": problems}, threshold=threshold).benchmarks["set"]

    expected = {(p, t): reference(texts[t], problems[p], threshold) for p in range(80) for t in range(120)}
    expected = {pair: similarity for pair, similarity in expected.items() if similarity is not None}

    def spaced(text):
        return f" {' '.join(t for t in tokens(text) if t[0].isdigit())} ".replace("  ", " ")

    copies = {pair: s for pair, s in expected.items() if spaced(problems[pair[0]]) in spaced(texts[pair[1]])}
    assert len(copies) >= 20
    assert {(match.problem, match.row): match.similarity for match in overlap.copies} == copies
    best = {}
    for (problem, row), similarity in sorted(expected.items()):
        if all(problem != other for other, _ in copies) and similarity > best.get(problem, (0, 0))[0]:
            best[problem] = (similarity, row)
    assert {match.problem: (match.similarity, match.row) for match in overlap.other_numbers} == best


def test_report_and_table():
    texts = ["nothing", PROBLEM, "1+1?", PROBLEM.replace("10", "11"), "Solve this. " + PROBLEM]
    found = find_contamination(texts, {"aime24": ["1+2?", PROBLEM], "none": ["Quite another thing"], "empty": []})
    assert found.rows == {1, 4}
    assert found.benchmarks["aime24"].contaminated == 1
    assert found.benchmarks["aime24"].copies == (
        Match(1, 1, 1.0, PROBLEM[:200], PROBLEM[:200]),
        Match(1, 4, 1.0, PROBLEM[:200], ("Solve this. " + PROBLEM)[:200]),
    )
    # Row 3 has other numbers, but its problem has a copy already.
    assert found.benchmarks["aime24"].other_numbers == (Match(0, 2, 1.0, "1+2?", "1+1?"),)
    report = json.loads(json.dumps(found.report()))
    assert report["training_rows"] == 5 and report["contaminated_rows"] == 2
    assert report["benchmarks"]["aime24"]["contaminated"] == 1 and report["benchmarks"]["aime24"]["size"] == 2
    assert report["benchmarks"]["aime24"]["copies"][0]["problem_text"] == PROBLEM[:200]
    assert report["benchmarks"]["none"] == {"contaminated": 0, "size": 1, "copies": [], "other_numbers": []}
    assert [line.split() for line in found.table().splitlines()[1:]] == [
        ["aime24", "2", "1", "50.0%", "2", "1"],
        ["none", "1", "0", "0.0%", "0", "0"],
        ["empty", "0", "0", "0.0%", "0", "0"],
    ]


def test_threshold_is_checked():
    for threshold in (0, -1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=rf"threshold {threshold}: must be in \(0, 1\], it is a share of runs"):
            find_contamination(["a"], {}, threshold=threshold)


def write(path, problems, data_source="aime24", raw=True):
    """A prepared file; without `raw` the problem is in the user's turn alone."""
    rows = [
        {
            "data_source": data_source,
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": text}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {"split": "test", "index": i} | ({"problem": f"raw {text}"} if raw and i != 1 else {}),
        }
        for i, text in enumerate(problems)
    ]
    write_parquet(rows, path)
    return path


def test_reading(tmp_path):
    path = write(tmp_path / "a.parquet", ["p", "q", "r"])
    assert problems_of(path) == ["raw p", "q", "raw r"]
    other = write(tmp_path / "b.parquet", ["s"], "gsm8k", raw=False)
    assert benchmarks_of([path, other]) == {"aime24": ["raw p", "q", "raw r"], "gsm8k": ["s"]}
    foreign = write(tmp_path / "c.parquet", [f"{FOREIGN_PREFIXES[0]}\n\nWhich?\n\n{FOREIGN_SUFFIXES[0]}"], raw=False)
    assert problems_of(foreign) == ["Which?"]
    with pytest.raises(ContractError, match="b.parquet, field data_source: gsm8k is also in an earlier file;"):
        benchmarks_of([other, other])


def test_command(tmp_path, capsys):
    train = write(tmp_path / "train.parquet", ["unrelated", f"Solve: {PROBLEM}", "x"], "math", raw=False)
    bench = write(tmp_path / "test.parquet", [PROBLEM, "1+1?"], raw=False)
    report = tmp_path / "out" / "report.json"
    main([str(train), str(bench), "--json", str(report)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["aime24", "2", "1", "50.0%", "1", "0"]
    assert lines[2] == "1 of 3 training rows contain a benchmark problem"
    assert lines[4].split() == ["aime24", "2", "1", "50.0%", "1"]
    [match] = json.loads(report.read_text())["benchmarks"]["aime24"]["copies"]
    assert (match["problem"], match["row"], match["similarity"]) == (0, 1, 1.0)
    ngrams = json.loads(report.read_text())["ngrams"]
    assert ngrams["n"] == 13 and ngrams["benchmarks"]["aime24"]["overlapping"] == 1
    [match] = ngrams["benchmarks"]["aime24"]["matches"]
    assert (match["problem"], match["row"], match["shared"]) == (0, 1, match["total"])
    assert match["words"] == "flora the frog starts at 0 on the number line and makes a"


def test_command_refuses_in_one_sentence(tmp_path):
    train = write(tmp_path / "train.parquet", ["unrelated"])
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit, match="absent.parquet: does not exist;"):
        main([str(train), str(tmp_path / "absent.parquet"), "--json", str(report)])
    with pytest.raises(SystemExit, match=r"threshold 2.0: must be in \(0, 1\], it is a share of runs"):
        main([str(train), str(train), "--threshold", "2", "--json", str(report)])
    assert not report.exists()
