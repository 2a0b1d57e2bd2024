"""The row contract: good rows pass unchanged, each bad one is named by file, row and field."""

import copy

import numpy as np
import pandas as pd
import pytest

from data_prep.contract import ContractError, validate_rows, write_parquet


def row(index=0):
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "1+1?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"split": "train", "index": index},
    }


def broken(path, value):
    """Three rows of which row 1 has `value` at `path`, or lacks it where value is KeyError."""
    rows = [row(i) for i in range(3)]
    node = rows[1]
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return rows


def test_round_trip(tmp_path):
    path = tmp_path / "train.parquet"
    rows = [row(0), row(1)]
    rows[1]["prompt"] = rows[1]["prompt"][1:]
    rows[1]["extra_info"]["level"] = 5  # unified by pyarrow: None in row 0
    write_parquet(rows, path)
    frame = validate_rows(path)
    assert list(frame.data_source) == ["math_dapo"] * 2
    assert isinstance(frame.prompt[0], np.ndarray)
    assert list(frame.prompt[1]) == [{"role": "user", "content": "1+1?"}]
    assert frame.reward_model[0] == {"style": "rule", "ground_truth": "2"}
    assert frame.extra_info[0] == {"split": "train", "index": 0, "level": None}
    assert [p.name for p in tmp_path.iterdir()] == ["train.parquet"]


BREACHES = [
    (("data_source",), "", "data_source: empty"),
    (("data_source",), KeyError, "data_source: missing"),
    (("prompt",), None, "prompt: missing"),
    (("prompt",), [], "prompt: empty"),
    (("prompt", 0, "role"), "tool", "prompt[0].role: unknown role 'tool'"),
    (("prompt", 1, "role"), "assistant", "prompt[1].role: last turn is of role 'assistant'"),
    (("prompt", 1, "content"), None, "prompt[1].content: missing"),
    (("prompt", 1), None, "prompt[1]: missing"),
    (("ability",), None, "ability: missing"),
    (("reward_model",), None, "reward_model: missing"),
    (("reward_model", "style"), "model", "reward_model.style: 'model' is not supported"),
    (("reward_model", "ground_truth"), None, "reward_model.ground_truth: missing"),
    (("reward_model", "ground_truth"), KeyError, "reward_model.ground_truth: missing"),
    (("reward_model", "ground_truth"), "", "reward_model.ground_truth: empty"),
    (("extra_info", "split"), None, "extra_info.split: missing"),
    (("extra_info", "index"), None, "extra_info.index: missing"),
]


@pytest.mark.parametrize(("path", "value", "message"), BREACHES)
def test_breach_is_named_after_reading(tmp_path, path, value, message):
    file = tmp_path / "train.parquet"
    pd.DataFrame(broken(path, value)).to_parquet(file)
    with pytest.raises(ContractError) as caught:
        validate_rows(file)
    assert str(caught.value).startswith(f"{file}, row 1, field {message}")
    assert "; " in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data_source",), 3, "data_source: int instead of a string"),
        (("prompt",), "1+1?", "prompt: str instead of a list"),
        (("prompt", 1), "1+1?", "prompt[1]: str instead of a mapping"),
        (("extra_info", "index"), True, "extra_info.index: bool instead of an int"),
        (("extra_info", "index"), 1.0, "extra_info.index: float instead of an int"),
        (("extra_info",), {}, "extra_info.split: missing"),
    ],
)
def test_write_refuses_and_leaves_nothing(tmp_path, path, value, message):
    with pytest.raises(ContractError) as caught:
        write_parquet(broken(path, value), tmp_path / "train.parquet")
    assert f"train.parquet, row 1, field {message}; " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_message_is_one_sentence_with_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [copy.deepcopy(row(i)) for i in range(20)]
    rows[17]["reward_model"]["ground_truth"] = None
    pd.DataFrame(rows).to_parquet("train.parquet")
    with pytest.raises(ContractError) as caught:
        validate_rows("train.parquet")
    assert str(caught.value) == (
        "train.parquet, row 17, field reward_model.ground_truth: missing; "
        'every row needs {"style": "rule", "ground_truth": ...}'
    )


def test_files_that_hold_no_rows(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.parquet: does not exist;"):
        validate_rows(tmp_path / "absent.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("not parquet")
    with pytest.raises(ContractError, match="text.parquet: is not a readable parquet file"):
        validate_rows(text)
    empty = tmp_path / "empty.parquet"
    pd.DataFrame([row()]).iloc[:0].to_parquet(empty)
    with pytest.raises(ContractError, match="empty.parquet: has no rows"):
        validate_rows(empty)
    narrow = tmp_path / "narrow.parquet"
    pd.DataFrame([row()]).drop(columns="ability").to_parquet(narrow)
    with pytest.raises(ContractError, match="field ability: is missing"):
        validate_rows(narrow)
