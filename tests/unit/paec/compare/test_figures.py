"""The style of figures: lines that can be told apart, and panels in percent."""

from __future__ import annotations

from matplotlib.figure import Figure

from recipe.paec.compare.figures import COLOURS, DASHES, line_style, tidy


def test_lines_differ_in_colour_then_in_dashes():
    styles = [tuple(line_style(index).values()) for index in range(len(COLOURS) * len(DASHES))]
    assert len(set(styles)) == len(styles) == 18
    assert [style[1] for style in styles[:6]] == ["-"] * 6 and styles[6] == (COLOURS[0], DASHES[1])
    assert line_style(18) == line_style(0)


def test_a_panel_ends_at_0_and_100_and_keeps_narrower_limits():
    for given, expected in (((-5, 120), (0, 100)), ((20, 60), (20, 60))):
        panel = Figure().add_subplot()
        panel.plot([0, 1, 2], [30, 40, 50])
        panel.set_xlim(0, 2)
        panel.set_ylim(*given)
        tidy(panel)
        assert panel.get_ylim() == expected
        assert not panel.spines["top"].get_visible() and not panel.spines["right"].get_visible()
        assert all(tick == int(tick) for tick in panel.get_xticks())
