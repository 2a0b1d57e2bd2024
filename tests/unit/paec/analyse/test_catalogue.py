"""The table of analyses."""

from recipe.paec.analyse.catalogue import ANALYSES


def test_every_analysis_says_what_it_is():
    for name, analysis in ANALYSES.items():
        assert analysis.title[0].isupper() and analysis.note.endswith("."), name
