"""Ending asyncio tasks."""

from __future__ import annotations

import asyncio
import contextlib

from service.tasks import cancel_all


async def endless():
    await asyncio.Event().wait()


async def deaf(times):
    for _ in range(times):
        with contextlib.suppress(asyncio.CancelledError):
            await endless()
    await endless()


async def failing():
    try:
        await endless()
    finally:
        raise ValueError("in its clean-up")


async def test_a_task_that_drops_a_cancellation_is_cancelled_again():
    tasks = [asyncio.create_task(one) for one in (endless(), deaf(1), deaf(3))]
    await asyncio.sleep(0)
    await cancel_all(tasks)

    assert [task.cancelled() for task in tasks] == [True, True, True]


async def test_what_tasks_raise_while_they_end_is_not_passed_on():
    tasks = [asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(0, "done"))]
    await asyncio.sleep(0)
    await cancel_all(tasks)

    assert [task.done() for task in tasks] == [True, True]
    assert isinstance(tasks[0].exception(), ValueError)


async def test_no_task_takes_no_time():
    assert await cancel_all([]) is None
