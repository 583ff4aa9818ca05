"""What is written together is sent together, and nothing is lost, late or out of order."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.joined_writes import MOST_HELD_BYTES, JoinedWrites

BOTH_LOOPS = True


class Recorder(asyncio.Transport):
    """A connection that notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.closing = False

    def write(self, data):
        assert not self.closing
        self.told.append(bytes(data))

    def close(self):
        self.closing = True
        self.told.append("close")

    def abort(self):
        self.closing = True
        self.told.append("abort")

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.told.append("pause")

    def resume_reading(self):
        self.told.append("resume")

    def get_extra_info(self, name, default=None):
        return {"peername": ("127.0.0.1", 9)}.get(name, default)


async def joined():
    inner = Recorder()
    return inner, JoinedWrites(inner, asyncio.get_running_loop())


async def test_two_writes_in_one_turn_of_the_loop_are_one():
    inner, transport = await joined()
    transport.write(b"head ")
    transport.write(b"body")
    assert inner.told == [b"head body"]
    await asyncio.sleep(0)
    assert inner.told == [b"head body"]


async def test_a_single_write_goes_out_in_the_loops_next_turn():
    inner, transport = await joined()
    transport.write(b"a stream's head")
    assert inner.told == []
    await asyncio.sleep(0)
    assert inner.told == [b"a stream's head"]


async def test_a_long_write_goes_out_at_once():
    inner, transport = await joined()
    transport.write(long := b"x" * (MOST_HELD_BYTES + 1))
    assert inner.told == [long]


async def test_what_is_held_is_sent_before_the_connection_is_closed():
    inner, transport = await joined()
    transport.write(b"all of it")
    transport.close()
    await asyncio.sleep(0)
    assert inner.told == [b"all of it", "close"]
    assert transport.is_closing()


@pytest.mark.parametrize("end", ["abort", "lost"])
async def test_nothing_is_written_to_a_connection_that_is_gone(end):
    inner, transport = await joined()
    transport.write(b"too late")
    if end == "abort":
        transport.abort()
    else:
        inner.closing = True
    await asyncio.sleep(0)
    assert b"too late" not in inner.told


async def test_a_buffer_may_be_used_again_after_it_was_written():
    inner, transport = await joined()
    buffer = bytearray(b"first")
    transport.write(buffer)
    buffer[:] = b"other"
    await asyncio.sleep(0)
    assert inner.told == [b"first"]


async def test_everything_else_is_the_connections_own():
    inner, transport = await joined()
    transport.pause_reading()
    transport.resume_reading()
    assert inner.told == ["pause", "resume"]
    assert transport.get_extra_info("peername") == ("127.0.0.1", 9)
    assert transport.get_extra_info("socket", "none") == "none"
    assert not transport.is_closing()


PIECES = st.one_of(st.binary(max_size=9), st.just(b"y" * (MOST_HELD_BYTES + 1)))


@settings(deadline=None)
@given(st.lists(st.one_of(PIECES, st.none())))
def test_the_bytes_arrive_as_they_were_written(steps):
    """None is a turn of the loop."""

    async def run():
        inner, transport = await joined()
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            else:
                transport.write(step)
        transport.close()
        return inner.told

    *sent, last = asyncio.run(run())
    assert last == "close"
    assert b"".join(sent) == b"".join(step for step in steps if step is not None)
