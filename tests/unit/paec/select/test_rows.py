"""The selected file: its rows in turn, what is beside it, and what the trainer's own checks say."""

from __future__ import annotations

import json

import pytest

from data_prep.contract import validate_rows
from recipe.paec.common.errors import UserError
from recipe.paec.common.seeds import rollout_seed
from recipe.paec.doctor import inputs
from recipe.paec.run import prompt_record
from recipe.paec.select.command import main
from recipe.paec.select.ranking import prompts_of, ranked, read_rows
from recipe.paec.select.rows import repeated, write


def entries(*indices: int) -> list[dict]:
    fixed = {"historical_deviation": 0.5, "accuracy": 0.4, "difficulty": "medium", "epochs": {}}
    return [{"rank": rank, "index": index, **fixed} for rank, index in enumerate(indices, 1)]


def test_rows_in_turn():
    rows = [{"data_source": "a", "extra_info": {"split": "train", "index": i, "id": f"a/{i}"}} for i in (7, 2)]
    found = repeated(rows, entries(7, 2), 5)
    assert [one["extra_info"]["selected_index"] for one in found] == [7, 2, 7, 2, 7]
    assert [one["extra_info"]["index"] for one in found] == [0, 1, 2, 3, 4]
    assert found[3]["extra_info"] == {
        **{"split": "train", "index": 3, "id": "a/2", "selected_index": 2, "rank": 2},
        **{"historical_deviation": 0.5, "accuracy": 0.4, "difficulty": "medium"},
    }
    assert rows[0]["extra_info"]["index"] == 7, "the rows that were given are not changed"


def test_copies_in_a_batch_get_different_responses():
    """The index is part of a response's seed: 128 copies with 8 responses each have 1,024 seeds, not 8."""
    rows = [{"data_source": "gsm8k", "extra_info": {"index": 7}}]
    seeds = {
        rollout_seed(1, False, 5, one["data_source"], one["extra_info"]["index"], sample)
        for one in repeated(rows, entries(7), 128)
        for sample in range(8)
    }
    assert len(seeds) == 1024


def test_fewer_rows_than_prompts(tmp_path):
    with pytest.raises(UserError, match="--rows 1: is less than the 2 chosen prompts: raise it, or choose fewer"):
        write(tmp_path, {}, [], [], [1, 2], 1, {}, False)


def test_the_trainer_takes_the_file(run_of, tmp_path, tiny_config, tiny_files):
    """A row of the quick start, repeated to its batch: the doctor's checks of data, model and prompts find nothing."""
    run = run_of([[0]])
    source = tiny_files / "data" / "train.parquet"
    keys = [(r["data_source"], r["extra_info"]["index"]) for r in read_rows([str(source)])[str(source)]]
    (run / prompt_record.PROMPTS_FILE).unlink()
    for epoch in (0, 1):
        prompt_record.append(run, epoch + 1, epoch, {key: (4 * epoch * (key == keys[5]), 8) for key in keys})
    text = (run / "config.yaml").read_text().replace(str(tmp_path / "data" / "train.parquet"), str(source))
    (run / "config.yaml").write_text(text.replace("train_batch_size: 4", "train_batch_size: 16"))
    assert main([str(run), "--output", str(tmp_path / "one")]) == 0
    file = tmp_path / "one" / "train.parquet"
    (original,) = [r for r in read_rows([str(source)])[str(source)] if r["extra_info"]["index"] == keys[5][1]]
    found = read_rows([str(file)])[str(file)]
    assert len(found) == 16 and {r["prompt"][0]["content"] for r in found} == {original["prompt"][0]["content"]}
    assert all(r["reward_model"] == original["reward_model"] for r in found)
    config = tiny_config(f"data.train_files=[{file}]")
    assert inputs.check_inputs(config) == []


def test_verls_own_data_set_loads_it(run_of, tmp_path, compose, tiny_files):
    """What the training process does with the file, without Ray: rows in batches, each with its own index."""
    from torch.utils.data import DataLoader
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.dataset.rl_dataset import collate_fn

    from recipe.paec.common.prompts import load_tokenizer

    run = run_of([[0, 4], [4, 4], [2, 3]])
    assert main([str(run), "--rank", "1,2", "--rows", "6", "--output", str(tmp_path / "one.parquet")]) == 0
    tokenizer = load_tokenizer(tiny_files / "model", None, "model", "")
    config = compose("data.filter_overlong_prompts=false")
    data = create_rl_dataset([str(tmp_path / "one.parquet")], config.data, tokenizer, None)
    (batch,) = DataLoader(data, batch_size=6, drop_last=True, collate_fn=collate_fn)
    assert [int(index) for index in batch["index"]] == [0, 1, 2, 3, 4, 5]
    assert [turns[0]["content"] for turns in batch["raw_prompt"]] == ["What is 0 + 1?", "What is 2 + 1?"] * 3


def test_what_is_beside_it(run_of, tmp_path):
    run = run_of([[0, 4], [4, 4], [2, None]])
    file = str(tmp_path / "data" / "train.parquet")
    ranking, few = ranked(prompts_of(read_rows([file]), prompt_record.read(run)[0]), 2)
    path, picked = write(tmp_path / "out", read_rows([file]), ranking, few, [2], 3, {"run": "r"}, False)
    assert path == tmp_path / "out" / "train.parquet" and [one["index"] for one in picked] == [1]
    manifest = json.loads((tmp_path / "out" / "train.manifest.json").read_text())
    assert manifest["counts"] == {"ranked": 2, "too_few_epochs": 1, "chosen": 1, "written": 3}
    assert manifest["set"] == "historical_deviation" and manifest["chosen"] == picked
    assert manifest["source"]["run"] == "r" and manifest["source"]["files"][0]["path"] == file
    report = json.loads((tmp_path / "out" / "train.report.json").read_text())
    assert [(one["rank"], one["index"], one["difficulty"]) for one in report["ranking"]] == [
        (1, 0, "medium"),
        (2, 1, "easy"),
        (None, 2, "medium"),
    ]
    assert len(validate_rows(path)) == 3
