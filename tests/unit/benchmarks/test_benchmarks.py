"""The benchmarks that are meant for a GPU: every line runs here, small, and their verdicts are right."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import open_dict

import paec_loss
from benchmarks import actor_update, gpu, step, step_ratio, token_statistics
from benchmarks.reproducibility import compare
from paec_loss.backends import reference
from recipe.paec.common.process_tree import ProcessTree
from recipe.paec.config.resolve import composed, resolved

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(1800)  # the interpreter and torch.compile take minutes where others use the machine


# ---- benchmarks.token_statistics -------------------------------------------------------------------------------------


def nuclei(kind: str, top_p: float = 0.9) -> list[int]:
    case = token_statistics.Case(kind, "fp32", 26, "cpu", vocab_size=2000, top_p=top_p)
    logits, labels, upstream = case.tensors()
    assert logits.shape == (26, 2000) and logits.isfinite().all()
    assert torch.equal(case.tensors()[0], logits)  # the same in every process
    assert ((labels >= 0) & (labels < 2000)).all() and upstream.shape == (3, 26)
    stats = paec_loss.token_statistics(logits, labels, top_p=top_p, backend="reference")
    return sorted(stats.nucleus_size.tolist())


@pytest.mark.parametrize("kind", token_statistics.SHAPES)
def test_rows_of_every_kind_are_the_same_again(kind):
    assert nuclei(kind, 0.5)[-1] <= nuclei(kind, 0.99)[-1] <= 2000


def test_kinds_of_rows_have_nuclei_of_their_name():
    assert nuclei("one-hot") == [1] * 26
    assert nuclei("peaked", 0.8)[-1] <= 28
    assert nuclei("normal-0.1")[0] > 1700
    assert nuclei("zipf-1-2")[13] < 100 < nuclei("zipf-1-2")[-1]
    mixed = nuclei("mixed")
    assert mixed[0] == 1 and mixed[-1] > 1700


def test_every_contender_takes_the_mass_of_the_nucleus_if_it_computes_one():
    logits, labels, _ = token_statistics.Case("flat", "fp32", 2, "cpu", vocab_size=50).tensors()
    for name in ("ours numba", "ours torch", "ours reference", "naive sort"):
        at_1 = token_statistics.CONTENDERS[name].at(1.0)(logits, labels)
        torch.testing.assert_close(at_1[2], at_1[1], rtol=1e-5, atol=0)  # the nucleus is everything
    assert token_statistics.CONTENDERS["ours numba"].obstacle("cuda") == "needs CPU"
    assert token_statistics.CONTENDERS["ours triton"].obstacle("cpu") == "needs CUDA"


# ---- benchmarks.gpu --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> dict:
    pytest.importorskip("triton")
    file = tmp_path_factory.mktemp("gpu") / "deep" / "found.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--json", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text())


@pytest.mark.slow
def test_every_section_runs(rehearsal):
    assert [section["name"] for section in rehearsal["sections"]] == ["machine", *gpu.SECTIONS]
    assert not rehearsal["failed"]
    for section in rehearsal["sections"]:
        assert section["error"] is None and section["lines"] and section["seconds"] > 0


@pytest.mark.slow
def test_exactness_passes_in_the_interpreter(rehearsal):
    lines = [line for section in rehearsal["sections"] for line in section["lines"]]
    exact = [line for line in lines if line["what"].startswith("exact")]
    # default 1, dtypes 2 + 4, loose 2, torch 2, on the one kind of rows of a rehearsal
    assert len(exact) == 11 and all(line["verdict"] for line in exact)
    assert all(line["sizes"] == 0 and max(line["errors"].values()) < 1e-6 for line in exact)


@pytest.mark.slow
def test_every_time_is_shown_with_bytes_over_bandwidth(rehearsal):
    bandwidth = rehearsal["machine"]["bandwidth"]
    timed = [line for s in rehearsal["sections"] for line in s["lines"] if "floor_ms" in line]
    assert len(timed) > 20
    for line in timed:
        assert line["floor_ms"] == pytest.approx(1e3 * line["bytes"] / bandwidth, rel=1e-12)
        assert line["ratio"] == pytest.approx(line["milliseconds"] / line["floor_ms"], rel=1e-12)
    bars = [line["what"] for line in timed if line["verdict"] is not None]
    assert bars == ["time forward bf16 T=2 peaked", "time backward bf16 T=2 peaked"]


def test_needs_a_gpu_or_a_rehearsal(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu.main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("beyond", "size", "edges", "expected"),
    [
        (1e-7, 2, 1, 2),  # 0.8 does not reach 0.8 + 1e-7, but float32 cannot tell
        (1e-7, 3, 0, 3),
        (-1e-7, 3, 1, 3),
        (1e-6, 2, 0, 3),  # too far: stays the definition's, and the size counts as wrong
        (-1e-6, 3, 0, 2),
        (1e-7, 1, 0, 3),  # off by two
    ],
)
def test_knife_edges(beyond, size, edges, expected):
    """Probabilities 0.5, 0.3, 0.2: two tokens have 0.8."""
    logits = torch.tensor([[0.3, 0.5, 0.2]], dtype=torch.float64).log()
    one, label = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    scalars, sizes, found = gpu.definition(logits, label, one, 0.8 + beyond, torch.tensor([size]))
    assert (found, sizes.item()) == (edges, expected)
    mass = {2: 0.8, 3: 1.0}[expected]
    assert scalars[3].item() == pytest.approx(mass, rel=1e-12)


class OffByOne:
    """The reference, with the nucleus of the first row one token too large."""

    backward = staticmethod(reference.backward)

    @staticmethod
    def forward(*arguments):
        scalars, size = reference.forward(*arguments)
        size[0] += 1
        return scalars, size


def test_exactness_of_a_right_and_a_wrong_backend():
    given = gpu.inputs("peaked", "fp32", 4, 300, "cpu")
    right, wrong = gpu.exactness(reference, given, 0.8), gpu.exactness(OffByOne, given, 0.8)
    assert right.good and right.sizes == 0 and max(right.errors.values()) == 0
    assert not wrong.good and wrong.sizes == 1


def test_a_section_that_breaks_is_recorded_and_the_next_one_runs(tmp_path, capsys):
    run = gpu.Run(gpu.REHEARSAL, reference, tmp_path / "found.json")

    def breaks(run):
        run.add("before", "1")
        raise RuntimeError("out of memory")

    run.section("first", breaks)
    first = json.loads((tmp_path / "found.json").read_text())
    assert first["failed"] and first["sections"][0]["error"] == "RuntimeError: out of memory"
    run.section("second", lambda run: run.add("after", "2", False, exact=True))
    both = json.loads((tmp_path / "found.json").read_text())
    assert [s["name"] for s in both["sections"]] == ["first", "second"]
    assert [line["value"] for s in both["sections"] for line in s["lines"]] == ["1", "2"]


# ---- benchmarks.actor_update -----------------------------------------------------------------------------------------


def figures(seconds: float, peak: float, **more) -> dict:
    lists = {
        "log_prob_s": [1.0],
        "log_prob_peak_mib": [50.0],
        "update_s": [seconds],
        "peak_mib": [peak],
        "resting_mib": [40.0],
    }
    return {**lists, "nucleus": None, "cross_entropy": "log_softmax row by row", **more}


def test_table_and_bars():
    runs = {"verl, none": [figures(2.0, 100.0)], "ours, none": [], "ours, paec": [figures(1.98, 96.0)]}
    rows = actor_update.table(runs)
    assert [row["variant"] for row in rows] == ["verl, none", "ours, paec"]  # one that broke is left out
    assert rows[1]["update_ratio"] == pytest.approx(0.99) and rows[1]["peak_ratio"] == pytest.approx(0.96)
    assert rows[1]["beyond_ratio"] == pytest.approx(56 / 60) and rows[1]["step_ratio"] == pytest.approx(2.98 / 3)
    assert [line[:4] for line in actor_update.bars(rows, "cuda")] == ["PASS", "FAIL"]
    assert [line[:4] for line in actor_update.bars(rows, "cpu")] == ["PASS", "PASS"]


@pytest.mark.parametrize(("shape", "billions"), [("0.5B", 0.494), ("1.5B", 1.544), ("7B", 7.616)])
def test_shapes_have_the_parameters_of_their_names(shape, billions):
    from transformers import Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(actor_update.model_config(shape, None))
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
    assert actor_update.model_config(shape, 3).num_hidden_layers == 3


def test_the_model_is_made_on_the_device(tmp_path, monkeypatch):
    """As on a GPU: no weights are written or read; verl's own way of loading ends in a model on the device."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from verl.utils.model import get_hf_auto_model_class

    folder = tmp_path / "model"
    actor_update.build_model(folder, "tiny", 3, weights=False)
    assert not list(folder.glob("*.safetensors"))
    config = AutoConfig.from_pretrained(folder)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    actor_update.build_on_device("meta")
    with torch.device("cpu"):
        model = get_hf_auto_model_class(hf_config=config).from_pretrained(
            pretrained_model_name_or_path=folder, torch_dtype=torch.bfloat16, config=config, trust_remote_code=False
        )
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert model.config.num_hidden_layers == 3 and model.config.vocab_size == 512


@pytest.mark.slow
def test_an_update_of_the_tiny_shape(tmp_path, monkeypatch, capsys):
    """verl's engine and ours, each in a process of its own, in bf16."""
    names = ("verl, none", "ours, paec")
    monkeypatch.setattr(actor_update, "VARIANTS", {name: actor_update.VARIANTS[name] for name in names})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "update.json"
    options = ["--shape", "tiny", "--dtype", "bf16", "--sequences", "4", "--tokens", "32", "--micro", "2"]
    assert actor_update.main([*options, "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    stock, ours = record["rows"]
    assert (stock["variant"], ours["variant"]) == names and record["errors"] == {}
    assert stock["update_ratio"] == 1 and ours["update_s"] > 0 and ours["log_prob_s"] > 0
    assert stock["peak_mib"] >= record["figures"]["verl, none"][0]["resting_mib"][0] > 100
    assert 1 <= ours["nucleus"] <= 512 and stock["nucleus"] is None
    if not torch.cuda.is_available():
        assert stock["cross_entropy"] == "log_softmax row by row" and record["device"]["device"] == "cpu"
    assert "| ours, paec |" in capsys.readouterr().out


def test_a_variant_that_breaks_leaves_the_others(tmp_path, monkeypatch, capsys):
    def run(variant, options, folder):
        if variant["stock"]:
            return figures(2.0, 100.0)
        raise subprocess.CalledProcessError(7, "python")

    monkeypatch.setattr(actor_update, "run_variant", run)
    monkeypatch.setattr(actor_update, "build_model", lambda *_, **__: None)
    out = tmp_path / "update.json"
    assert actor_update.main(["--out", str(out)]) == 1
    record = json.loads(out.read_text())
    assert [row["variant"] for row in record["rows"]] == ["verl, none"]
    assert set(record["errors"]) == {"ours, none", "ours, paec", "ours, paec, fused head"}
    assert math.isclose(record["rows"][0]["update_s"], 2.0)


def write_run(folder, entropy: float, kl: float, response: str):
    (folder / "rollouts").mkdir(parents=True)
    record = {"step": 1, "actor/entropy": entropy, "critic/score/mean": 0.5, "rollout_corr/kl": kl, "timing_s/gen": kl}
    (folder / "metrics.jsonl").write_text(
        json.dumps({"step": 0, "val/a/avg@1": 0.1}) + "\n" + json.dumps(record) + "\n"
    )
    lines = [{"output": response, "score": 1.0}, {"output": "1+2", "score": 0.0}]
    (folder / "rollouts" / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_comparison_of_two_runs(tmp_path):
    first, same, other = (
        write_run(tmp_path / "first", 0.5, 1e-7, "3"),
        write_run(tmp_path / "same", 0.5, 3e-7, "3"),
        write_run(tmp_path / "other", 0.4, 1e-7, "4"),
    )
    (equal,) = compare(first, same)
    assert (equal.number, equal.metrics, equal.different) == (1, 3, {})  # the step, the entropy and the score
    assert (equal.engine_metrics, equal.engine_difference) == (1, pytest.approx(2e-7))
    assert (equal.responses, equal.identical) == (2, 2)
    (different,) = compare(first, other)
    assert different.different == {"actor/entropy": pytest.approx(0.2)}
    assert different.identical == 1


# ---- a training step -------------------------------------------------------------------------------------------------


def step_line(step: int, seconds: float) -> dict:
    stages = {"gen": 0.5, "old_log_prob": 0.2, "adv": 0.1, "update_actor": 0.4, "update_weights": 0.05}
    timers = {f"timing_s/{name}": share * seconds for name, share in stages.items()}
    return {"step": step, "timing_s/step": seconds, **timers, **({"timing_s/testing": 3.0} if step == 10 else {})}


def test_figures_of_a_run():
    """Steps of 2 s with 0.5 s between them, after five slow ones; the last one, with its validation, is not counted."""
    seconds = [9.0] * 5 + [2.0] * 5
    ends = [50.0 + sum(seconds[: n + 1]) + 0.5 * n for n in range(10)]
    lines = [(20.0, {"step": 0})] + [(end, step_line(n + 1, seconds[n])) for n, end in enumerate(ends)]
    used = {n: {(1, "driver"): 100.0 + n, (2, "actor"): 4.0 * n, (3, "queue"): 1.0} for n in range(5, 11)}
    used[9][4, "rewards"] = 2.0  # began meanwhile
    found = step.figures(SimpleNamespace(lines=lines, used=used, tree=SimpleNamespace(peak_memory=3 << 30)), steps=10)
    assert found["to the first rollout"] == pytest.approx(50.0)
    assert found["step"] == pytest.approx(2.5) and found["validation"] == 3.0 and found["peak memory, GiB"] == 3.0
    assert found["stages"] == pytest.approx(
        {"rollout": 1.0, "log-probs": 0.4, "advantages": 0.2, "update": 0.8, "weight sync": 0.1, "other": 0.0}
    )
    assert found["processor seconds a step"] == pytest.approx({"actor": 4.0, "driver": 1.0, "rewards": 0.5, "queue": 0})
    assert list(found["processor seconds a step"]) == ["actor", "driver", "rewards", "queue"]

    rows = step.table({"ours, paec": found, "verl, none": {**found, "step": 5.0}}).splitlines()
    assert rows[-1].split() == ["step,", "verl", "=", "1", "0.50", "1.00"]
    assert [row.split() for row in rows if row.startswith("actor")] == [["actor", "4.00", "4.00"]]


def test_verls_own_trainer_gets_nothing_of_ours(tmp_path):
    config = resolved(composed(*step.overrides_of("verl, none", 10, tmp_path)))
    with open_dict(config):
        step.as_verl_has_it(config, tmp_path / "verl.jsonl")
    actor = config.actor_rollout_ref.actor
    assert config.trainer.v1.trainer_mode == "sync" and config.actor_rollout_ref.rollout.engine_kwargs == {}
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class is None
    targets = [actor["_target_"], actor.fsdp_config["_target_"], actor.policy_loss["_target_"]]
    assert all(target.startswith("verl.") for target in targets)
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH == str(tmp_path / "verl.jsonl")


# ---- benchmarks.step_ratio -------------------------------------------------------------------------------------------


def test_the_interval_of_a_median_leaves_out_what_the_sign_test_does():
    # P(at most 5 of 20 below the median) = 0.0207, at most 6 of 20: 0.0577.
    assert [step_ratio.outside_of_interval(count) for count in (6, 10, 20, 40)] == [0, 1, 5, 13]
    for count in (0, 1, 5):
        with pytest.raises(ValueError, match=f"{count} values: a median of fewer than 6 has no 95 % interval"):
            step_ratio.outside_of_interval(count)


def test_the_ratio_is_that_of_rounds_not_of_medians():
    found = step_ratio.summary([(2, 1), (20, 10), (2, 1), (20, 10), (30, 10), (3, 1)])
    assert (found["ratio"], found["low"], found["high"]) == (2, 2, 3)
    assert (found["first"], found["second"]) == (11.5, 5.5)


class Waiting(step_ratio.Turn):
    """A training that writes a line every 0.05 s of its own time."""

    def __init__(self, variant: str, steps: int, root: Path, given: list[str]):
        code = (
            "import json, sys, time\n"
            "for step in range(1000):\n"
            "    time.sleep(0.05)\n"
            f"    if step == 10 and {variant == 'fails'}: sys.exit('broken')\n"
            "    line = {'step': step} | (dict.fromkeys(sys.argv[2:], 0.01) if step else {})\n"
            "    print(json.dumps(line), file=open(sys.argv[1], 'a'), flush=True)\n"
        )
        self.variant, self.lines = variant, 0
        self.metrics, self.log = root / "metrics.jsonl", root / "log"
        command = [sys.executable, "-c", code, str(self.metrics), *step.STAGES.values()]
        self.tree = ProcessTree(command, self.log, {})


def test_one_training_waits_while_the_other_has_its_turn(monkeypatch):
    made = []
    monkeypatch.setattr(step_ratio, "Turn", lambda *given: made.append(Waiting(*given)) or made[-1])
    found = step_ratio.in_turns(("one", "other"), 3, [])
    assert len(found) == 3 and {*found[0][0]} == {*found[0][1]} >= {"step", "update", "rollout, other"}
    # Six lines before the rounds and six in them; a training that was not stopped writes while the other does, too.
    assert all(12 <= turn.lines < 16 for turn in made)
    assert all(turn.tree.process.poll() is not None for turn in made)


def test_a_training_that_fails_ends_the_other_and_is_named(monkeypatch):
    made = []
    monkeypatch.setattr(step_ratio, "Turn", lambda *given: made.append(Waiting(*given)) or made[-1])
    with pytest.raises(SystemExit, match="fails failed:\nbroken"):
        step_ratio.in_turns(("one", "fails"), 9, [])
    assert all(turn.tree.process.poll() is not None for turn in made)
