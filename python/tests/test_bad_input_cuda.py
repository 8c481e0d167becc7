"""What can be wrong with tensors of PyTorch, and with those that lie elsewhere."""
import numpy as np
import pytest

import gpumailbox
from gpumailbox import InvalidArgument, InvalidDevice, NotSupported
from lab import cuda as lab
from lab import raises, torch


def test_what_lies_on_the_cpu_is_refused_and_told_where_it_is(lab):
    box, tensors = lab.context.mailbox(8, 64), lab.context.tensor_mailbox(2)
    good = lab.poisoned(4, 64)
    rows = torch.ones(4, 64, dtype=torch.uint8)
    for wrong in (rows, np.ones((4, 64), np.uint8), rows.pin_memory()):
        raises(InvalidDevice, lambda: box.push(wrong), "CPU")
        raises(InvalidDevice, lambda: tensors.push(wrong))
        raises(InvalidDevice, lambda: box.pop(4, out=wrong))
    words = torch.ones(4, dtype=torch.int32)
    raises(InvalidDevice, lambda: box.push(good, lengths=words), "lengths")
    raises(InvalidDevice, lambda: box.push(good, types=words), "types")
    assert box.stats()["published"] == 0 and tensors.stats()["pushed"] == 0


def test_what_lies_on_the_gpu_is_refused_by_the_host(lab):
    host = gpumailbox.Context("host")
    for push in (host.mailbox(8, 64).push, host.tensor_mailbox(2).push):
        with pytest.raises((InvalidDevice, InvalidArgument)):
            push(lab.poisoned(4, 64))


def test_tensors_that_want_gradients_are_refused(lab):
    """PyTorch refuses to export them; what is handed over by pointer has no graph behind it."""
    tensor = torch.ones(4, 16, device="cuda", requires_grad=True)
    box, tensors = lab.context.mailbox(8, dtype="float32", shape=(16,)), lab.context.tensor_mailbox(2)
    for wrong in (tensor, tensor * 2, torch.nn.Parameter(torch.ones(4, 16, device="cuda"))):
        for push in (box.push, tensors.push):
            with pytest.raises((InvalidArgument, BufferError), match="grad"):
                push(wrong)
    box.push(tensor.detach())
    tensors.push(tensor.detach())
    assert len(box.pop(8)) == 4 and tensors.pop().shape == (4, 16)


@pytest.mark.parametrize("wrong", [
    lambda: torch.eye(16, device="cuda").to_sparse(), lambda: torch.eye(16, device="cuda").to_sparse_csr(),
    lambda: torch.ones(4, 16, dtype=torch.complex64, device="cuda").conj(), lambda: torch.empty(4, 16, device="meta"),
    lambda: torch._neg_view(torch.ones(4, 16, device="cuda"))])
def test_tensors_that_are_no_plain_memory_are_refused(lab, wrong):
    box, tensors = lab.context.mailbox(8, 128), lab.context.tensor_mailbox(2)
    for push in (box.push, tensors.push):
        with pytest.raises((InvalidArgument, InvalidDevice, NotSupported, BufferError, RuntimeError, ValueError)):
            push(wrong())
    assert box.stats()["published"] == 0 and tensors.stats()["pushed"] == 0


def test_capsules_of_pytorch_are_taken_once(lab):
    from torch.utils.dlpack import to_dlpack

    mailbox, capsule = lab.context.tensor_mailbox(2), to_dlpack(torch.arange(5, device="cuda"))
    mailbox.push(capsule)
    raises(InvalidArgument, lambda: mailbox.push(capsule), "once")
    assert torch.from_dlpack(mailbox.pop()).tolist() == [0, 1, 2, 3, 4]


def test_a_stream_of_zero_is_ambiguous_in_the_protocol(lab):
    box = lab.context.mailbox(8, 64)
    box.push(lab.poisoned(4, 64))
    records = box.pop(4)
    raises(InvalidArgument, lambda: records.__dlpack__(stream=0), "ambiguous")
    raises(InvalidArgument, lambda: records.__dlpack__(stream="x"), "stream")
    for good in (None, -1, 1, 2, torch.cuda.Stream().cuda_stream):
        assert records.__dlpack__(stream=good)


def test_the_array_interface_has_no_bfloat16(lab):
    box = lab.context.mailbox(8, dtype=torch.bfloat16, shape=(8,))
    box.push(torch.ones(3, 8, dtype=torch.bfloat16, device="cuda"))
    records = box.pop(8)
    assert records.dtype == "bfloat16" and not hasattr(records, "__cuda_array_interface__")
    assert torch.from_dlpack(records).dtype == torch.bfloat16


def test_a_captured_pop_needs_out(lab):
    box, rows = lab.context.mailbox(8, 64), lab.poisoned(4, 64)
    box.push(rows)
    box.pop(4)
    graph, tensors = torch.cuda.CUDAGraph(), lab.context.tensor_mailbox(2)
    with torch.cuda.graph(graph):
        raises(InvalidArgument, lambda: box.pop(4), "out")
        raises(InvalidArgument, lambda: box.pop(4, out=rows, headers=True), "headers")
        raises(NotSupported, lambda: tensors.push(rows), "captur")
        raises(NotSupported, lambda: tensors.pop(), "captur")
        # The capture has gone on.
        box.push(rows)
    graph.replay()
    assert box.wait_readable(4, timeout=60) == 4
