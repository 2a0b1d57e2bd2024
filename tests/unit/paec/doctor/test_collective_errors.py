"""A failed collective says what to do about its error."""

from __future__ import annotations

import pytest

from recipe.paec.common.repository import REPOSITORY
from recipe.paec.doctor import collective, collective_errors


@pytest.mark.parametrize(
    "error, remedy",
    [
        ("The NVIDIA driver on your system is too old (found version 12080)", "update NVIDIA's driver to branch 580"),
        ("CUDA driver version is insufficient for CUDA runtime version", "update NVIDIA's driver to branch 580"),
        ("CUDA out of memory. Tried to allocate 2.00 MiB", "stop what else uses the GPU"),
        ("Connection closed by peer", "set the interface that connects all ranks (now GLOO_SOCKET_IFNAME=eth0, "),
    ],
)
def test_the_remedy_fits_the_error(error, remedy):
    env = {"GLOO_SOCKET_IFNAME": "eth0"}
    assert collective_errors.remedy(error, env).startswith(remedy)
    (problem,) = collective.verdict({0: "", 1: error}, 1.0, env).errors
    assert problem.startswith(f"the collective failed on 1 of 2 ranks (rank 1: {error}): {remedy}")


def test_the_installation_warns_of_the_same_drivers():
    script = (REPOSITORY / "launch" / "setup_env.sh").read_text(encoding="utf-8")
    assert f"< {collective_errors.DRIVER})); then" in script
    assert f"needs {collective_errors.DRIVER} or newer" in script
