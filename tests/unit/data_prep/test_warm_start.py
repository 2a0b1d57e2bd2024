"""The warm start on small data sets."""

import hashlib
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm_starts import manifest

from data_prep import progress, tiny, tiny_model, warm_start
from data_prep.contract import validate_rows
from data_prep.files import WARM_START_FILE
from data_prep.tasks import TASKS


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_loss_falls(made):
    outcome = manifest(made)["outcome"]
    assert outcome["first_loss"] == pytest.approx(math.log(259), abs=0.3)  # an untrained model is about uniform
    assert outcome["loss"] < outcome["first_loss"] - 1.0  # mean over the 30 steps
    assert 0.0 <= outcome["accuracy"] <= 0.1
    assert 0.5 < outcome["entropy"] < math.log(259)


def test_a_log_gets_plain_lines(made, tmp_path, few_samples, monkeypatch, capfd):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    tiny_model.build(tmp_path / "untrained")
    capfd.readouterr()
    folders = [f"--{name}={folder}" for name, folder in (("model", tmp_path / "untrained"), ("data", made / "data"))]
    monkeypatch.setattr("sys.argv", ["warm_start", *folders, f"--output={tmp_path / 'model'}", "--steps=3"])
    try:
        warm_start.main()
    finally:
        warm_start.logging.enable_progress_bar()
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("warm start: ")]
    assert "\r" not in out + err
    assert [line.split()[3] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("loss=5." in line for line in lines), lines


def test_output_loads_and_has_learned_the_alphabet(made):
    tokens = AutoTokenizer.from_pretrained(made / "model")
    model = AutoModelForCausalLM.from_pretrained(made / "model")
    ids = tokens.apply_chat_template(
        [{"role": "user", "content": "7 5 1 > 2"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    with torch.no_grad():
        probs = model(ids).logits[0, -1].softmax(-1)
    assert probs[list(b"0123456789")].sum() > 0.2  # of the first response token; 0.04 before training
    assert model.generation_config.eos_token_id == tokens.eos_token_id == 258


def test_batches_carry_loss_on_the_response_only():
    tokens = tiny_model.tokenizer()
    problem = {"numbers": [7, 5, 1], "target": 2, "traces": ["7-5=2,1*2=2;1*(7-5)"]}
    examples = warm_start._tokenise(tokens, TASKS["countdown"], [problem])
    assert len(examples[0].prompts) == 6
    inputs, targets = next(warm_start._batches(examples, 4, tokens.pad_token_id, warm_start.random.Random(0)))
    for line, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        kept = [t for t in target if t != warm_start.IGNORE]
        assert bytes(kept[:-1]).decode() == problem["traces"][0] and kept[-1] == 258
        first = target.index(kept[0])
        assert tokens.decode(line[: first + 1]).endswith("> 2<|im_end|>\n<|im_start|>assistant\n")
        assert line[first + 1 : first + len(kept)] == kept[:-1]  # the token that is predicted comes next


def test_loss_ignores_padding():
    """A batch of one length and the same rows among longer ones give the same hidden states: no mask is needed."""
    torch.manual_seed(0)
    tokens = tiny_model.tokenizer()
    model = warm_start.AutoModelForCausalLM.from_config(tiny_model.config(tokens))
    ids = torch.tensor([list(b"7 5 1 > 2")])
    padded = torch.nn.functional.pad(ids, (0, 7), value=tokens.pad_token_id)
    with torch.no_grad():
        alone, among = model.model(ids).last_hidden_state, model.model(padded).last_hidden_state[:, : ids.shape[1]]
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=1e-5)


def digest(value: str | list) -> str:
    return hashlib.sha256((value if isinstance(value, str) else json.dumps(value)).encode()).hexdigest()[:16]


def test_countdown_is_what_it_always_was(made):
    """Data, tokenizer and batches of a seed; the weights depend on the kind of CPU too."""
    rows = [
        [row["prompt"][0]["content"], row["reward_model"]["ground_truth"]]
        for name in ("train", "validation")
        for row in validate_rows(made / "data" / f"{name}.parquet").to_dict("records")
    ]
    assert (len(rows), digest(rows)) == (70, "1405e61b56141b56")
    assert digest((made / "data" / "warm_start.jsonl").read_text()) == "f976107279066601"
    assert digest((made / "model" / "tokenizer.json").read_text()) == "c81f694cd45ce8b8"
    tokens, task = tiny_model.tokenizer(), TASKS["countdown"]
    examples = warm_start._tokenise(tokens, task, warm_start.read_problems(made / "data", "train"))
    batches = warm_start._batches(examples, task.batch_size, tokens.pad_token_id, warm_start.random.Random(0))
    drawn = [[inputs.tolist(), targets.tolist()] for inputs, targets in (next(batches) for _ in range(3))]
    assert digest(drawn) == "73d77c106da04179"
    assert (task.steps, task.batch_size, task.peak_lr, task.max_response) == (1800, 32, 2e-3, 28)


def test_learning_rate():
    assert warm_start.learning_rate(0, 576, 2e-3) == pytest.approx(2e-3 / 50)
    assert warm_start.learning_rate(49, 576, 2e-3) == pytest.approx(2e-3)
    assert warm_start.learning_rate(313, 576, 2e-3) == pytest.approx(1e-3)
    assert warm_start.learning_rate(575, 576, 2e-3) < 1e-7


def test_a_file_in_the_model_folder_keeps_it_from_being_made_anew(tmp_path):
    options = {"options": {"version": 0, "steps": 1}, "sha256": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(options))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("made")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="notes.txt was not created by this command.*move it away"):
        tiny.make(tmp_path, steps=1)
    assert {p.name: p.read_text() for p in (tmp_path / "model").iterdir()} == {
        "config.json": "made",
        "notes.txt": "mine",
    }
    (tmp_path / "model" / "notes.txt").unlink()
    (tmp_path / "data").symlink_to(tmp_path / "model")
    with pytest.raises(FileExistsError, match="data is a symbolic link"):
        tiny.make(tmp_path, steps=1)
    assert (tmp_path / "model" / "config.json").read_text() == "made"


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="warm_start.jsonl: does not exist;"):
        warm_start.run(tmp_path, tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="field steps: 0; must be an integer >= 1"):
        warm_start.run(tmp_path, tmp_path, tmp_path / "out", steps=0)
    assert WARM_START_FILE == "warm_start.jsonl"
