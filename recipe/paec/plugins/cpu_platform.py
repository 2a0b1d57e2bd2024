"""A CPU platform for verl: the same pipeline (Ray, FSDP2, vLLM) on a machine without accelerator.

verl 0.9.1 asks a platform object for everything that depends on the device; it ships one for CUDA, ROCm and NPU.
Selected with `VERL_PLATFORM=cpu` (the launch code sets it for `cluster=cpu`).
"""

from __future__ import annotations

import types
from contextlib import contextmanager, nullcontext
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _device_module() -> types.ModuleType:
    """What verl expects from `torch.<device>`, for the host: no-ops where nothing needs to be done."""
    module = types.ModuleType("paec_cpu_device")
    module.is_available = lambda: False
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.get_device_name = lambda device=None: "cpu"
    module.set_device = lambda device=None: None
    module.synchronize = lambda device=None: None
    module.empty_cache = lambda: None
    module.ipc_collect = lambda: None
    module.set_per_process_memory_fraction = lambda fraction, device=None: None
    module.memory_allocated = lambda device=None: 0
    module.memory_reserved = lambda device=None: 0
    module.max_memory_allocated = lambda device=None: 0
    module.max_memory_reserved = lambda device=None: 0
    module.reset_peak_memory_stats = lambda device=None: None
    module.mem_get_info = lambda device=None: (psutil.virtual_memory().available, psutil.virtual_memory().total)
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.manual_seed = torch.manual_seed
    module.manual_seed_all = torch.manual_seed
    module.Stream = torch.cpu.Stream
    module.Event = torch.Event
    module.current_stream = torch.cpu.current_stream
    module.stream = lambda stream=None: nullcontext()
    return module


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """The host as verl's accelerator; Ray's `GPU` is then a logical resource that it does not check."""

    _module = _device_module()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Never picked by auto-detection: a cluster without visible GPUs must not silently train on its hosts.
        return False

    def current_device(self) -> torch.device:
        # `.to(get_device_id())` would interpret an index as a GPU.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        # Weights are then sent to vLLM through shared memory.
        return False

    def cudart(self) -> Any:
        return None
