"""The error a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """One or more sentences, each naming what is wrong and the remedy; shown without a traceback."""

    def __init__(self, *errors: str):
        super().__init__("\n".join(errors))
        self.errors = list(errors)


class Stalled(UserError):
    """A watched process made no progress for `stall_timeout` seconds, or a training ran past `run.time_limit`."""
