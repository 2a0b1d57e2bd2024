"""Addresses, interfaces and ports of this host."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

from recipe.paec.common.errors import UserError


def own_address(peer: str | None) -> str:
    """This machine's address in the cluster, IPv4 where there is a choice.

    Args:
        peer: a host name or address in the cluster; the answer is the address that packets to it leave from. None, or
            this machine itself: the address Ray would choose.

    Raises:
        UserError: `PAEC_INTERFACE` (which overrides the choice) does not exist or has no address; the peer cannot be
            resolved or reached.
    """
    interface = os.environ.get("PAEC_INTERFACE")
    if interface:
        return interface_address(interface)
    route = route_to(peer) if peer else None
    if route is not None and not ipaddress.ip_address(route).is_loopback:
        return route
    import ray.util

    return ray.util.get_node_ip_address()


def interface_address(interface: str) -> str:
    """The first IPv4 address of a network interface, else its first IPv6 address that is not link-local."""
    found = psutil.net_if_addrs()
    if interface not in found:
        raise UserError(f"PAEC_INTERFACE={interface}: must be one of this machine's {', '.join(sorted(found))}")
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in found[interface]:
            address = entry.address.split("%")[0]
            if entry.family == family and not ipaddress.ip_address(address).is_link_local:
                return address
    raise UserError(
        f"PAEC_INTERFACE={interface}: has no address that other machines can reach: choose another interface"
    )


def route_to(peer: str) -> str:
    """The address that packets from this machine to `peer` carry; UserError if there is no route."""
    try:
        choices = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise UserError(
            f"the host name {peer} cannot be resolved on {socket.gethostname()} ({error.strerror}): give an address, "
            "or set PAEC_INTERFACE to the cluster's network interface"
        ) from None
    problem = None
    for family, kind, protocol, _, target in sorted(choices, key=lambda choice: choice[0] != socket.AF_INET):
        with socket.socket(family, kind, protocol) as stream:
            try:
                stream.connect(target)  # UDP: nothing is sent
            except OSError as error:
                problem = error
                continue
            return stream.getsockname()[0].split("%")[0]
    raise UserError(
        f"no route from {socket.gethostname()} to {peer} ({problem}): set PAEC_INTERFACE to the cluster's interface"
    )


def interface_of(address: str) -> str:
    """The network interface that has an address; UserError if no interface has it."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address.split("%")[0] == address for entry in entries):
            return name
    raise UserError(
        f"{address} is not an address of {socket.gethostname()}: set PAEC_INTERFACE to the cluster's interface"
    )


def host_of(address: str) -> str:
    """The host of "host:port" or "[host]:port"; UserError if it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not host or (":" in host and not host.startswith("[")):
        raise UserError(f"{address} is not the address of a Ray head: write HOST:PORT, or [HOST]:PORT for IPv6")
    return host.strip("[]")


def free_port(address: str) -> int:
    """A TCP port that is currently unused at `address`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as stream:
        stream.bind((address, 0))
        return stream.getsockname()[1]
