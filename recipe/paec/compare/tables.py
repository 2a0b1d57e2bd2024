"""A comparison as Markdown and LaTeX."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.paec.compare.comparison import DAGGER, DASH, SIGNIFICANT
from recipe.paec.scoring.display import heading, markdown
from recipe.paec.scoring.scores import FORMAT

FORMATS = ("markdown", "latex", "json")


@dataclass(frozen=True)
class Style:
    """How a format writes the special parts of a cell."""

    bold: str
    interval: str
    plus_minus: str
    mark: str
    dash: str
    special: Mapping[str, str]
    """Pattern of special text -> its replacement."""

    def escape(self, text: str) -> str:
        """Text escaped so that it is displayed unchanged."""
        patterns = "|".join(f"({pattern})" for pattern in self.special)
        values = list(self.special.values())
        return re.sub(patterns, lambda match: values[match.lastindex - 1].replace("&0", match[0]), text)


MARKDOWN = Style(
    bold="**{}**",
    interval=" {}",
    plus_minus="\N{PLUS-MINUS SIGN} ",
    mark=DAGGER,
    dash=DASH,
    special={r"[\\`*]|<(?=\w)": r"\&0"},
)
LATEX = Style(
    bold=r"\textbf{{{}}}",
    interval=r" {{\scriptsize {}}}",
    plus_minus=r"$\pm$ ",
    mark=r"$^{\dagger}$",
    dash="--",
    special={
        r"\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        r"\^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        r"\|": r"\textbar{}",
        "\N{PLUS-MINUS SIGN}": r"$\pm$",
        DAGGER: r"$^{\dagger}$",
        r"[&%$#_{}]": r"\&0",
        r"[][]": "{&0}",  # after \\ a [ would begin its argument
    },
)


def _rows(result: Mapping[str, Any], style: Style) -> list[list[str]]:
    """The cells of the table, header first."""

    def shown(cell: Mapping[str, Any]) -> str:
        return f"{100 * cell['value']:.1f}"

    cells = [[*method["benchmarks"].values(), method["average"]] for method in result["methods"]]
    best = [max((shown(cell) for cell in column if cell), key=float, default="") for column in zip(*cells, strict=True)]
    rows = [["Method", *(style.escape(heading(name)) for name in result["samples"]), "Avg"]]
    for method, row in zip(result["methods"], cells, strict=True):
        seeds = f" ({len(method['runs'])} seeds)" if method["interval"] == "seeds" else ""
        texts = [style.escape(method["name"] + seeds)]
        for cell, highest in zip(row, best, strict=True):
            if cell is None:
                texts.append(style.dash)
                continue
            # Values that are displayed the same count as equal.
            text = style.bold.format(shown(cell)) if shown(cell) == highest and len(cells) > 1 else shown(cell)
            difference = cell["difference"]
            if difference and difference["p"] is not None and difference["p"] < SIGNIFICANT:
                text += style.mark
            if cell["low"] is not None:
                low, high = 100 * cell["low"], 100 * cell["high"]
                spread = f"{style.plus_minus}{(high - low) / 2:.1f}" if seeds else f"[{low:.1f}, {high:.1f}]"
                text += style.interval.format(spread)
            texts.append(text)
        rows.append(texts)
    return rows


def to_markdown(result: Mapping[str, Any]) -> str:
    """A comparison as a Markdown table with its caption below."""
    return f"{markdown(_rows(result, MARKDOWN))}\n{MARKDOWN.escape(result['caption'])}\n"


def to_latex(result: Mapping[str, Any]) -> str:
    """A comparison as a LaTeX table; needs the package booktabs."""
    head, *rows = (" & ".join(row) + r" \\" for row in _rows(result, LATEX))
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{LATEX.escape(result['caption'])}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(result['samples']) + 1)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def render(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """All comparisons in each of FORMATS."""
    return {
        "markdown": "\n".join(map(to_markdown, results)),
        "latex": "\n".join(map(to_latex, results)),
        "json": json.dumps({"format": FORMAT, "tables": results}, indent=1, ensure_ascii=False) + "\n",
    }
