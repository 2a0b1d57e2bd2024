"""The address that a node takes."""

from __future__ import annotations

import socket

import pytest
from node_cases import addresses

from recipe.paec.common.errors import UserError
from recipe.paec.ray_node.addresses import free_port, host_of, interface_of, own_address, route_to


def test_the_route_decides_the_address(monkeypatch):
    monkeypatch.delenv("PAEC_INTERFACE", raising=False)
    assert route_to("127.0.0.1") == "127.0.0.1"
    assert route_to("localhost") == "127.0.0.1"  # IPv4 where both exist
    for address in addresses(socket.AF_INET):
        assert own_address(address) == address


@pytest.mark.skipif(not addresses(socket.AF_INET6), reason="this machine has no IPv6 address")
def test_ipv6(monkeypatch):
    monkeypatch.delenv("PAEC_INTERFACE", raising=False)
    for address in addresses(socket.AF_INET6):
        assert own_address(address) == address


def test_interface_overrides_the_route(monkeypatch):
    monkeypatch.setenv("PAEC_INTERFACE", "lo")
    assert own_address("192.0.2.99") == "127.0.0.1"
    monkeypatch.setenv("PAEC_INTERFACE", "ib7")
    with pytest.raises(UserError, match=r"PAEC_INTERFACE=ib7: must be one of this machine's .*\blo\b"):
        own_address(None)


def test_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(UserError, match=r"203\.0\.113\.7 is not an address of"):
        interface_of("203.0.113.7")


def test_a_name_that_does_not_resolve():
    with pytest.raises(UserError, match=r"no-such-host\.invalid cannot be resolved"):
        route_to("no-such-host.invalid")


@pytest.mark.parametrize(
    ("address", "host"), [("10.0.0.1:6379", "10.0.0.1"), ("[fd00::2]:80", "fd00::2"), ("a:1", "a")]
)
def test_host_of(address, host):
    assert host_of(address) == host


@pytest.mark.parametrize("address", ["", "10.0.0.1", ":6379", "head:", "fd00::2:80", "head:port"])
def test_host_of_nonsense(address):
    with pytest.raises(UserError, match=r"write HOST:PORT, or \[HOST\]:PORT"):
        host_of(address)


def test_free_port_is_free():
    port = free_port("127.0.0.1")
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", port))
        assert stream.getsockname()[1] == port
