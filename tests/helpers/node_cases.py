"""This machine's addresses."""

from __future__ import annotations

import psutil


def addresses(family: int) -> list[str]:
    """This machine's addresses that others could use."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == family]
    return [address for address in found if not address.startswith(("127.", "fe80:")) and address != "::1"]
