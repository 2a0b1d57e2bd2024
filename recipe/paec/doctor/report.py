"""The result of one doctor check (a status line, errors and notes), and the report that prints them."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.paec.common.console import say


@dataclass(frozen=True)
class Check:
    """One line of the report: what was found; a sentence for each error, and for each note."""

    name: str
    found: str
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Report:
    """Prints checks as they come and collects the errors."""

    def __init__(self):
        self.errors: list[str] = []

    def add(self, *checks: Check) -> None:
        """One line for each check, and one for each note."""
        for check in checks:
            say(f"{'FAIL' if check.errors else 'ok':<6}{check.name}: {check.found}")
            for note in check.notes:
                say(f"note  {note}")
            self.errors += check.errors
