"""Instructions are added, and those of others stripped."""

from data_prep.templates import FOREIGN_PREFIXES, FOREIGN_SUFFIXES, TEMPLATES, render, strip_foreign
from recipe.grading.extract import extract

DAPO_PROMPT = f"{FOREIGN_PREFIXES[0]}\n\n{{}}\n\n{FOREIGN_SUFFIXES[0]}"


def test_templates():
    assert render(TEMPLATES["boxed"], "{problem} \\frac{1}{2}").startswith("{problem} \\frac{1}{2}\n\nPlease reason")
    assert render(TEMPLATES["none"], "1+1?") == "1+1?"
    assert all(template.count("{problem}") == 1 for template in TEMPLATES.values())
    assert extract("So it is\nAnswer: 3/4") == "3/4"  # what answer_line asks for
    for text in ("1+1?", "求和。", "Put it in \\boxed{}. Then?"):
        assert strip_foreign(text) == text
        assert strip_foreign(DAPO_PROMPT.format(text)) == text
        for suffix in FOREIGN_SUFFIXES:
            assert strip_foreign(f"{text} {suffix}\n") == text
            assert strip_foreign(f"{text}\n{suffix}") == text
    assert strip_foreign(render(TEMPLATES["boxed"], "1+1?")) == "1+1?"  # an own file may be prepared again
