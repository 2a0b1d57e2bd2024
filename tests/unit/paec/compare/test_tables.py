"""The table as Markdown and LaTeX."""

from __future__ import annotations

import re
from pathlib import Path

from comparison_cases import LOW, evaluation, run

from recipe.paec.compare.tables import LATEX, MARKDOWN
from recipe.paec.scoring.estimators import bootstrap_interval


def test_markdown(folders, capsys):
    code, out, error = run(capsys, *(folders / name for name in ("grpo", "paec-seed1", "paec-seed2", "paec-seed3")))
    assert (code, error) == (0, "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()[:4]]
    assert rows[0] == ["Method", "AIME24", "MATH500", "Avg"]
    interval = bootstrap_interval([c / 4 for c in LOW["aime24"]])
    assert rows[2][:2] == ["grpo", f"7.5 [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"]
    # Seeds that agree have an interval without width; on MATH500 it is 4.3027 * 6.25 / sqrt(3).
    assert rows[3] == ["paec (3 seeds)", "**55.0**† ± 0.0", "**75.0** ± 15.5", "**65.0**† ± 7.8"]
    assert out.splitlines()[5] == (
        "In percent: avg@n, n = 4 (AIME24, MATH500). ±: 95 % t interval over training seeds. [low, high]: 95 % "
        "bootstrap over problems, one seed. Bold: the best. †: differs from grpo, p < 0.05, paired bootstrap "
        "over problems, uncorrected for the number of comparisons. One seed of grpo: the spread between trainings is "
        "not in its interval, nor in any test of it."
    )
    assert out in (Path(__file__).parents[4] / "docs" / "comparing.md").read_text(encoding="utf-8")


def test_equal_as_shown_is_equally_best(tmp_path, capsys):
    for name in ("a", "b"):
        evaluation(tmp_path / name, LOW)
    _, out, _ = run(capsys, tmp_path / "a", tmp_path / "b")
    assert out.count("**62.5**") == 2
    _, out, _ = run(capsys, tmp_path / "a")
    assert "**" not in out and "Bold" not in out


NASTY = r"100%_&$#{~}^\<a>[b]|c*`ρ"


def test_latex_is_balanced_and_escaped(folders, capsys):
    _, out, _ = run(capsys, f"{NASTY}={folders / 'grpo'}", f"x={folders / 'paec-seed1'}", f"x={folders / 'paec-seed2'}",
                    "--format", "latex")  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == r"\begin{table}[t]" and lines[-1] == r"\end{table}"
    assert re.findall(r"\\(begin|end)\{(\w+)\}", out) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    plain = re.sub(r"\\[%&$#_{}]", "", out)  # without escaped characters, what is left means something to LaTeX
    assert not re.search(r"[%#_~]|\^(?!\{)", plain)
    assert plain.count("$") % 2 == 0
    depth = 0
    for character in re.sub(r"\\[{}]", "", out):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert len(body) == 2 and all(line.endswith(r" \\") for line in body)
    assert all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in [*body, lines[5]])
    assert lines[5] == r"Method & AIME24 & MATH500 & Avg \\"
    assert body[0].startswith(
        r"100\%\_\&\$\#\{\textasciitilde{}\}\textasciicircum{}\textbackslash{}\textless{}a\textgreater{}{[}b{]}"
        r"\textbar{}c*`ρ & 7.5 {\scriptsize ["
    )
    assert r"x (2 seeds) & \textbf{55.0}$^{\dagger}$ {\scriptsize $\pm$ 0.0} & " in body[1]


def test_a_row_may_begin_with_a_bracket():
    assert LATEX.escape("[a]") == "{[}a{]}"


def test_markdown_names():
    assert MARKDOWN.escape(r"a*b`c\d<e> < 3 [f]") == r"a\*b\`c\\d\<e> < 3 [f]"
