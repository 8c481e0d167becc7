"""Arrays of JAX go in and come out: in a process of its own, for JAX takes memory and streams of its own."""
import os
import subprocess
import sys

CODE = """
import gpumailbox, jax, numpy
context = gpumailbox.Context("cuda")
values = numpy.random.default_rng(SEED).standard_normal((12, 16)).astype("float32")
rows = jax.device_put(values)
records = context.mailbox(64, dtype="float32", shape=(16,))
for round in range(20):
    records.push(rows + round)
    popped = jax.dlpack.from_dlpack(records.pop(64))
    assert popped.shape == (12, 16) and (numpy.asarray(popped) == numpy.asarray(rows + round)).all(), round
tensors = context.tensor_mailbox(4)
tensors.push(rows, 5)
tensor = tensors.pop()
assert tensor.data_ptr == rows.unsafe_buffer_pointer() and tensor.tag == 5
assert (numpy.asarray(jax.dlpack.from_dlpack(tensor)) == values).all()
print("same")
"""


def test_arrays_of_jax_go_in_and_come_out(rng):
    code = CODE.replace("SEED", str(int(rng.integers(2**31))))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200,
                          env=dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false", JAX_PLATFORMS="cuda"))
    assert done.returncode == 0 and done.stdout == "same\n", done.stdout + done.stderr
