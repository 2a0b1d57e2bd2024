"""Progress of long work on stderr: a bar on a terminal; in a file or a pipe a plain line every few seconds.

A bar overwrites itself, so a log would hold every one of its states in one endless line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from tqdm import tqdm

INTERVAL = 5.0
"""Seconds from one line to the next; work that takes less than that prints none."""
T = TypeVar("T")


def with_progress(
    items: Iterable[T] = (), *, label: str, total: int | None = None, unit: str = "it", show: bool = True
) -> tqdm[T] | Lines[T]:
    """`items` with their progress on stderr; without any, a counter for `update`. Use it in a `with` block or a loop.

    Args:
        label: what is going on.
        total: how many items there are; default: their length, if they have one.
        unit: what an item is called in "items a second".
        show: False prints nothing.
    """
    if total is None and items != () and hasattr(items, "__len__"):
        total = len(items)
    if show and not sys.stderr.isatty():
        return Lines(items, label, total, unit)
    return tqdm(items, desc=label, total=total, unit=unit, disable=not show)


def quiet_hub() -> None:
    """No bars of the hub's libraries, unless stderr is a terminal."""
    if not sys.stderr.isatty():
        from datasets import disable_progress_bars
        from huggingface_hub.utils import disable_progress_bars as disable_downloads

        disable_progress_bars()
        disable_downloads()


def quiet_transformers() -> None:
    """The same for what transformers draws when it loads or writes a model."""
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()


class Lines(Generic[T]):
    """The part of tqdm that the project uses, for what is not a terminal."""

    def __init__(self, items: Iterable[T], label: str, total: int | None, unit: str):
        self._items, self._label, self._total, self._unit = items, label, total, unit
        self._count, self._postfix, self._printed = 0, "", -1
        self._start = self._last = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> Lines[T]:
        return self

    def __exit__(self, *_: object) -> None:
        if 0 <= self._printed < self._count:
            self._print()

    def update(self, count: int = 1) -> None:
        """So many more items are done."""
        self._count += count
        if time.monotonic() - self._last >= INTERVAL:
            self._print()

    def set_postfix(self, refresh: bool = False, **values: str) -> None:
        """What the next line says beside the count; `refresh` is tqdm's, and lines are not printed for it."""
        self._postfix = ", ".join(f"{name}={value}" for name, value in values.items())

    def _print(self) -> None:
        self._last, self._printed = time.monotonic(), self._count
        elapsed = self._last - self._start
        text = tqdm.format_meter(
            self._count, self._total, elapsed, ncols=0, prefix=self._label, unit=self._unit, postfix=self._postfix
        )
        print(text, file=sys.stderr, flush=True)
