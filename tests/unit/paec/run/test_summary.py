"""The lines that a run prints."""

from __future__ import annotations

from recipe.paec.run.summary import closing_lines, drawings, entropy_curves, step_line, tail_mean


def test_a_gap_at_the_end_is_not_averaged_away():
    assert tail_mean([{"a": 1.0}, {"a": None}], "a") is None
    assert tail_mean([{"a": float(i)} for i in range(20)], "a") == 18.5
    assert tail_mean([], "a") is None


def test_lines_for_people():
    first = {"step": 0, "val/task/avg@8": 0.25}
    middle = {
        "step": 1,
        "actor/entropy": 0.5,
        "actor/paec/selected_entropy": 0.4,
        "actor/paec/anchor": 0.3,
        "actor/paec/floor": 0.24,
        "actor/paec/penalty_active": 1.0,
    }
    last = {**middle, "step": 2, "actor/entropy": 0.45, "val/task/avg@8": 0.5}
    assert step_line(middle, 2).startswith("step    1/2  entropy 0.5000  Hbar 0.4000  anchor 0.3000  floor 0.2400")
    text = "\n".join(closing_lines([first, middle, last], {"metrics": "there"}, {}))
    assert "task/avg@8: 0.250 (step 0) -> 0.500 (step 2)" in text
    assert "0.5000 (step 1) -> 0.4500" in text and "was active in 2 of 2 steps" in text and "metrics: there" in text


def test_a_metric_that_was_not_finite_ends_no_run():
    """The log writes NaN as null: at the first step, at the last, and in the only one."""
    good = {"actor/entropy": 0.5, "actor/paec/selected_entropy": 0.4, "actor/paec/anchor": 0.3, "actor/paec/floor": 0.2}
    null = dict.fromkeys(good)
    one, two = {"step": 1, **good}, {"step": 2, **good}
    assert closing_lines([one, {"step": 2, **null}], {}, {}) == [
        "  token entropy (nats): 0.5000 (step 1) -> not finite",
        "  Hbar, entropy at selected positions: 0.4000 -> not finite",
        "  anchor not finite, floor not finite; the penalty was active in 0 of 2 steps",
    ]
    text = closing_lines([{"step": 1, **null}, two], {}, {})
    assert text[0] == "  token entropy (nats): not finite (step 1) -> 0.5000"
    assert text[1:3] == [
        "  Hbar, entropy at selected positions: not finite -> 0.4000",
        "  anchor 0.3000, floor 0.2000; the penalty was active in 0 of 2 steps",
    ]
    (text,) = closing_lines([{"step": 1, "actor/entropy": None}], {}, {})
    assert text == "  token entropy (nats): not finite (step 1) -> not finite"
    text = closing_lines([{"step": 1, "actor/entropy": 0.5}, two], {}, {})
    assert text[1] == "  Hbar, entropy at selected positions: not measured -> 0.4000"


def records(steps: int) -> list[dict]:
    """Entropy falls from 0.5 by 1/64 a step, Hbar from 0.625 by 1/32; the floor is 0.5; a validation every 2 steps."""
    found = [{"step": 0, "val/task/avg@4": 0.25}]
    for step in range(1, steps + 1):
        record = {"step": step, "actor/entropy": 0.5 - (step - 1) / 64, "actor/paec/floor": 0.5, "actor/paec/anchor": 1}
        record["actor/paec/selected_entropy"] = 0.625 - (step - 1) / 32
        found.append(record | ({"val/task/avg@4": 0.25 + step / 64} if step % 2 == 0 else {}))
    return found


def test_the_entropies_are_drawn_against_the_floor():
    floor, entropy, hbar = entropy_curves(records(5))
    assert (floor.label, floor.values) == ("floor", [0.5] * 5)
    assert (entropy.label, entropy.values) == ("token entropy", [0.5, 0.484375, 0.46875, 0.453125, 0.4375])
    assert (hbar.label, hbar.values[0], hbar.values[-1]) == ("Hbar", 0.625, 0.5)
    text = closing_lines(records(5), {"metrics": "there"}, {})
    at = text.index("    * token entropy (nats)")
    assert text[at + 1] == "    0.5000 |*" and text[at + 10] == "    0.4375 |    *"
    at = text.index("    - floor, o Hbar (nats)")
    assert text[at + 1] == "    0.6250 |o"
    assert text[at + 10 : at + 13] == ["    0.5000 |----o", "           +-----", "            1 step 5"]
    assert text[-1] == "  metrics: there"
    assert "".join(text).isascii()


def test_a_normalised_entropy_has_no_unit():
    config = {"method": {"entropy": "normalized"}}
    lines = [line for line in drawings(records(45), config) if line[:2] in ("* ", "- ")]
    assert lines == ["* token entropy (nats, means of 3 steps)", "- floor, o Hbar (means of 3 steps)"]
    assert "    - floor, o Hbar" in closing_lines(records(5), {}, config)


def test_long_runs_are_drawn_as_moving_averages():
    entropies = [{key: value for key, value in r.items() if "/paec/" not in key} for r in records(45)]
    lines = drawings(entropies, {})
    assert lines[0] == "* token entropy (nats, means of 3 steps)"
    # 45 steps of 1/64 from 0.5 down: the first and the last are means of two.
    assert lines[1].startswith(f"{0.5 - 1 / 128:>7.4f} |*") and lines[10].startswith(f"{0.5 - 87 / 128:.4f} |")


def test_without_a_method_there_is_one_curve():
    plain = [{key: value for key, value in r.items() if "/paec/" not in key} for r in records(3)]
    assert [curve.label for curve in entropy_curves(plain)] == ["token entropy"]
    assert [curve.steps for curve in entropy_curves([])] == [[]]
    assert not any("|" in line for line in closing_lines(plain[:2], {}, {})), "one step is no curve"


def test_beside_a_recorded_run():
    grpo = [{"step": 0, "accuracy": 0.25}, *({"step": s, "entropy": 0.5 - s / 16} for s in (1, 2, 3, 9))]
    grpo[2]["accuracy"] = 0.5
    text = closing_lines(records(5), {}, {}, grpo)
    assert "  token entropy at step 3: 0.4688 here, 0.3125 with GRPO (recorded)" in text
    assert "  accuracy at step 2: 0.281 here, 0.500 with GRPO (recorded)" in text
    longer = [{"step": s, "entropy": 0.25 if s < 10 else s / 16} for s in range(1, 13)]
    text = closing_lines(records(11), {}, {}, longer)
    assert "  token entropy in steps 10 to 11: 0.3516 here, 0.6562 with GRPO (recorded)" in text, "a tenth of 11 steps"
    (recorded, *_) = entropy_curves(records(5), grpo)
    assert (recorded.label, recorded.steps) == ("GRPO's token entropy, recorded", [1, 2, 3])
    assert "    . GRPO's token entropy, recorded, * token entropy (nats)" in closing_lines(records(5), {}, {}, grpo)
    assert not any("GRPO" in line for line in closing_lines(records(5), {}, {}))
