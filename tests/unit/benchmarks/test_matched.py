"""Which strength of a rival holds PAEC's entropy: by hand, and as the recorded runs decide it."""

from __future__ import annotations

import json

import numpy as np
import yaml
from lab_records import record, runs, write

from benchmarks.lab import knob_search, matched, other_tasks, results
from benchmarks.lab.records import read


def test_the_nearest_entropy_is_taken_whatever_the_accuracy():
    levels = {"a.x=1": 0.06, "a.x=2": 0.25, "b.y=1": 0.16, "b.y=2": 0.13}
    found = {name: runs(name, seeds=(11,), correct=place) for place, name in enumerate(levels)}
    for name, level in levels.items():
        found[name].entropy[:, -1] = level
    paec = runs("paec", seeds=(1, 2))
    paec.entropy[:, -1] = 0.1, 0.2
    assert matched.taken(found, paec) == {"a": "a.x=1", "b": "b.y=1"}, "the mean over PAEC's seeds is 0.15"


def test_paec_is_read_at_the_rivals_last_step(tmp_path):
    write(tmp_path / "matched_entropy", "a.x=1-seed1", "a.x=2-seed1")
    assert matched.section(tmp_path / "matched_entropy", tmp_path / "countdown_four") == ""
    made = record([0, 25], 1)
    made["validation"]["step"].append(50)
    made["validation"]["val/reasoning_gym/countdown/entropy"] = [0.2, 0.12, 0.9]
    for counts in made["problems"]["validation"].values():
        counts.append([1, 1])
    (tmp_path / "countdown_four").mkdir()
    (tmp_path / "countdown_four" / "paec-seed1.json").write_text(json.dumps(made))
    file = tmp_path / "jobs.yaml"
    file.write_text("jobs: {a.x=1: [], a.x=2: []}")
    text = matched.section(tmp_path / "matched_entropy", tmp_path / "countdown_four", file)
    assert "nearest to PAEC's 0.120 (seeds 1)" in text
    assert "| `paec` | 0.200 | 0.120 | 0.500 | 1.000 | 1.50 |" in text
    assert "| **`a.x=1`** | 0.200 | 0.100 |" in text, "the first of equal ones"


def test_a_strength_is_taken_once_all_of_them_were_run(tmp_path):
    file = tmp_path / "matched_entropy.yaml"
    file.write_text("jobs: {a.x=1: [], a.x=2: [], b.y=1: [], b.y=2: []}")
    place = (tmp_path / "matched_entropy", tmp_path / "countdown_four", file)
    write(place[0], "a.x=1-seed1", "b.y=1-seed1")
    write(place[1], "paec-seed1")
    text = matched.section(*place)
    assert "| `a.x=1` |" in text and "Not run yet: `a.x=2`, `b.y=2`." in text
    write(place[0], "a.x=2-seed1")
    text = matched.section(*place)
    assert "| **`a.x=1`** |" in text and "| `b.y=1` |" in text and "Not run yet: `b.y=2`." in text


def test_the_longer_search_has_the_strengths_that_were_taken():
    found, paec = (read(results.RECORDS / name, other_tasks.SPLIT) for name in (matched.FILE, "countdown_four"))
    files = (matched.FILE, "countdown_four")
    jobs = {file: yaml.safe_load((knob_search.HERE / f"{file}.yaml").read_text())["jobs"] for file in files}
    assert found.keys() <= jobs[matched.FILE].keys()
    methods = knob_search.settings_of([*jobs[matched.FILE]])
    whole = {name: found[name] for names in methods.values() if all(n in found for n in names) for name in names}
    assert np.isin(next(iter(found.values())).steps, paec["paec"].steps).all()
    for name in matched.taken(whole, paec["paec"]).values():
        assert jobs["countdown_four"][name] == jobs[matched.FILE][name]
