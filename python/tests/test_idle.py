"""What waiting costs: the time that the thread was on a core, as a part of the time that it waited. A loaded machine makes that
less, never more."""
import time

import pytest

import gpumailbox
from bells import PING

# Long enough that the looks at the beginning are little of it.
WHILE = 2.0


def percent(wait):
    began, used = time.monotonic(), time.thread_time()
    wait()
    return 100 * (time.thread_time() - used) / (time.monotonic() - began)


def answer(context):
    doorbell = context.doorbell(4)
    command = doorbell.submit(PING)
    with pytest.raises(TimeoutError):
        command.wait(WHILE)


def room(context, wanted):
    doorbell = context.doorbell(64)
    some = [doorbell.submit(PING) if n < wanted else doorbell.post(PING) for n in range(64)]
    with pytest.raises(gpumailbox.Full):
        doorbell.submit(PING, timeout=WHILE)
    assert len(some) == 64


def record(context):
    assert len(context.fifo(64).pop(8, WHILE)) == 0


@pytest.mark.parametrize("wait", [answer, lambda context: room(context, 0), lambda context: room(context, 64), record],
                         ids=["answer", "room beside posts", "room beside commands", "record"])
def test_who_waits_costs_little(lab, wait):
    assert percent(lambda: wait(lab.context)) < 5

