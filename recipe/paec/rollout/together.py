"""What concurrent tasks hand in, handled in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any


class Together:
    """Calls `handle` with all that tasks have handed in since its last call; at most one call at a time.

    The more there is to do, the more is done at once; a single task does not wait for others.

    Args:
        handle: takes the items in the order in which they came; its failure is that of every task whose item it had.
    """

    def __init__(self, handle: Callable[[Sequence[Any]], Awaitable[None]]):
        self._handle = handle
        self._waiting: list[tuple[Any, asyncio.Future]] = []
        self._worker: asyncio.Task | None = None

    async def __call__(self, item: Any) -> None:
        """Hand in an item, and wait until it has been handled."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        await done

    async def _work(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self._handle([item for item, _ in taken])
            except Exception as raised:  # raised again where it belongs
                error = raised
            for _, done in taken:
                if done.done():
                    continue  # its task was cancelled
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
        self._worker = None
