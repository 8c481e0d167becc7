"""Mailboxes, FIFOs and doorbells in asyncio: their file descriptors wake the loop, and no thread waits."""
import asyncio
import weakref

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


async def _popped(pop, watch, timeout):
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    while True:
        await _armed(watch, 1, None if end is None else end - loop.time())
        records = pop()
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
    return await _popped(lambda: mailbox.pop(max, reader=reader, **options), mailbox.watch("readable", reader=reader), timeout)


async def records_of(mailbox, max=1024, *, reader=0, **options):
    """`async for records in records_of(mailbox):` until the mailbox is closed."""
    try:
        watch = mailbox.watch("readable", reader=reader)
        while True:
            yield await _popped(lambda: mailbox.pop(max, reader=reader, **options), watch, None)
    except Closed:
        return


async def pop_fifo_async(fifo, max, timeout):
    return await _popped(lambda: fifo.pop(max, timeout=0), fifo.watch(), timeout)


async def records_of_fifo(fifo):
    try:
        watch = fifo.watch()
        while True:
            yield await _popped(lambda: fifo.pop(fifo.capacity, timeout=0), watch, None)
    except Closed:
        return


class _Answers:
    """Commands of a doorbell that a loop waits for: one descriptor for all of them."""
    # By doorbell and loop, while there are any.
    known = weakref.WeakKeyDictionary()

    def __init__(self, doorbell, loop):
        self.doorbell, self.loop, self.watch, self.waiting = doorbell, loop, doorbell.watch(), {}
        loop.add_reader(self.watch.fileno(), self.woken)

    async def wait(self, command):
        ready = self.loop.create_future()
        self.waiting[ready] = command
        try:
            self.look()
            return await ready
        finally:
            del self.waiting[ready]
            if not self.waiting:
                self.loop.remove_reader(self.watch.fileno())
                del self.known[self.doorbell][self.loop]

    def look(self):
        """Hands out what is there, and has the descriptor tell of more; how many answers came."""
        try:
            # Those of commands that nobody waits for, too: they must not wake it again.
            came = self.doorbell._collect()
        except Closed:
            came = 0
        left = [(ready, command) for ready, command in self.waiting.items() if not ready.done()]
        for ready, command in left:
            try:
                answer = command.poll()
            except Exception as error:
                ready.set_exception(error)
            else:
                if answer is not None:
                    ready.set_result(answer)
        left = [ready for ready, _ in left if not ready.done()]
        try:
            if left:
                self.watch.arm()
        except Exception as error:
            for ready in left:
                ready.set_exception(error)
        return came

    def woken(self):
        if self.look() == 0 and self.waiting:
            # What woke it is somebody else's, in C++ say, and may stay: not at once again.
            self.loop.remove_reader(self.watch.fileno())
            self.loop.call_later(0.001, self.again)

    def again(self):
        if self.waiting:
            self.loop.add_reader(self.watch.fileno(), self.woken)
            self.look()


async def answer_to(command):
    """The answer to a command, once there is one."""
    answer = command.poll()
    if answer is not None:
        return answer
    loop, doorbell = asyncio.get_running_loop(), command.doorbell
    waits = _Answers.known.setdefault(doorbell, {})
    if loop not in waits:
        waits[loop] = _Answers(doorbell, loop)
    return await waits[loop].wait(command)


class _Asking:
    """Operations of a coordinator that a loop waits for: it asks for all of them, now and then."""
    # By coordinator and loop, while there are any.
    known = weakref.WeakKeyDictionary()
    SHORT, LONG = 0.00005, 0.001

    def __init__(self, coordinator, loop):
        self.coordinator, self.loop, self.waiting, self.timer = coordinator, loop, {}, None
        self.settled, self.pause = None, self.SHORT

    async def wait(self, operation):
        ready = self.loop.create_future()
        self.waiting[ready] = operation
        try:
            self.settled = None
            self.look()
            await ready
        finally:
            del self.waiting[ready]
            if not self.waiting:
                self.timer.cancel()
                del self.known[self.coordinator][self.loop]

    def look(self):
        try:
            settled = self.coordinator._settled()
        except Exception:
            settled = None
        if settled is None or settled != self.settled:
            self.settled, self.pause = settled, self.SHORT
            for ready, operation in self.waiting.items():
                if not ready.done() and _is_done(operation):
                    ready.set_result(None)
        else:
            self.pause = min(2 * self.pause, self.LONG)
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.loop.call_later(self.pause, self.look)


def _is_done(operation):
    try:
        return operation.poll() is not None
    except BaseException:
        # It raises the same again.
        return True


async def done(operation):
    """An operation's completion, once it is done."""
    if not _is_done(operation):
        loop, coordinator = asyncio.get_running_loop(), operation.coordinator
        waits = _Asking.known.setdefault(coordinator, {})
        if loop not in waits:
            waits[loop] = _Asking(coordinator, loop)
        await waits[loop].wait(operation)
    return operation.wait(0)
