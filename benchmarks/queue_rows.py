"""What the queue between rollout, actor and driver costs: `python -m benchmarks.queue_rows [--responses 8192]`

A step's fields go through a real TransferQueue on Ray, with made-up numbers and lengths from 1 to twice `--tokens` less
one (at random; the seed is fixed). What is timed, medians of `--rounds` after a first one that is not counted:

* actor puts: the log-prob pass's results, as an actor worker puts them
* actor gets: the fields that an actor worker gets for its update
* driver reads: the rollouts, as the trainer gets and prepares them for methods that need them

once as TransferQueue does it, with a frame for each row, and once as this recipe does (`queue_rows`, `queue_shapes` in
recipe/paec/plugins); each in processes of its own, one after the other. Also the driver's peak memory, GiB, and what
of it is imports and made-up responses ("before"). What is got is compared with what was put. --out gets JSON.

For the size of a cluster's step: --responses 8192 --tokens 2048 --rounds 3 (needs about 12 GiB).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import torch
from omegaconf import OmegaConf
from tensordict import TensorDict

from data_prep.files import atomic_write

VOCAB_SIZE = 151_936

CONFIG = OmegaConf.create({"seed": 0, "reward": {"scorers": {}}, "data": {"max_response_length": None}})
"""What the trainer reads of a run's configuration."""

VARIANTS = ("rows", "joined")
"""A frame for each row, as TransferQueue sends them; one frame for a field."""


def peak() -> float:
    """GiB, the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def made_up(responses: int, tokens: int) -> tuple[dict, dict]:
    """The fields that the rollout leaves of every response, and those of the log-prob pass."""
    from recipe.paec.actor.batches import NUCLEUS, RESPONSE_NUMBER

    torch.manual_seed(0)
    lengths, prompt = torch.randint(1, 2 * tokens, (responses,)), 8

    def jagged(of: torch.Tensor, *wide: int, whole: bool = False):
        total = int(of.sum())
        values = torch.rand(total, *wide) if not whole else torch.randint(0, VOCAB_SIZE, (total,))
        return torch.nested.nested_tensor_from_jagged(values, torch.cat([of.new_zeros(1), of.cumsum(0)]))

    prompts, both = torch.full_like(lengths, prompt), lengths + prompt
    rollout = {name: jagged(both, whole=True) for name in ("input_ids", "position_ids", "loss_mask")}
    rollout |= {"responses": jagged(lengths, whole=True), "prompts": jagged(prompts, whole=True)}
    rollout |= {"response_mask": torch.ones_like(rollout["responses"]), "rollout_log_probs": jagged(lengths)}
    rollout |= {"advantages": jagged(lengths), "old_log_probs": jagged(lengths)}
    rollout |= {RESPONSE_NUMBER: torch.arange(responses)}
    return rollout, {"log_probs": jagged(both), "entropy": jagged(lengths), NUCLEUS: jagged(both, 5)}


def measure(options: argparse.Namespace) -> dict:
    """Seconds of each stage and the driver's memory, in this process."""
    import ray
    import transfer_queue as tq
    from omegaconf import OmegaConf
    from transfer_queue import KVBatchMeta

    from paec_loss import MethodStack
    from paec_loss.methods import METHODS
    from recipe.paec.driver import queue_io
    from recipe.paec.plugins import queue_rows, queue_shapes

    torch.set_num_threads(1)
    if options.variant == "joined":
        queue_rows.rows_in_one_frame()
        queue_shapes.shapes_from_offsets()
        queue_shapes.shapes_not_copied()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": options.units}}}))
    rollout, passed = made_up(options.responses, options.tokens)
    keys = [f"000001-{place // 8:06d}_{place % 8}_0" for place in range(options.responses)]
    stack = MethodStack([METHODS["paec_dual"]()])

    def put(fields: dict) -> None:
        tq.kv_batch_put(keys=keys, partition_id="train", fields=TensorDict(fields, batch_size=len(keys)))

    def get(names: list[str]) -> TensorDict:
        return tq.kv_batch_get(keys=keys, partition_id="train", select_fields=names)

    def read() -> None:
        batch = KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id="train")
        queue_io.read_rollouts(batch, stack, None, VOCAB_SIZE, 1, CONFIG)

    before = peak()
    put(rollout)
    put(passed)
    with mock.patch.object(queue_rows, "fetched", wraps=queue_rows.fetched) as joined:
        compare(get([*rollout, *passed]), rollout | passed)
    if joined.call_count != (options.units * len(rollout | passed) if options.variant == "joined" else 0):
        raise SystemExit(f"{options.variant}: {joined.call_count} fields came in one frame")
    of_actor = [name for name in queue_io.ACTOR_FIELDS if name in rollout or name in passed]
    seconds = {
        "actor puts": timed(lambda: put(passed), options.rounds),
        "actor gets": timed(lambda: get(of_actor), options.rounds),
        "driver reads": timed(read, options.rounds),
    }
    tq.close()
    ray.shutdown()
    return {"s": seconds, "GiB before": before, "GiB": peak()}


def compare(found: TensorDict, put: dict) -> None:
    """End with an error unless every field that was got is what was put."""
    for name, expected in put.items():
        pairs = [(found[name], expected)]
        if expected.is_nested:
            pairs = [(found[name].values(), expected.values()), (found[name].offsets(), expected.offsets())]
        if not all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in pairs):
            raise SystemExit(f"{name}: what was got is not what was put")


def timed(work: Callable[[], None], rounds: int) -> list[float]:
    """Seconds of each round after the first."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found[1:]


def main() -> None:
    """Measure both in processes of their own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=20, help="of a response, on average")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--units", type=int, default=1, help="storage units of the queue")
    parser.add_argument("--variant", choices=VARIANTS, help="only this, in this process")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options)))
        return
    found = {}
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.queue_rows", *sys.argv[1:], "--variant", variant]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[variant] = json.loads(done.stdout.splitlines()[-1])
    print(f"{options.responses} responses of {options.tokens} tokens, {options.units} storage unit(s)")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in VARIANTS) + "       ratio")
    for stage in found["rows"]["s"]:
        apart, joined = (statistics.median(found[variant]["s"][stage]) for variant in VARIANTS)
        print(f"{stage + ', ms':24}{1000 * apart:12.1f}{1000 * joined:12.1f}{joined / apart:12.2f}")
    for what in ("GiB before", "GiB"):
        print(f"{'driver, ' + what:24}" + "".join(f"{found[variant][what]:12.2f}" for variant in VARIANTS))
    if options.out:
        sizes = {name: getattr(options, name) for name in ("responses", "tokens", "units")}
        with atomic_write(options.out) as partial:
            written = {"date": datetime.now(UTC).isoformat(), **sizes, **found}
            partial.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
