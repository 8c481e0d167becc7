"""Doorbells: each command has its own answer."""
import ctypes
import gc
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from bells import PING, COUNTS, USER, WORD, served, words, outstanding, readable
from children import child, finished as ended, run
from gpumailbox import Answer, Cancelled, Closed, Doorbell, Error
from gpumailbox import Full, InvalidArgument, NotServed, NotSupported, TimedOut
from items import NUMBER, contents, queues
from lab import NEVER, SECONDS, c_library, raises, read_word, still_waits, together, until, write_word


# -- Doorbells --

def test_a_ping_is_answered_with_its_arguments(lab, rng):
    doorbell = lab.context.doorbell()
    assert doorbell.capacity == 64 and (PING, COUNTS, USER) == (1, 2, 16)
    with served(lab, doorbell):
        for count in range(4):
            values = words(rng, count)
            answer = doorbell.call(PING, *values, timeout=SECONDS)
            assert type(answer) is Answer and (answer.status, answer.flags) == (0, 0)
            assert answer.value == values + (0,) * (3 - count) and str(answer.value) in repr(answer)
        assert doorbell.call(PING, WORD - 1, 0, WORD - 1).value == (WORD - 1, 0, WORD - 1)
        assert doorbell.stats() == dict(capacity=64, submitted=5, outstanding=0, served=True)
    assert doorbell.stats()["served"] is False


@pytest.mark.parametrize("blocks", [1, 2])
def test_threads_get_the_answers_to_their_own_commands(lab, rng, blocks):
    doorbell, threads, count = lab.context.doorbell(8), 4, 300
    seeds = rng.integers(0, 2**32, threads)

    def work(thread):
        mine, out = np.random.default_rng(seeds[thread]), []
        for _ in range(count):
            what, values = int(mine.integers(4)), words(mine)
            if what == 0:
                assert doorbell.call(PING, *values, timeout=SECONDS).value == values
            elif what == 1:
                doorbell.post(PING, *values, timeout=SECONDS)
            else:
                # More than there is room for at once: answers that are there take none.
                out.append((doorbell.submit(PING, *values, timeout=SECONDS), values))
            if out and int(mine.integers(5)) == 0:
                command, values = out.pop(int(mine.integers(len(out))))
                assert command.wait(SECONDS).value == values and command.poll().value == values
        for command, values in out:
            assert command.wait(SECONDS).value == values

    with served(lab, doorbell, slice=0.003, grid_blocks=blocks):
        together(*[lambda thread=thread: work(thread) for thread in range(threads)])
        until(lambda: doorbell.call(PING, timeout=SECONDS) and doorbell.stats()["outstanding"] == 0, doorbell.stats)
    assert doorbell.stats()["submitted"] >= threads * count


def test_a_command_that_many_wait_for_has_one_answer(lab, rng):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for _ in range(50):
            values = words(rng)
            command = doorbell.submit(PING, *values)

            def polled():
                until(command.poll, "it is answered")
                return command.poll()

            def swept():
                doorbell.stats()
                return command.wait(SECONDS)

            answers = together(lambda: command.wait(SECONDS), polled, swept, lambda: command.wait())
            assert [answer.value for answer in answers] == [values] * 4
    assert doorbell.stats()["outstanding"] == 0


def test_a_worker_that_is_busy_tells_how_far_it_is(lab):
    active, finished = queues(lab, 2)
    doorbell = lab.context.doorbell(4)
    active.push_from_host(np.arange(1000))
    with lab.context.worker(active, finished, grid_blocks=2, doorbell=doorbell) as worker:
        worker.start()
        until(lambda: doorbell.call(COUNTS, timeout=SECONDS).value == (1000, 1000, 0), worker.stats)
        worker.stop()
        assert worker.wait(SECONDS).processed == 1000
    assert sorted(contents(finished)) == list(range(1, 1001))


def test_what_a_worker_does_not_know_raises(lab):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for code in (0, 3, USER, 2**32 - 1):
            raises(NotSupported, lambda: doorbell.call(code, timeout=SECONDS), "command")
            command = doorbell.submit(code)
            for call in (lambda: command.wait(SECONDS), command.poll):
                raises(NotSupported, call, "command")
            # It was answered: there is nothing left to cancel.
            command.cancel()
            raises(NotSupported, command.wait)
        assert doorbell.call(PING, 7).value == (7, 0, 0)


def test_a_full_doorbell_says_so(lab, rng):
    doorbell = lab.context.doorbell(4)
    all_words = [words(rng) for _ in range(4)]
    commands = [doorbell.submit(PING, *values, timeout=0) for values in all_words]
    for timeout in (0, NEVER):
        for call in (doorbell.submit, doorbell.post, doorbell.call):
            raises(Full, lambda: call(PING, 5, timeout=timeout), "4 commands")
        raises(TimedOut, lambda: commands[0].wait(timeout), "answer")
    assert commands[0].poll() is None and "not answered" in repr(commands[0])
    assert doorbell.stats() == dict(capacity=4, submitted=4, outstanding=4, served=False)
    with ThreadPoolExecutor(1) as pool:
        # It waits for room, and others go on.
        late = pool.submit(lambda: doorbell.submit(PING, 99))
        still_waits(late)
        with served(lab, doorbell):
            assert late.result(SECONDS).wait(SECONDS).value == (99, 0, 0)
            for command, values in zip(reversed(commands), reversed(all_words)):
                assert command.wait(SECONDS).value == values and "status 0" in repr(command)
            # Answers that nobody has asked for yet take no room, and are not lost.
            many = [doorbell.submit(PING, n, timeout=SECONDS) for n in range(100)]
            assert [command.wait(SECONDS).value[0] for command in many] == list(range(100))


def test_answers_that_nobody_wants_take_no_room(lab):
    doorbell = lab.context.doorbell(4)
    with served(lab, doorbell):
        for n in range(300):
            doorbell.post(PING, n, timeout=SECONDS)
            # Nobody has it any more, and it goes on.
            doorbell.submit(PING, n, timeout=SECONDS)
        assert doorbell.call(PING, 1, timeout=SECONDS).value == (1, 0, 0)
    assert doorbell.stats()["submitted"] == 601


def test_without_room_all_answers_that_are_there_are_taken(lab, rng):
    doorbell = lab.context.doorbell(4)
    watch = doorbell.watch()
    with served(lab, doorbell):
        for submit in (doorbell.submit, doorbell.post, doorbell.call):
            all_words = [words(rng) for _ in range(4)]
            commands = [doorbell.submit(PING, *values, timeout=0) for values in all_words]
            watch.arm(4)
            assert readable(watch) and outstanding(doorbell) == 4
            # Nobody has asked for one.
            assert all("not answered yet" in repr(command) for command in commands)
            # With no time to wait, too: all answers are their commands' now, and what is under way is this one.
            last = submit(PING, timeout=SECONDS if submit == doorbell.call else 0)
            assert all("status 0" in repr(command) for command in commands), commands
            assert outstanding(doorbell) <= 1
            assert [command.poll().value for command in commands] == all_words
            if submit == doorbell.submit:
                last.wait(SECONDS)
            elif submit == doorbell.post:
                # Until it is answered its place is taken.
                assert doorbell.call(PING, timeout=SECONDS).status == 0


def test_commands_that_nobody_has_any_more_are_forgotten(lab, rng):
    doorbell = lab.context.doorbell(8)
    watch, count = doorbell.watch(), int(rng.integers(1, 8))
    commands = [doorbell.submit(PING, n, timeout=0) for n in range(8)]
    rng.shuffle(commands)
    # They are done, and their answers wake nobody.
    del commands[:count]
    with served(lab, doorbell):
        watch.arm(8 - count)
        assert readable(watch)
        for command in commands:
            command.wait(SECONDS)
        watch.arm()
        assert not readable(watch, NEVER)
        # Answered, and dropped.
        done = doorbell.submit(PING, timeout=SECONDS)
        watch.arm()
        assert readable(watch)
        del done
        watch.arm()
        assert not readable(watch, NEVER)
        # Each place is needed once.
        for n in range(8):
            assert doorbell.call(PING, n, timeout=SECONDS).value[0] == n
        assert outstanding(doorbell) == 0


def test_cancelled_commands_are_not_done(lab, rng):
    doorbell = lab.context.doorbell(16)
    commands = [doorbell.submit(PING, n) for n in range(10)]
    gone = set(map(int, rng.choice(10, 4, replace=False)))
    for n in gone:
        commands[n].cancel()
        # Twice is once.
        commands[n].cancel()
        assert commands[n].poll() is None
    with served(lab, doorbell):
        for n, command in enumerate(commands):
            if n in gone:
                raises(Cancelled, lambda: command.wait(SECONDS), "cancelled")
            else:
                assert command.wait(SECONDS).value[0] == n
            # Too late is no error, and changes nothing.
            command.cancel()
        raises(Cancelled, commands[min(gone)].wait, "cancelled")


def test_a_call_that_is_late_is_cancelled(lab):
    doorbell = lab.context.doorbell(2)
    for timeout in (0, NEVER):
        raises(TimedOut, lambda: doorbell.call(USER, timeout=timeout), "cancelled")
    raises(Full, lambda: doorbell.call(USER, timeout=NEVER), "2 commands")
    # As a kernel finds them: in a slot of eight words the second one's lower half has the flags, GMB_COMMAND_CANCELLED.
    ring = read_word(lab, doorbell.address + 16)
    assert [read_word(lab, ring + slot * 64 + 8) % 2**32 for slot in range(2)] == [1 << 31] * 2
    with served(lab, doorbell):
        # The worker would say that it does not know the code; nobody asks, and the room comes back.
        assert [doorbell.call(PING, n, timeout=SECONDS).value[0] for n in range(5)] == list(range(5))
        until(lambda: doorbell.stats()["outstanding"] == 0, doorbell.stats)


def test_commands_that_a_worker_leaves_are_not_served(lab):
    doorbell, (active,) = lab.context.doorbell(4), queues(lab, 1)
    with lab.context.worker(active, doorbell=doorbell) as worker:
        for round in range(20):
            early = doorbell.submit(PING, round, timeout=0)
            worker.start()
            if round % 2 == 0:
                assert early.wait(SECONDS).value[0] == round
            worker.stop()
            late = doorbell.submit(PING, round, timeout=0)
            worker.wait(SECONDS)
            for command in (early, late):
                try:
                    assert command.wait(NEVER if command is late else SECONDS).value[0] == round
                except NotServed as error:
                    assert error.name == "NOT_SERVED" and "ended" in str(error) and not (command is early and round % 2 == 0)
                except TimedOut:
                    # It came when all others were answered: it is for the next run.
                    worker.start()
                    assert command.wait(SECONDS).value[0] == round
                    worker.stop()
                    worker.wait(SECONDS)
            assert doorbell.stats()["outstanding"] == 0


def test_a_doorbell_is_served_by_one_worker_after_another(lab):
    doorbell, two = lab.context.doorbell(4), queues(lab, 2)
    for _ in range(3):
        command = doorbell.submit(PING, 5)
        with served(lab, doorbell) as worker:
            assert command.wait(SECONDS).value == (5, 0, 0) and doorbell.stats()["served"]
            raises(Error, lambda: lab.context.worker(two[0], doorbell=doorbell), "BUSY", "doorbell")
            raises(Error, doorbell.close, "BUSY", "worker")
            with pytest.raises(Error, match="BUSY"):
                with doorbell:
                    pass
            assert "closed" not in repr(doorbell) and worker.stats()["state"] == "running"
    doorbell.close()
    raises(Closed, lambda: lab.context.worker(two[0], doorbell=doorbell), "doorbell", "closed")
    assert two[0].stats()["workers"] == 0


def test_a_worker_keeps_its_doorbell_and_a_command_keeps_both(lab):
    before = lab.context.memory()["used"]
    active, = queues(lab, 1)
    doorbell = lab.context.doorbell()
    worker = lab.context.worker(active, doorbell=doorbell)
    worker.start()
    command = doorbell.submit(PING, 3)
    del doorbell
    assert command.wait(SECONDS).value == (3, 0, 0)
    again = command.doorbell.submit(PING, 4)
    assert again.doorbell is command.doorbell and again.wait(SECONDS).value == (4, 0, 0)
    del command, again, worker, active
    gc.collect()
    assert lab.context.memory()["used"] == before


def test_closing_wakes_who_waits(lab):
    doorbell = lab.context.doorbell(2)
    commands = [doorbell.submit(PING, n) for n in range(2)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(commands[1].wait), pool.submit(commands[1].wait, 1000), pool.submit(doorbell.post, PING),
                   pool.submit(doorbell.submit, PING)]
        for one in waiting:
            still_waits(one)
        doorbell.close()
        for one in waiting:
            with pytest.raises(Closed, match="doorbell|handle"):
                one.result(SECONDS)
    assert "closed" in repr(doorbell)
    doorbell.close()
    for call in (doorbell.stats, doorbell.watch, commands[0].wait, commands[0].poll, commands[0].cancel,
                 lambda: doorbell.submit(PING), lambda: doorbell.post(PING), lambda: doorbell.call(PING, timeout=1),
                 lambda: doorbell.handle, lambda: doorbell.address):
        raises(Closed, call, "doorbell", "closed")


def test_an_answer_stays_when_the_doorbell_is_closed(lab):
    with lab.context.doorbell(2) as doorbell:
        with served(lab, doorbell):
            done = doorbell.submit(PING, 1)
            assert done.wait(SECONDS).value == (1, 0, 0)
    done.cancel()
    assert done.wait(0).value == done.poll().value == (1, 0, 0)


def test_a_closed_context_closes_both(lab):
    context = gpumailbox.Context(lab.backend)
    doorbell, fifo = context.doorbell(2), context.fifo(2)
    command = doorbell.submit(PING)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(command.wait), pool.submit(fifo.pop, 1)]
        for one in waiting:
            still_waits(one)
        context.close()
        for one in waiting:
            with pytest.raises(Closed, match="context"):
                one.result(SECONDS)
    for call in (context.doorbell, context.fifo, doorbell.stats, fifo.stats, lambda: doorbell.submit(PING), command.wait):
        raises(Closed, call, "context")
    doorbell.close()
    fifo.close()


@pytest.mark.parametrize("ring", ["commands", "answers"])
def test_what_was_spoilt_is_told(lab, ring):
    doorbell, (active,) = lab.context.doorbell(2), queues(lab, 1)
    # gmb_doorbell_header: magic, version, capacity, commands, answers.
    at = read_word(lab, doorbell.address + {"commands": 16, "answers": 24}[ring])
    command = doorbell.submit(PING, 1)
    # Of eight words the second, and of an answer the last, at which one who waits looks first.
    write_word(lab, at + {"commands": 8, "answers": 56}[ring], 77 << 32)
    if ring == "answers":
        for call in (lambda: command.wait(SECONDS), command.poll):
            raises(Error, call, "CORRUPT", "something else wrote")
        # There is room for one more; the spoilt one keeps its own, and who needs that hears of it.
        doorbell.post(PING, timeout=0)
        raises(Error, lambda: doorbell.submit(PING, timeout=NEVER), "CORRUPT", "something else wrote")
        assert doorbell.stats()["outstanding"] == 2
        return
    with lab.context.worker(active, doorbell=doorbell) as worker:
        worker.start()
        raises(Error, lambda: worker.wait(SECONDS), "CORRUPT", "doorbell")
        raises(NotServed, lambda: command.wait(SECONDS), "ended")


def test_something_that_is_no_doorbell_is_not_served(lab):
    doorbell, (active,) = lab.context.doorbell(2), queues(lab, 1)
    write_word(lab, doorbell.address, 1)
    with lab.context.worker(active, doorbell=doorbell) as worker:
        worker.start()
        raises(Error, lambda: worker.wait(SECONDS), "CORRUPT", "doorbell")


def test_doorbells_and_commands_that_cannot_be(lab):
    for capacity in (0, 3, 100, 2**21, 2**40):
        for make_one in (lab.context.doorbell, lab.context.fifo):
            raises(InvalidArgument, lambda: make_one(capacity), str(capacity))
    for capacity in (-8, 2**64, None, 8.0, "8"):
        for make_one in (lab.context.doorbell, lab.context.fifo):
            with pytest.raises(NUMBER):
                make_one(capacity)
    doorbell = lab.context.doorbell(4)
    for call in (doorbell.submit, doorbell.post, doorbell.call):
        raises(InvalidArgument, lambda: call(PING, 1, 2, 3, 4), "4 arguments", "three")
        for wrong in ((-1,), (2**32,), ("1",), (None,), (1.0,), (PING, -1), (PING, 2**64), (PING, 0, "2"), (PING, 0, 0, 1.5)):
            with pytest.raises((OverflowError, TypeError)):
                call(*wrong)
        with pytest.raises(TypeError):
            call()
        for timeout in (-1, float("nan")):
            raises(InvalidArgument, lambda: call(PING, timeout=timeout), "timeout")
    command = doorbell.submit(PING)
    raises(InvalidArgument, lambda: command.wait(-1), "timeout")
    assert doorbell.stats()["submitted"] == 1
    stranger = gpumailbox.Context(lab.backend)
    raises(InvalidArgument, lambda: stranger.worker(stranger.queue(8, dtype="int32"), doorbell=doorbell), "context")
    for wrong in (5, "doorbell", lab.context.fifo(2)):
        with pytest.raises(TypeError):
            lab.context.worker(lab.context.queue(8, dtype="int32"), doorbell=wrong)
    for kind in (Doorbell, gpumailbox.Command, gpumailbox.Fifo, Answer):
        with pytest.raises(TypeError):
            kind()


def test_the_block_that_serves_counts(lab):
    active, doorbell = lab.context.queue(8, dtype="int32"), lab.context.doorbell(2)
    most = lab.context.worker(active).stats()["most_blocks"]
    raises(InvalidArgument, lambda: lab.context.worker(active, grid_blocks=most, doorbell=doorbell), "grid_blocks")
    assert doorbell.stats()["served"] is False
    lab.context.worker(active, grid_blocks=most - 1, doorbell=doorbell).close()


def test_handles_are_those_of_the_c_api(lab):
    doorbell, fifo, c = lab.context.doorbell(8), lab.context.fifo(16), c_library()
    # gmb_doorbell_info, gmb_fifo_info: the capacity first.
    for get, of, capacity, words_of in ((c.gmb_doorbell_get_info, doorbell, 8, 5), (c.gmb_fifo_get_info, fifo, 16, 3)):
        info = (ctypes.c_uint64 * words_of)()
        assert get(ctypes.c_uint64(of.handle), info, ctypes.c_size_t(ctypes.sizeof(info))) == 0
        assert info[0] == capacity and of.address in list(info)
    magic = {doorbell: b"GMBRINGS", fifo: b"GMBFIFOS"}
    for of, text in magic.items():
        assert read_word(lab, of.address).to_bytes(8, "big") in (text, text[::-1])


# -- Processes --

START = """
    doorbell, fifo = context.doorbell(2), context.fifo(2)
    command = doorbell.submit(1, 5)
    doorbell.post(1)
    queue = context.queue(64, item_bytes=4)
"""


@pytest.mark.parametrize("work", ["command.wait()", "command.wait(timeout=1000)", "doorbell.submit(1)", "doorbell.call(1)",
                                  "doorbell.post(1, timeout=1000)", "fifo.pop(4)", "fifo.pop(4, timeout=1000)"])
def test_ctrl_c_ends_a_wait(prelude, work):
    process = child(prelude + textwrap.dedent(START) + textwrap.dedent(f"""
        main, line = threading.main_thread().ident, [0]
        def tell():
            # Once the main thread is in the line that waits.
            while sys._current_frames()[main].f_lineno != line[0]: pass
            print("waits", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        try:
            line[0] = sys._getframe().f_lineno + 1
            {work}
        except KeyboardInterrupt:
            with context.worker(queue, doorbell=doorbell) as worker:
                worker.start()
                print("interrupted", command.wait().value, doorbell.call(1, 6).value[0])
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    assert ended(process) == "interrupted (5, 0, 0) 6\n"


def test_a_call_that_ctrl_c_ends_is_cancelled(prelude):
    process = child(prelude + textwrap.dedent("""
        doorbell, queue = context.doorbell(2), context.queue(64, item_bytes=4)
        main = threading.main_thread().ident
        def tell():
            # It is under way.
            while doorbell.stats()["submitted"] == 0: pass
            print("waits", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        try:
            doorbell.call(1, 5)
        except KeyboardInterrupt:
            with context.worker(queue, doorbell=doorbell) as worker:
                worker.start()
                print("interrupted", doorbell.call(1, 6).value[0], doorbell.call(1, 7).value[0],
                      doorbell.stats()["outstanding"])
    """))
    assert process.stdout.readline() == "waits\n", process.communicate()
    process.send_signal(signal.SIGINT)
    # The second one has taken its place.
    assert ended(process) == "interrupted 6 7 0\n"


def test_a_process_ends_with_whatever_is_out(prelude):
    out = run(prelude, textwrap.dedent(START) + textwrap.dedent("""
        worker = context.worker(queue, doorbell=doorbell)
        worker.start()
        assert command.wait().value == (5, 0, 0)
        late, watches = doorbell.submit(1, 6), [doorbell.watch(), fifo.watch()]
        watches[1].arm()
        threading.Thread(target=fifo.pop, args=(4,), daemon=True).start()
        sys.modules["held"] = [worker, doorbell, fifo, late]
        print("done")
    """))
    assert out == "done\n"
