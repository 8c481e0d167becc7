"""Mailboxes in asyncio: their file descriptors wake the loop, and no thread waits."""
import asyncio

from ._errors import Closed


async def _armed(watch, count, timeout):
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(watch.fileno(), lambda: ready.done() or ready.set_result(None))
    try:
        watch.arm(count)
        await asyncio.wait_for(ready, timeout)
    finally:
        loop.remove_reader(watch.fileno())


async def _popped(mailbox, watch, max, reader, timeout, options):
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    while True:
        await _armed(watch, 1, None if end is None else end - loop.time())
        records = mailbox.pop(max, reader=reader, **options)
        # Another consumer of the same reader may have been faster.
        if len(records):
            return records


async def wait_async(mailbox, count=1, *, interest="readable", reader=0, timeout=None):
    """Until `count` records are readable, or writable; raises asyncio.TimeoutError after `timeout` seconds."""
    await _armed(mailbox.watch(interest, reader=reader), count, timeout)
    # Its end wakes, too.
    mailbox.stats()


async def pop_async(mailbox, max, *, reader=0, timeout=None, **options):
    """As mailbox.pop, once there is something; raises asyncio.TimeoutError after `timeout` seconds."""
    return await _popped(mailbox, mailbox.watch("readable", reader=reader), max, reader, timeout, options)


async def records_of(mailbox, max=1024, *, reader=0, **options):
    """`async for records in records_of(mailbox):` until the mailbox is closed."""
    try:
        watch = mailbox.watch("readable", reader=reader)
        while True:
            yield await _popped(mailbox, watch, max, reader, None, options)
    except Closed:
        return
