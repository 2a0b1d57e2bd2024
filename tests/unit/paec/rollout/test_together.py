"""What concurrent tasks hand in is handled in one call, in order, and its failure is theirs."""

from __future__ import annotations

import asyncio

import pytest

from recipe.paec.rollout.together import Together


class Handler:
    """Takes a while, and records what it was called with."""

    def __init__(self):
        self.calls: list[list[int]] = []
        self.running = 0

    async def __call__(self, items):
        self.running += 1
        assert self.running == 1
        self.calls.append(list(items))
        await asyncio.sleep(0.01)
        self.running -= 1
        if 13 in items:
            raise ValueError("unlucky")


def test_while_one_call_runs_the_next_ones_collect():
    handler = Handler()

    async def run():
        together = Together(handler)
        await asyncio.gather(*(together(number) for number in range(5)))
        await asyncio.gather(together(5), *(later(together, number) for number in (6, 7, 8)))
        await together(9)

    async def later(together, number):
        await asyncio.sleep(0.002)
        await together(number)

    asyncio.run(run())
    assert handler.calls == [[0, 1, 2, 3, 4], [5], [6, 7, 8], [9]]


def test_a_failure_is_that_of_each_item_and_the_next_call_comes():
    handler = Handler()

    async def run():
        together = Together(handler)
        found = await asyncio.gather(together(12), together(13), return_exceptions=True)
        await together(14)
        return found

    found = asyncio.run(run())
    assert [str(error) for error in found] == ["unlucky", "unlucky"] and handler.calls == [[12, 13], [14]]


def test_a_cancelled_task_does_not_keep_the_others_waiting():
    handler = Handler()

    async def run():
        together = Together(handler)
        tasks = [asyncio.create_task(together(number)) for number in (1, 2)]
        await asyncio.sleep(0.001)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        await asyncio.wait_for(tasks[1], 5)
        await asyncio.wait_for(together(3), 5)

    asyncio.run(run())
    assert handler.calls == [[1, 2], [3]]
