#!/usr/bin/env python3
"""Pushes and pops in torch.cuda.graph, in its global mode, while threads of the library and of the program are busy
with it. Usage: capture.py LIBGPUMAILBOX.SO. Prints its totals; fails on the first difference from a model."""
import collections
import ctypes
import random
import select
import sys
import threading

import torch

WAIT_FOREVER = AFTER_LAST = ctypes.c_uint64(2**64 - 1)
PAYLOAD, CAPACITY, MOST, LAUNCHES = 64, 256, 48, 500


class MailboxOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("payload_bytes", ctypes.c_uint32), ("capacity", ctypes.c_uint64),
                ("arbitration", ctypes.c_int32), ("full_policy", ctypes.c_int32), ("producer_id", ctypes.c_uint32),
                ("consumer_id", ctypes.c_uint32), ("initial_index", ctypes.c_uint64), ("flags", ctypes.c_uint32),
                ("readers", ctypes.c_uint32)]


class Push(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("count", ctypes.c_uint32), ("records", ctypes.c_void_p),
                ("stride", ctypes.c_uint64), ("lengths", ctypes.c_void_p), ("types", ctypes.c_void_p),
                ("length", ctypes.c_uint32), ("msg_type", ctypes.c_uint32), ("timeout_ns", ctypes.c_uint64)]


class Pop(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("max", ctypes.c_uint32), ("records", ctypes.c_void_p),
                ("stride", ctypes.c_uint64), ("headers", ctypes.c_void_p), ("reader", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]


class Result(ctypes.Structure):
    _fields_ = [("epoch", ctypes.c_uint32), ("count", ctypes.c_uint32), ("status", ctypes.c_int32),
                ("flags", ctypes.c_uint32), ("lost", ctypes.c_uint64)]


library = ctypes.CDLL(sys.argv[1])


def call(name, *arguments):
    status = getattr(library, f"gmb_{name}")(*arguments)
    if status < 0:
        message = ctypes.create_string_buffer(1024)
        library.gmb_last_error_message(message, ctypes.c_size_t(len(message)), None)
        raise RuntimeError(f"gmb_{name}: {status}: {message.value.decode()}")
    return status


def handle(name, *arguments):
    made = ctypes.c_uint64()
    call(name, *arguments, ctypes.byref(made))
    return made


def here():
    """The current torch stream."""
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def push(box, rows, count, token=ctypes.c_uint64(0)):
    made = Push(ctypes.sizeof(Push), count, rows.data_ptr(), 0, None, None, PAYLOAD, 0, 0)
    call("mailbox_push", box, ctypes.byref(made), here(), token)


def pop(box, rows, most, token=ctypes.c_uint64(0)):
    made = Pop(ctypes.sizeof(Pop), most, rows.data_ptr(), 0, None, 0, 0)
    call("mailbox_pop", box, ctypes.byref(made), here(), token)


def wait(token, after):
    result = Result()
    call("token_wait", token, after, ctypes.c_uint64(20 * 10**9), ctypes.byref(result))
    if result.status != 0:
        raise RuntimeError(f"an operation ended with {result.status}")
    return result


def expect(got, wanted, what):
    if got != wanted:
        raise SystemExit(f"error: {what}: {got}, expected {wanted}")


def main():
    seed = random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    choose = random.Random(seed)
    context = handle("context_create", None)
    options = MailboxOptions(ctypes.sizeof(MailboxOptions), PAYLOAD, CAPACITY, 0, 0, 0, 0, 0, 0, 0)
    box = handle("mailbox_create", context, ctypes.byref(options))
    pushed, popped, counted = (handle("token_create", context) for _ in range(3))
    words = PAYLOAD // 4
    source = torch.zeros(MOST, words, dtype=torch.int32, device="cuda")
    out = torch.full((MOST, words), -1, dtype=torch.int32, device="cuda")
    doubled = torch.empty_like(out)
    other = torch.cuda.Stream()
    rest = torch.full((CAPACITY, words), -1, dtype=torch.int32, device="cuda")

    # Somebody is busy with the library all the time: a watching thread, and one that asks and allocates.
    watch = handle("watch_create", box, 0, 0)
    descriptor = ctypes.c_int32()
    call("watch_get_fd", watch, ctypes.byref(descriptor))
    ended, asked = threading.Event(), 0

    def ask():
        nonlocal asked
        torch.cuda.set_device(0)
        event = handle("event_create", context, 0)
        result, memory = Result(), ctypes.c_void_p()
        while not ended.is_set():
            call("watch_arm", watch, CAPACITY)
            select.select([descriptor.value], [], [], 0.001)
            call("event_query", event)
            call("memory_allocate", context, ctypes.c_uint64(4096), ctypes.byref(memory))
            call("memory_free", context, memory)
            library.gmb_token_poll(popped, ctypes.byref(result))
            asked += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            source.add_(1)
            push(box, source, MOST, pushed)
            pop(box, out, MOST // 2, popped)
            torch.mul(out, 2, out=doubled)
        model, value = collections.deque(), 0
        for launch in range(1, LAUNCHES + 1):
            graph.replay()
            value += 1
            accepted = min(MOST, CAPACITY - len(model))
            model.extend([value] * accepted)
            expect(wait(pushed, ctypes.c_uint64(launch - 1)).count, accepted, f"launch {launch}: pushed")
            came = wait(popped, ctypes.c_uint64(launch - 1))
            count = min(MOST // 2, len(model))
            taken = [model.popleft() for _ in range(count)]
            expect((came.epoch, came.count), (launch, count), f"launch {launch}: epoch and count")
            torch.cuda.current_stream().synchronize()
            expect(out[:count, words - 1].tolist(), taken, f"launch {launch}: what came out")
            expect(doubled[:count, 0].tolist(), [2 * v for v in taken], f"launch {launch}: what was made of it")
            # On another stream, without a graph, right behind a launch that nobody waited for.
            if choose.random() < 0.3:
                most = choose.randrange(1, CAPACITY)
                with torch.cuda.stream(other):
                    pop(box, rest, most, counted)
                count = min(most, len(model))
                taken = [model.popleft() for _ in range(count)]
                expect(wait(counted, AFTER_LAST).count, count, f"beside launch {launch}")
                other.synchronize()
                expect(rest[:count, 0].tolist(), taken, f"beside launch {launch}: what came out")
    finally:
        ended.set()
        asking.join()
    if asked == 0:
        raise SystemExit("error: nobody was busy with the library meanwhile")
    # The graph keeps the mailbox and the tokens.
    for name, object_ in (("watch", watch), ("mailbox", box), ("token", pushed), ("token", popped), ("token", counted)):
        call(f"{name}_destroy", object_)
    graph.replay()
    torch.cuda.synchronize()
    del graph
    call("context_destroy", context)
    print(f"torch.cuda.graph: {LAUNCHES} launches as the model says, {asked} rounds of other calls meanwhile")


main()
