"""`run.alert`: one JSON line posted to a URL when a run stalls, fails, meets NaN, collapses, explodes or ends.

A post has a thread of its own. A URL that does not answer costs the run one printed line, and at its end at most
TIMEOUT seconds. Such a URL is a secret (whoever has it can post), so `withhold` takes it out of the configuration
before anything is written.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import time
import urllib.request
from typing import Any

from omegaconf import DictConfig

from recipe.paec.common.console import say
from recipe.paec.common.errors import Stalled, UserError
from recipe.paec.common.secrets import HIDDEN, hide

KEY = "run.alert"
TIMEOUT = 5.0
"""Seconds for a post, and at the end of a run for all that are still on their way."""
SIGNS = {"nan": "nan", "collapse": "collapse", "explosion": "explosion"}
"""Warning of `recipe.paec.run.warning_signs` -> the event that is posted for it; the others are only printed."""
NOT_FINITE = ("NonFiniteLogits: ", "FloatingPointError: ")
"""Beginnings of a failure's sentence that are NaN or inf."""


def public(url: str) -> str:
    """A URL with everything hidden but its scheme, host and port; user name, path and query may be secrets."""
    scheme, separator, rest = url.rpartition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, host = place.rpartition("@")
    end = rest[len(place) :]
    return f"{scheme}{separator}{HIDDEN if user else ''}{at}{host}{end if end in ('', '/') else '/' + HIDDEN}"


def withhold(config: DictConfig) -> str | None:
    """The URL of `run.alert`; in the configuration, the recorded command line included, it is hidden (`public`)."""
    url = config.run.alert
    if not isinstance(url, str):
        return None
    config.run.alert = public(url)
    overrides = list(config.run.overrides)
    own = [line.lstrip("+~").startswith(f"{KEY}=") for line in overrides]
    config.run.overrides = [f"{KEY}={public(url)}" if mine else line for line, mine in zip(overrides, own, strict=True)]
    return url


class Alerts:
    """Posts the events of one run; in a `with` block, which posts the failure that leaves it."""

    def __init__(self, url: str | None, run: str):
        self._url, self._run = url, run
        self._threads: list[threading.Thread] = []
        self._failed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = False
        self.step = 0
        """The last step that was recorded."""

    def __enter__(self) -> Alerts:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if error is not None and not self._over:
            self.post(*event_of(error))
        deadline = time.monotonic() + TIMEOUT
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self.complain()

    def post(self, event: str, text: str) -> None:
        """Send `{"run", "event", "step", "text", "host", "time"}` in the background.

        Args:
            event: stall, failure, nan, collapse, explosion or end. Stall, failure and end are final; the others
                may be followed by more, but for nan that ended the training.
            text: one sentence.
        """
        self._over = event in ("stall", "failure", "end")
        if self._url is None:
            return
        content = {
            **{"run": self._run, "event": event, "step": self.step, "text": hide(text)},
            **{"host": socket.gethostname(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        }
        thread = threading.Thread(target=self._send, args=(self._url, content), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _send(self, url: str, content: dict[str, Any]) -> None:
        data = (json.dumps(content) + "\n").encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                pass
        except Exception as error:  # whatever it is, the run continues
            reason = str(error).replace(url, public(url)) or type(error).__name__
            self._failed.put(f"the alert {content['event']!r} was not delivered to {public(url)}: {reason}")

    def complain(self) -> None:
        """Print a line for each post that has failed since the last call."""
        while not self._failed.empty():
            say(self._failed.get())


def event_of(error: BaseException) -> tuple[str, str]:
    """Event and sentence for the exception that ends a run."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "end", "stopped at once, as requested"
    if isinstance(error, UserError):
        text = error.errors[0].splitlines()[0]
        if isinstance(error, Stalled):
            return "stall", text
        return "nan" if text.startswith(NOT_FINITE) else "failure", text
    return "failure", f"{type(error).__name__}: {error}".splitlines()[0]
