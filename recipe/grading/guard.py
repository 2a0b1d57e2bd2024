"""The audit hook of a grader's process: while armed, no text becomes code, and no process or connection starts."""

from __future__ import annotations

import os
import sys
from typing import Any

GENERATORS = ("dataclasses", "collections", "typing", "sympy.polys.monomials")
"""Modules that generate code from their own text: field names, annotations, the number of a polynomial's variables."""
TEXT_EVENT = "recipe.grading.text"
"""Audit event of text that sympy would have evaluated; its argument is the text."""
_FORBIDDEN = (
    *(TEXT_EVENT, "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"),
    *("socket.connect", "socket.bind", "os.kill", "os.killpg"),
)


class Guard:
    """The audit hook; hooks cannot be removed, so it is armed and disarmed. `refused` lists the events it refused."""

    def __init__(self) -> None:
        self.armed = False
        self.refused: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.armed and (event in _FORBIDDEN or _makes_code(event, arguments)):
            self.refused.append(event)
            raise RuntimeError(f"{event} is not allowed while an answer is graded")


def _makes_code(event: str, arguments: tuple[Any, ...]) -> bool:
    # Modules that sympy imports later are code from a file; code from text has a name such as <string>.
    if event == "compile":
        name = arguments[1]
    elif event == "exec":
        name = arguments[0].co_filename
    else:
        return False
    name = os.fsdecode(name) if name is not None else "<unknown>"
    if not name.startswith("<") or name.startswith("<frozen "):
        return False
    caller = sys._getframe(2)  # this function, the hook, and what called compile, exec or eval
    return caller.f_globals.get("__name__") not in GENERATORS
