"""The style of figures."""

from __future__ import annotations

from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, distinguishable with every kind of colour vision; after the sixth run, the next dash pattern."""

DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))

INK, FAINT = "#333333", "#DDDDDD"

PANEL = (2.5, 1.9)
"""Width and height of a panel, inches."""


def line_style(index: int) -> dict[str, object]:
    """Colour and dashes of the index-th line of a picture."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def tidy(panel: Axes) -> None:
    """Faint grid instead of a frame; ticks at integer steps."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=INK, labelsize=8, length=0)
    panel.grid(axis="y", color=FAINT, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.xaxis.get_major_locator().set_params(integer=True)
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, 0), min(high, 100))
