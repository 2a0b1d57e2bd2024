"""Run by test_gpu_vllm.py: vLLM asleep and awake, and the actor's weights sent to it the way that verl sends them.

`python vllm_worker.py WORK`: WORK holds the models `first/` and `second/`; writes `WORK/result.pt`. A rehearsal with
VERL_PLATFORM=cpu takes vLLM's CPU build in float32, sends weights through shared memory, and lets nothing sleep.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from pathlib import Path

import torch

JOB = "gputest"
PROMPTS = [[5, 9, 40, 3], [100, 7, 7, 200, 31, 12], [77]]
TOKENS = 24
BUCKET_MIB = 8


def weights_of(folder: Path, device: str):
    """Names and float32 tensors on the device, as the actor hands them out."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def send(llm, folder: Path, cuda: bool) -> None:
    """All weights of a model to vLLM's worker, whose call waits for the sender and is therefore made in a thread."""
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

    from recipe.paec.common.run_mark import unique_job

    failure: list[BaseException] = []

    def receive() -> None:
        try:
            llm.collective_rpc("update_weights_from_ipc", kwargs={"use_shm": not cuda})
        except BaseException as error:
            if not sent.is_set():  # the sender would wait for the reply in vain
                traceback.print_exc()
                os._exit(3)
            failure.append(error)

    sent = threading.Event()
    receiver = threading.Thread(target=receive)
    receiver.start()
    handle = f"ipc:///tmp/rl-colocate-zmq-{unique_job(JOB)}-replica-0-rank-0.sock"
    sender = BucketedWeightSender(handle, bucket_size_mb=BUCKET_MIB, use_shm=not cuda)
    asyncio.run(sender.async_send_weights(iter(weights_of(folder, "cuda:0" if cuda else "cpu"))))
    sent.set()
    receiver.join(timeout=120)
    if failure:
        raise failure[0]
    llm.reset_prefix_cache()


def greedy(llm) -> list[tuple[list[int], list[float]]]:
    """Tokens and log-probs of the most likely responses."""
    from vllm import SamplingParams

    how = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, logprobs=0)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in PROMPTS], how, use_tqdm=False)
    found = []
    for output in outputs:
        answer = output.outputs[0]
        taken = [steps[token].logprob for token, steps in zip(answer.token_ids, answer.logprobs, strict=True)]
        found.append((list(answer.token_ids), taken))
    return found


def main() -> None:
    work = Path(sys.argv[1])
    cuda = os.environ["VERL_PLATFORM"] != "cpu"
    os.environ["VERL_RAY_JOB_ID"] = JOB  # vLLM's plugin adds the run's mark, in its own process
    from vllm import LLM

    precision = {"dtype": "bfloat16", "gpu_memory_utilization": 0.25, "enable_sleep_mode": True}
    llm = LLM(
        model=str(work / "first"),
        load_format="dummy",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=8,
        seed=0,
        worker_extension_cls="verl.workers.rollout.vllm_rollout.utils.vLLMColocateWorkerExtension",
        **(precision if cuda else {"dtype": "float32"}),
    )
    result: dict = {"dummy": greedy(llm)}
    send(llm, work / "first", cuda)
    result["first"] = greedy(llm)
    if cuda:
        free = [torch.cuda.mem_get_info()[0]]
        llm.sleep(level=2)
        free.append(torch.cuda.mem_get_info()[0])
        llm.wake_up(tags=["weights"])
    send(llm, work / "second", cuda)
    if cuda:
        free.append(torch.cuda.mem_get_info()[0])
        llm.wake_up(tags=["kv_cache"])
        free.append(torch.cuda.mem_get_info()[0])
        result["free"], result["total"] = free, torch.cuda.mem_get_info()[1]
    result["second"] = greedy(llm)
    torch.save(result, work / "result.pt")


if __name__ == "__main__":
    main()
