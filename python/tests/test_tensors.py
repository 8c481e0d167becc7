"""Tensors by pointer: what is popped is what was pushed, and its memory stays for as long as anybody uses it."""
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumailbox
from lab import (BACKENDS, KINDS, NEVER, SECONDS, Foreign, all_given_back, bits, make, random_rows, still_waits, together,
                 torch, until)

PAIRS = [(backend, dtype) for backend in BACKENDS for dtype in KINDS[backend].dtypes]


def random_of(lab, rng, dtype, count):
    """A base of one dimension: any bits, but of truth values."""
    size = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    raw = rng.integers(0, 2 if dtype == "bool" else 256, count * size, dtype=np.uint8)
    if dtype == "bfloat16":
        return lab.array(raw).view(torch.bfloat16)
    return lab.array(raw.view(dtype))


def same_layout(lab, tensor, array):
    """Strides count where there is a next element."""
    shape, strides = lab.layout(array)
    assert tensor.shape == shape
    if 0 not in shape:
        steps = [(size, stride) for size, stride in zip(shape, strides) if size > 1]
        assert [(size, stride) for size, stride in zip(tensor.shape, tensor.strides) if size > 1] == steps


def passes_through(lab, mailbox, array, dtype, tag):
    expected, pointer = bits(lab.numpy(array)), lab.pointer(array)
    mailbox.push(array, tag)
    tensor = mailbox.pop()
    assert (tensor.data_ptr, tensor.dtype, tensor.tag) == (pointer, dtype, tag)
    same_layout(lab, tensor, array)
    imported = lab.import_(tensor)
    assert bits(lab.numpy(imported)) == expected
    if 0 not in lab.layout(array)[0]:
        assert lab.pointer(imported) == pointer


@pytest.mark.parametrize("backend, dtype", PAIRS)
def test_every_dtype_passes_as_it_is(backend, dtype, rng):
    lab = make(backend)
    mailbox = lab.context.tensor_mailbox(4)
    base = random_of(lab, rng, dtype, 60)
    passes_through(lab, mailbox, base, dtype, int(rng.integers(2**64, dtype=np.uint64)))
    passes_through(lab, mailbox, base.reshape(3, 4, 5), dtype, 0)
    passes_through(lab, mailbox, lab.strided(base, (4, 3), (1, 9), 7), dtype, 2**64 - 1)


@pytest.mark.parametrize("dimensions", range(9))
def test_tensors_of_up_to_eight_dimensions_pass(lab, rng, dimensions):
    mailbox, base = lab.context.tensor_mailbox(2), random_of(lab, rng, "int32", 4000)
    for _ in range(10):
        shape = rng.integers(1, 4, dimensions).tolist()
        strides = rng.integers(0, 90, dimensions).tolist()
        offset = int(rng.integers(0, 1000))
        passes_through(lab, mailbox, lab.strided(base, shape, strides, offset), "int32", dimensions)


@pytest.mark.parametrize("make_layout", [
    lambda base: base[3:], lambda base: base[::7], lambda base: base.reshape(10, 10)[2:9, 3:8],
    lambda base: base.reshape(10, 10).T, lambda base: base.reshape(10, 10)[:, 4], lambda base: base[5:6],
    lambda base: base[:0], lambda base: base.reshape(10, 10)[:0], lambda base: base.reshape(4, 25)[:, :0],
    lambda base: base[17:18].reshape(()),
])
def test_offsets_strides_and_empty_tensors_pass(lab, rng, make_layout):
    mailbox = lab.context.tensor_mailbox(2)
    passes_through(lab, mailbox, make_layout(random_of(lab, rng, "float64", 100)), "float64", 5)


def test_backward_strides_pass_where_arrays_have_them(lab, rng):
    if lab.backend == "host":
        mailbox = lab.context.tensor_mailbox(2)
        passes_through(lab, mailbox, random_of(lab, rng, "int16", 30).reshape(5, 6)[::-1, ::-2], "int16", 9)
    else:
        # PyTorch has none, and says so itself.
        with pytest.raises(ValueError):
            torch.zeros(3)[::-1]


@pytest.mark.parametrize("offset", [0, 3, 4096])
def test_a_tensor_may_begin_within_its_memory(rng, offset):
    lab, values = make("host"), random_rows(rng, 5, 7)
    mailbox, foreign = lab.context.tensor_mailbox(2), Foreign(values, offset=offset)
    mailbox.push(foreign)
    tensor = mailbox.pop()
    assert tensor.data_ptr == lab.pointer(foreign.memory) + offset
    assert bits(lab.numpy(tensor)) == bits(values)


def test_tensors_come_first_in_first_out(lab, rng):
    mailbox, count = lab.context.tensor_mailbox(16), 200
    pushed, popped = 0, 0
    while popped < count:
        for _ in range(min(int(rng.integers(1, 17 - (pushed - popped))), count - pushed) if pushed - popped < 16 else 0):
            mailbox.push(lab.array(np.full(9, pushed, np.int64)), pushed)
            pushed += 1
        for _ in range(int(rng.integers(1, pushed - popped + 1))):
            tensor = mailbox.pop()
            assert tensor.tag == popped and (lab.numpy(tensor) == popped).all()
            popped += 1
    assert mailbox.pop() is None
    del tensor
    all_given_back(mailbox)


def tensors(lab, count):
    return [lab.array(np.full(8, index, np.int32)) for index in range(count)]


def tags(mailbox):
    return [tensor.tag for tensor in iter(mailbox.pop, None)]


def test_a_full_mailbox_rejects_and_leaves_the_tensor_to_its_producer(lab):
    mailbox = lab.context.tensor_mailbox(4)
    made = tensors(lab, 6)
    for index in range(4):
        mailbox.push(made[index], index)
    for index in (4, 5):
        lab.track(made[index])
        with pytest.raises(gpumailbox.Full):
            mailbox.push(made[index], index)
    assert (lab.numpy(made[5]) == 5).all()
    del made[4:]
    assert lab.held() == 0
    stats = mailbox.stats()
    assert (stats["pushed"], stats["refused"], stats["queued"], stats["capacity"]) == (4, 2, 4, 4)
    assert tags(mailbox) == [0, 1, 2, 3]
    all_given_back(mailbox)


@pytest.mark.parametrize("policy, left", [("overwrite_oldest", [3, 4, 5, 6]), ("latest", [6])])
def test_newer_tensors_take_the_place_of_older_ones_which_go_back(lab, policy, left):
    mailbox = lab.context.tensor_mailbox(4, full_policy=policy)
    assert mailbox.stats()["full_policy"] == policy
    made = tensors(lab, 7)
    for index in range(7):
        lab.track(made[index])
        mailbox.push(made[index], index)
    del made
    until(lambda: mailbox.stats()["released"] == 7 - len(left), lambda: f"replaced ones go back: {mailbox.stats()}")
    assert mailbox.stats()["dropped"] == 7 - len(left)
    assert tags(mailbox) == left
    all_given_back(mailbox)
    if lab.backend == "host":
        assert lab.held() == 0


def test_waiting_for_room_times_out_and_ends_when_somebody_pops(lab):
    mailbox = lab.context.tensor_mailbox(2, full_policy="wait")
    made = tensors(lab, 3)
    for index in range(2):
        mailbox.push(made[index], index)
    for timeout in (0, NEVER):
        with pytest.raises(gpumailbox.TimedOut):
            mailbox.push(made[2], 2, timeout=timeout)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(mailbox.push, made[2], 2, timeout=SECONDS)
        still_waits(pushed)
        assert mailbox.pop().tag == 0
        pushed.result(SECONDS)
    assert tags(mailbox) == [1, 2]
    all_given_back(mailbox)


def test_memory_is_given_back_after_the_release_and_not_before(lab):
    mailbox = lab.context.tensor_mailbox(4)
    array = lab.track(lab.array(np.arange(100000, dtype=np.float32)))
    mailbox.push(array)
    del array
    assert lab.held() > 0
    tensor = mailbox.pop()
    assert mailbox.stats()["leases"] == 1 and lab.held() > 0
    imported = lab.import_(tensor)
    tensor.release()
    del tensor
    # What was made of it holds it, too.
    assert mailbox.stats()["released"] == 0 and lab.held() > 0
    assert (lab.numpy(imported) == np.arange(100000, dtype=np.float32)).all()
    del imported
    all_given_back(mailbox)
    until(lambda: lab.held() == 0, "the producer has its memory back")


@pytest.mark.parametrize("held", [1, 5])
def test_consumers_still_read_what_the_producer_deleted_and_allocated_over(lab, rng, held):
    mailbox, taken = lab.context.tensor_mailbox(8), []
    for round in range(300):
        values = rng.integers(0, 2**31, 3000, dtype=np.int32)
        array = lab.array(values)
        mailbox.push(array, round)
        del array
        # Its memory, if it were free, would be this.
        poison = [lab.array(np.full(3000, -1, np.int32)) for _ in range(2)]
        taken.append((lab.import_(mailbox.pop()), values))
        if len(taken) == held:
            for imported, expected in taken:
                assert bits(lab.numpy(imported)) == bits(expected)
            # The loop's own names hold one, too.
            del imported, expected
            taken.clear()
        del poison
    taken.clear()
    all_given_back(mailbox)
    assert mailbox.stats()["pushed"] == 300


def test_a_pop_waits_for_a_push_of_another_thread(lab):
    mailbox = lab.context.tensor_mailbox(4)
    assert mailbox.pop() is None and mailbox.pop(timeout=NEVER) is None
    with ThreadPoolExecutor(1) as pool:
        popped = pool.submit(mailbox.pop, timeout=SECONDS)
        still_waits(popped)
        mailbox.push(lab.array(np.arange(5)), 42)
        tensor = popped.result(SECONDS)
    assert tensor.tag == 42 and lab.numpy(tensor).tolist() == [0, 1, 2, 3, 4]


def test_producers_and_consumers_on_threads_lose_and_double_nothing(lab):
    mailbox, each = lab.context.tensor_mailbox(8, full_policy="wait"), 150

    def produce(first):
        def work():
            for tag in range(first, first + each):
                mailbox.push(lab.array(np.full(64, tag, np.int64)), tag, timeout=SECONDS)
            return []
        return work

    def consume():
        got = []
        for _ in range(each):
            tensor = mailbox.pop(timeout=SECONDS)
            assert (lab.numpy(tensor) == tensor.tag).all()
            got.append(tensor.tag)
        return got

    done = together(produce(0), produce(1000), consume, consume)
    assert sorted(sum(done, [])) == [*range(each), *range(1000, 1000 + each)]
    for got in done[2:]:
        # Each consumer sees each producer's tensors in their order.
        assert [tag for tag in got if tag < 1000] == sorted(tag for tag in got if tag < 1000)
    all_given_back(mailbox)


@pytest.mark.parametrize("how", ["close", "with", "del"])
def test_a_mailbox_that_ends_gives_its_tensors_back(lab, how):
    mailbox = lab.context.tensor_mailbox(8)
    for _ in range(5):
        array = lab.track(lab.array(np.zeros(5000)))
        mailbox.push(array)
        del array
    assert lab.held() > 0
    if how == "close":
        mailbox.close()
        mailbox.close()
    elif how == "with":
        with mailbox:
            pass
    else:
        del mailbox
    until(lambda: lab.held() == 0, "the tensors that nobody popped go back")


def test_closing_wakes_a_pop_that_waits(lab):
    mailbox = lab.context.tensor_mailbox(8)
    with ThreadPoolExecutor(1) as pool:
        popped = pool.submit(mailbox.pop, timeout=None)
        still_waits(popped)
        mailbox.close()
        with pytest.raises(gpumailbox.Closed):
            popped.result(SECONDS)


def test_leases_outlive_mailbox_and_context(lab):
    mailbox = lab.context.tensor_mailbox(8)
    array = lab.track(lab.array(np.arange(7000.0)))
    mailbox.push(array, 3)
    del array
    tensor = mailbox.pop()
    mailbox.close()
    lab.context.close()
    del mailbox
    gc.collect()
    assert tensor.tag == 3 and (lab.numpy(tensor) == np.arange(7000.0)).all()
    imported = lab.import_(tensor)
    tensor.release()
    assert (lab.numpy(imported) == np.arange(7000.0)).all() and lab.held() > 0
    del imported, tensor
    until(lambda: lab.held() == 0, "the lease goes back without mailbox and context")


def test_a_tensor_is_popped_once_and_imported_any_number_of_times(lab):
    mailbox = lab.context.tensor_mailbox(2)
    mailbox.push(lab.array(np.arange(9)))
    tensor = mailbox.pop()
    several = [lab.import_(tensor) for _ in range(5)]
    capsules = [tensor.__dlpack__(max_version=(1, 0)), tensor.__dlpack__()]
    assert [repr(capsule).split('"')[1] for capsule in capsules] == ["dltensor_versioned", "dltensor"]
    assert len({lab.pointer(one) for one in several}) == 1 and mailbox.pop() is None
    del tensor, capsules, several[1:]
    assert (lab.numpy(several[0]) == np.arange(9)).all() and mailbox.stats()["released"] == 0
    several.clear()
    all_given_back(mailbox)


def test_a_popped_tensor_goes_on_to_the_next_mailbox(lab):
    first, second = lab.context.tensor_mailbox(2), lab.context.tensor_mailbox(2)
    array = lab.array(np.arange(11))
    pointer = lab.pointer(array)
    first.push(array, 1)
    del array
    second.push(first.pop(), 2)
    assert first.stats()["released"] == 0
    tensor = second.pop()
    assert (tensor.data_ptr, tensor.tag) == (pointer, 2) and (lab.numpy(tensor) == np.arange(11)).all()
    del tensor
    for mailbox in (second, first):
        all_given_back(mailbox)
