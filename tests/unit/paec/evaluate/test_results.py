"""The files of an evaluation are whole or absent."""

from __future__ import annotations

import pytest

from recipe.paec.evaluate import results


def test_samples_are_written_whole(tmp_path):
    results.write_samples(tmp_path / "s.jsonl", [{"response": "é\u2028"}, {"response": "b"}])
    assert (tmp_path / "s.jsonl").read_bytes() == b'{"response": "\\u00e9\\u2028"}\n{"response": "b"}\n'
    with pytest.raises(TypeError):
        results.write_samples(tmp_path / "s.jsonl", [{"response": "c"}, {"response": object()}])
    assert (tmp_path / "s.jsonl").read_text().count("\n") == 2 and len(list(tmp_path.iterdir())) == 1
