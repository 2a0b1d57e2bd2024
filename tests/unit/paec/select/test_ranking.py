"""Historical deviation by hand, ranks, and which row a count belongs to."""

from __future__ import annotations

from fractions import Fraction

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.select.ranking import Prompt, chosen, entry, historical_deviation, prompts_of, ranked, read_rows


def prompt(*right: int, number: int = 0) -> Prompt:
    """A prompt with 4 responses in each epoch."""
    return Prompt("train.parquet", number, ("gsm8k", number), {epoch: (of, 4) for epoch, of in enumerate(right)})


def row(index: int, text: str, truth: str = "1", source: str = "gsm8k") -> dict:
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": text}],
        "reward_model": {"ground_truth": truth},
        "extra_info": {"index": index},
    }


@pytest.mark.parametrize(
    ("right", "expected"), [((0, 2, 4, 3), 0.369755), ((3, 3, 3), 0.0), ((0, 4), 0.5), ((0, 0, 4), 2**0.5 / 3)]
)
def test_deviations_by_hand(right, expected):
    assert historical_deviation(prompt(*right).accuracies) == pytest.approx(expected, abs=1e-6)


def test_every_epoch_counts_the_same():
    """Accuracy is that of all responses, the deviation that of the epochs, whatever their number of responses."""
    found = Prompt("f", 0, ("a", 0), {0: (1, 2), 3: (8, 8)})
    assert found.accuracies == [Fraction(1, 2), Fraction(1)]
    assert historical_deviation(found.accuracies) == 0.25 and found.accuracy == 0.9


def test_ranks_and_ties():
    """Equal histories in another order are ties, and stay in the order of the file; 0.1 + 0.2 is no trap."""
    tied = [
        Prompt("f", i, ("a", i), {e: (of, 10) for e, of in enumerate(h)}) for i, h in enumerate([(1, 2, 3), (3, 1, 2)])
    ]
    ranking, few = ranked([prompt(4, 4, number=5), *tied, prompt(0, 4, number=7), prompt(2, number=9)], least=2)
    assert [p.row for p in ranking] == [7, 0, 1, 5]
    assert [p.row for p in few] == [9]


def test_epochs_that_a_prompt_missed():
    ranking, few = ranked([prompt(0, 4), prompt(0, 4, 4), Prompt("f", 8, ("a", 8), {})], least=3)
    assert [len(p.epochs) for p in ranking] == [3] and [len(p.epochs) for p in few] == [2, 0]
    assert chosen(ranking, few, [1], 3) == ranking
    epochs = r"\(prompts by epochs: 1 in 0, 1 in 2, 1 in 3\)"
    with pytest.raises(UserError, match=f"rank 2: only 1 prompts were seen in 3 epochs or more {epochs}: train"):
        chosen(ranking, few, [1, 2], 3)


def test_what_is_written_about_a_prompt():
    assert entry(prompt(0, 4, number=3), 2) == {
        **{"rank": 2, "historical_deviation": 0.5, "accuracy": 0.5, "difficulty": "medium"},
        **{"epochs": {"0": [0, 4], "1": [4, 4]}, "data_source": "gsm8k", "index": 3, "file": "train.parquet", "row": 3},
    }
    never = entry(Prompt("f", 1, ("a", 1), {}), None)
    assert [never[name] for name in ("rank", "historical_deviation", "accuracy", "difficulty")] == [None] * 4


def test_copies_of_a_row_are_one_prompt():
    """As in the file of a one-example run: the counts of all copies add up, under the first."""
    rows = {"a": [row(0, "x"), row(1, "y"), row(2, "x")], "b": [row(0, "x", source="math")]}
    counts = {("gsm8k", 0): {0: (1, 4)}, ("gsm8k", 2): {0: (4, 4), 1: (2, 4)}}
    found = prompts_of(rows, counts)
    assert [(p.file, p.row, p.key) for p in found] == [
        ("a", 0, ("gsm8k", 0)),
        ("a", 1, ("gsm8k", 1)),
        ("b", 0, ("math", 0)),
    ]
    assert [dict(p.epochs) for p in found] == [{0: (5, 8), 1: (2, 4)}, {}, {}]


def test_rows_that_cannot_be_told_apart():
    with pytest.raises(UserError, match="b, row 0, field extra_info.index: 0 is also that of another prompt of gsm8k"):
        prompts_of({"a": [row(0, "x")], "b": [row(0, "x", truth="2")]}, {})


def test_a_count_without_a_row():
    with pytest.raises(UserError, match="trained on gsm8k, index 7, which is not in a: restore the training file"):
        prompts_of({"a": [row(0, "x")]}, {("gsm8k", 7): {0: (1, 4)}})


def test_training_files(tmp_path):
    with pytest.raises(
        UserError, match=r"gone.parquet, of the run's data.train_files: does not exist here: restore it"
    ):
        read_rows([str(tmp_path / "gone.parquet")])
    (tmp_path / "bad.parquet").write_text("text")
    with pytest.raises(UserError, match="data.train_files of the run: .*bad.parquet: is not a readable parquet file"):
        read_rows([str(tmp_path / "bad.parquet")])
