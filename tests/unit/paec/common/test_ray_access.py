"""The token of a local Ray, and of a running one."""

from __future__ import annotations

import importlib.util
import re
import stat
from pathlib import Path

from recipe.paec.common import ray_access


def test_the_token_of_a_local_ray(tmp_path):
    with ray_access.private_ray(None, tmp_path) as first:
        file = Path(first["RAY_AUTH_TOKEN_PATH"])
        token = file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and re.fullmatch("[0-9a-f]{64}", token)
        assert first["RAY_AUTH_MODE"] == "token" and first["NCCL_SOCKET_IFNAME"] == "lo"
    assert list(tmp_path.iterdir()) == []
    with ray_access.private_ray(None, tmp_path) as second:
        assert Path(second["RAY_AUTH_TOKEN_PATH"]).read_text() != token


def test_the_token_of_a_running_ray(tmp_path, monkeypatch):
    """Shown where there is one: Ray itself does not look for it when it is given an address."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {} and list(tmp_path.iterdir()) == []
    (tmp_path / "token").touch()
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {"RAY_AUTH_MODE": "token"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_access.private_ray("10.0.0.1:6379", tmp_path) as environment:
        assert environment == {"RAY_AUTH_MODE": "disabled"}


def test_a_cluster_with_the_queue_of_another_run():
    """As Ray lists named actors; the name is the one that TransferQueue looks for."""
    queue = {"name": "TransferQueueController", "namespace": "transfer_queue"}
    mine = [{"name": "TransferQueueController", "namespace": "mine"}, {"name": "x", "namespace": "transfer_queue"}]
    assert ray_access.queue_of_another_run([]) is ray_access.queue_of_another_run(mine) is None
    assert ray_access.queue_of_another_run([*mine, queue]) == (
        "another run uses this Ray cluster, and both would read and write the same queue of responses: wait until it "
        "has ended, or give this run a Ray cluster of its own (cluster.ray_address)"
    )
    source = Path(importlib.util.find_spec("transfer_queue").origin).with_name("interface.py").read_text()
    assert 'ray.get_actor("TransferQueueController", namespace="transfer_queue")' in source
