"""The style of figures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from recipe.paec.compare.palette import COLOURS

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))

INK, FAINT = "#333333", "#DDDDDD"

PANEL = (2.5, 1.9)
"""Width and height of a panel, inches."""


def line_style(index: int) -> dict[str, object]:
    """Colour and dashes at a place of `palette.places`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def tidy(panel: Axes, percent: bool = True) -> None:
    """Faint grid instead of a frame; ticks at integer steps; with `percent`, no room below 0 and above 100."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=INK, labelsize=8, length=0)
    panel.grid(axis="y", color=FAINT, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if percent:
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, 0), min(high, 100))


def name_ends(panel: Axes, ends: Sequence[tuple[str, float, str]], weight: str = "bold") -> None:
    """Write names at the right of the lines that they belong to, moved apart where they would overlap.

    Args:
        panel: its vertical limits must be final.
        ends: (name, height of the line's end, colour) of each line.
        weight: font weight of the names.
    """
    low, high = panel.get_ylim()
    gap = (high - low) * 0.13
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    heights: list[float] = []
    for i in order:
        heights.append(max(ends[i][1], heights[-1] + gap) if heights else ends[i][1])
    for i in range(len(heights)):  # from the top down, to bring back those pushed above it
        heights[-1 - i] = min(heights[-1 - i], heights[-i] - gap if i else high)
    for i, height in zip(order, heights, strict=True):
        name, _, colour = ends[i]
        panel.annotate(
            name,
            (1.03, (height - low) / (high - low)),
            xycoords="axes fraction",
            va="center",
            fontsize=9,
            fontweight=weight,
            color=colour,
            annotation_clip=False,
        ).set_in_layout(False)
