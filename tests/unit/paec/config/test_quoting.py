"""Values with special characters keep what they are: a list, a dict, a text."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from recipe.paec.config.command_line import explain
from recipe.paec.config.quoting import quoted

CASES = [
    ("[~/x.parquet]", '["~/x.parquet"]', ["~/x.parquet"]),
    ("[a.parquet,~/b.parquet]", '[a.parquet,"~/b.parquet"]', ["a.parquet", "~/b.parquet"]),
    ("['a,b',~/c]", """['a,b',"~/c"]""", ["a,b", "~/c"]),
    ("[/it's/a,/it's/b]", '["/it\'s/a","/it\'s/b"]', ["/it's/a", "/it's/b"]),
    ("[~/set[v2]/x.parquet]", '["~/set[v2]/x.parquet"]', ["~/set[v2]/x.parquet"]),
    ("[[~/a],b]", '[["~/a"],b]', [["~/a"], "b"]),
    ('["~/x]', '["~/x"]', ["~/x"]),
    ("[~/a,,3]", '["~/a","",3]', ["~/a", "", 3]),
    ("{path: ~/m, length: 3}", '{path: "~/m",length: 3}', {"path": "~/m", "length": 3}),
    ("/tmp/ü", '"/tmp/ü"', "/tmp/ü"),
    ("/tmp/it's", '"/tmp/it\'s"', "/tmp/it's"),
    ("~/a\\", '"~/a\\\\"', "~/a\\"),
    ('a "b" c', '"a \\"b\\" c"', 'a "b" c'),
    ("~/x,y", '"~/x,y"', "~/x,y"),
]
"""As given, as Hydra takes it, and the value."""


@pytest.mark.parametrize("given, wanted, value", CASES)
def test_the_remedy_keeps_the_type(given, wanted, value):
    parser = OverridesParser.create()
    assert quoted(given) == wanted
    assert parser.parse_override(f"key={wanted}").value() == value
    with pytest.raises(OverrideParseException) as raised:
        parser.parse_overrides([f"data.train_files={given}"])
    said = explain(raised.value, [], "train")
    (argument,) = shlex.split(said.rpartition("special characters: ")[2])
    assert parser.parse_override(argument).value() == value


@pytest.mark.parametrize("value", ["a.parquet", "[a,b]", "3", "null", '"~/x"', "{a: 1}", "[]"])
def test_what_needs_no_quotes_stays(value):
    assert quoted(value) == value
