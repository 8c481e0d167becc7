"""What the package brings for C++ in the same process: headers, the library, and the same handles on both sides."""
import contextlib
import ctypes
import os
import re
import subprocess

import numpy as np
import pytest

import gpumailbox
from lab import all_given_back, bits, random_rows, torch, until

HERE = os.path.dirname(os.path.abspath(gpumailbox.__file__))
SIZES = gpumailbox._core._sizes()

PLUGIN = r"""
#include <gpumailbox.hpp>
#include <gpumailbox/dlpack.h>

#include <atomic>

static std::atomic<int> deleted{0};

// Handles cross as numbers; each function gives a status, or what it counted.
extern "C" {
int64_t plugin_pop(uint64_t context, uint64_t mailbox, void *out, uint32_t max) {
  gmb_token token;
  if (int told = gmb_token_create(gmb_context{context}, &token)) return told;
  gmb_pop pop = GMB_POP_INIT;
  pop.max = max;
  pop.records = out;
  gmb_result result{};
  int told = gmb_mailbox_pop(gmb_mailbox{mailbox}, &pop, nullptr, token);
  if (told == GMB_OK) told = gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result);
  gmb_token_destroy(token);
  return told != GMB_OK ? told : result.status != GMB_OK ? result.status : int64_t{result.count};
}

int64_t plugin_push(uint64_t context, uint64_t mailbox, const void *records, uint32_t count, uint32_t length) {
  gmb_token token;
  if (int told = gmb_token_create(gmb_context{context}, &token)) return told;
  gmb_push push = GMB_PUSH_INIT;
  push.count = count;
  push.records = records;
  push.length = length;
  push.msg_type = 4711;
  gmb_result result{};
  int told = gmb_mailbox_push(gmb_mailbox{mailbox}, &push, nullptr, token);
  if (told == GMB_OK) told = gmb_token_wait(token, GMB_EPOCH_LAST, GMB_WAIT_FOREVER, &result);
  gmb_token_destroy(token);
  return told != GMB_OK ? told : result.status != GMB_OK ? result.status : int64_t{result.count};
}

// Where the tensor lies that Python pushed; it is released at once.
int64_t plugin_pop_tensor(uint64_t mailbox, uint64_t *address, uint64_t *tag, int64_t *shape, int32_t *ndim) {
  gmb_lease lease;
  gmb_tensor tensor;
  const gmb_tensor_mailbox from{mailbox};
  if (int told = gmb_tensor_mailbox_pop(from, nullptr, GMB_WAIT_FOREVER, &lease, &tensor)) return told;
  *address = tensor.address + tensor.byte_offset;
  *tag = tensor.tag;
  *ndim = tensor.ndim;
  for (int i = 0; i < tensor.ndim; ++i) shape[i] = tensor.shape[i];
  return gmb_lease_release(lease);
}

struct owned {
  DLManagedTensorVersioned managed;
  int64_t shape[2];
};

int64_t plugin_push_tensor(uint64_t mailbox, void *data, int64_t rows, int64_t columns, int32_t device, uint64_t tag) {
  owned *made = new owned{};
  made->shape[0] = rows;
  made->shape[1] = columns;
  made->managed.version = {1, 0};
  made->managed.manager_ctx = made;
  made->managed.deleter = [](DLManagedTensorVersioned *self) {
    delete static_cast<owned *>(self->manager_ctx);
    ++deleted;
  };
  made->managed.dl_tensor.data = data;
  made->managed.dl_tensor.device = {static_cast<DLDeviceType>(device), 0};
  made->managed.dl_tensor.ndim = 2;
  made->managed.dl_tensor.dtype = {kDLFloat, 32, 1};
  made->managed.dl_tensor.shape = made->shape;
  gmb_tensor_push push = GMB_TENSOR_PUSH_INIT;
  push.tag = tag;
  const int told = gmb_tensor_mailbox_push(gmb_tensor_mailbox{mailbox}, &made->managed, &push, nullptr);
  if (told != GMB_OK) delete made;
  return told;
}

int plugin_deleted() { return deleted; }
const char *plugin_version() { return gmb_version_string(); }
}
"""


def compiled(compiler, *arguments):
    done = subprocess.run([compiler, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    source, library = folder / "plugin.cpp", folder / "plugin.so"
    source.write_text(PLUGIN)
    linked, beside = gpumailbox.get_library(), os.path.dirname(gpumailbox.get_library())
    compiled("c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", gpumailbox.get_include(),
             str(source), "-o", str(library), linked, f"-Wl,-rpath,{beside}")
    loaded = ctypes.CDLL(str(library))
    word, pointer, number = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int64
    for name, arguments in (("pop", [word, word, pointer, ctypes.c_uint32]),
                            ("push", [word, word, pointer, ctypes.c_uint32, ctypes.c_uint32]),
                            ("pop_tensor", [word] + [pointer] * 4),
                            ("push_tensor", [word, pointer, number, number, ctypes.c_int32, word])):
        function = getattr(loaded, f"plugin_{name}")
        function.restype, function.argtypes = number, arguments
    loaded.plugin_version.restype = ctypes.c_char_p
    return loaded


def test_headers_and_library_are_in_the_package():
    assert os.path.samefile(gpumailbox.get_include(), os.path.join(HERE, "include"))
    for name in ("gpumailbox.h", "gpumailbox.hpp", "gpumailbox/dlpack.h", "gpumailbox/detail.hpp", "gpumailbox/tensor.cuh"):
        assert os.path.isfile(os.path.join(gpumailbox.get_include(), name)), name
    with open(gpumailbox.get_library(), "rb") as library:
        assert library.read(4) == b"\x7fELF"
    if os.environ.get("GMB_WHEEL") == "1":
        found = os.listdir(gpumailbox.get_cmake_dir())
        assert any(name.lower() in ("gpumailboxconfig.cmake", "gpumailbox-config.cmake") for name in found), found


def test_type_checkers_find_the_marker():
    assert os.path.isfile(os.path.join(HERE, "py.typed"))


def test_the_library_in_use_is_the_packages():
    gpumailbox.Context("host")
    with open("/proc/self/maps") as maps:
        loaded = {line.split()[-1] for line in maps if "libgpumailbox.so" in line}
    assert len(loaded) == 1 and os.path.samefile(loaded.pop(), gpumailbox.get_library())


def test_the_extension_needs_nothing_that_a_machine_without_a_gpu_lacks():
    needed = "".join(compiled("readelf", "-d", one).stdout for one in (gpumailbox._core.__file__, gpumailbox.get_library()))
    libraries = set(re.findall(r"Shared library: \[([^\]]+)\]", needed))
    assert "libgpumailbox.so.0" in libraries and not [name for name in libraries if "cuda" in name or "python" in name]


def test_versions_agree():
    with open(os.path.join(gpumailbox.get_include(), "gpumailbox.h")) as header:
        parts = dict(re.findall(r"#define GMB_VERSION_(\w+) (\d+)", header.read()))
    assert gpumailbox.version() == gpumailbox.__version__ == f"{parts['MAJOR']}.{parts['MINOR']}.{parts['PATCH']}"


def test_everything_that_is_promised_is_there():
    for name in gpumailbox.__all__:
        assert getattr(gpumailbox, name) is not None
    public = {name for name in vars(gpumailbox) if not name.startswith("_")} - {"atexit", "os"}
    assert public == set(gpumailbox.__all__)


def test_names_of_errors_are_those_of_the_header():
    """Independently of the table in the package: what the header has, `make` gives back."""
    with open(os.path.join(gpumailbox.get_include(), "gpumailbox.h")) as header:
        numbers = {int(number): name for name, number in re.findall(r"#define GMB_ERROR_(\w+) (-\d+)", header.read())}
    assert len(numbers) > 30
    for number, name in numbers.items():
        error = gpumailbox._errors.make(number, "words")
        assert (error.status, error.name, str(error)) == (number, name, f"words [{name}]")
        assert isinstance(error, gpumailbox.Error)
    unknown = gpumailbox._errors.make(-99, "words")
    assert type(unknown) is gpumailbox.Error and unknown.status == -99


def test_structs_are_as_large_as_the_c_compiler_has_them(tmp_path):
    assert len(SIZES) > 10
    lines = "\n".join(f'  printf("{name} %zu\\n", sizeof({name}));' for name, _ in SIZES)
    source, program = tmp_path / "sizes.c", tmp_path / "sizes"
    source.write_text(f"#include <gpumailbox.h>\n#include <stdio.h>\nint main(void) {{\n{lines}\n  return 0;\n}}\n")
    compiled("cc", "-std=c11", "-Wall", "-Werror", "-I", gpumailbox.get_include(), str(source), "-o", str(program))
    told = [line.split() for line in compiled(str(program)).stdout.splitlines()]
    assert [(name, int(size)) for name, size in told] == SIZES


def test_cpp_uses_the_same_library(plugin):
    assert plugin.plugin_version().decode() == gpumailbox.version()
    with open("/proc/self/maps") as maps:
        assert len({line.split()[-1] for line in maps if "libgpumailbox.so" in line}) == 1


def test_python_pushes_and_cpp_pops(lab, rng, plugin):
    mailbox, values = lab.context.mailbox(32, 64), random_rows(rng, 20)
    out = lab.poisoned(32, 64)
    mailbox.push(lab.array(values))
    # CUDA's default stream orders it behind whatever filled `out`.
    assert plugin.plugin_pop(lab.context.handle, mailbox.handle, lab.pointer(out), 12) == 12
    assert bits(lab.numpy(out)[:12]) == bits(values[:12])
    assert plugin.plugin_pop(lab.context.handle, mailbox.handle, lab.pointer(out), 32) == 8
    assert bits(lab.numpy(out)[:8]) == bits(values[12:])
    assert plugin.plugin_pop(lab.context.handle, mailbox.handle, lab.pointer(out), 32) == 0


def test_cpp_pushes_and_python_pops(lab, rng, plugin):
    mailbox, values = lab.context.mailbox(16, 64), random_rows(rng, 20)
    rows = lab.array(values)
    assert plugin.plugin_push(lab.context.handle, mailbox.handle, lab.pointer(rows), 20, 64) == 16
    records = mailbox.pop(32, headers=True)
    assert bits(lab.numpy(records)) == bits(values[:16]) and lab.numpy(records.types).tolist() == [4711] * 16
    assert mailbox.stats()["rejected"] == 4


def test_python_hands_tensors_to_cpp(lab, plugin):
    mailbox = lab.context.tensor_mailbox(4)
    array = lab.array(np.zeros((7, 5), np.float32))
    mailbox.push(array[2:], 99)
    address, tag, ndim, shape = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_int32(), (ctypes.c_int64 * 8)()
    assert plugin.plugin_pop_tensor(mailbox.handle, *map(ctypes.byref, (address, tag)), shape, ctypes.byref(ndim)) == 0
    assert (address.value, tag.value, list(shape[:ndim.value])) == (lab.pointer(array[2:]), 99, [5, 5])
    all_given_back(mailbox)


def test_cpp_hands_tensors_to_python(lab, rng, plugin):
    mailbox, before = lab.context.tensor_mailbox(4), plugin.plugin_deleted()
    values = rng.standard_normal((6, 3)).astype(np.float32)
    array = lab.array(values)
    device = {"host": 1, "cuda": 2}[lab.backend]
    assert plugin.plugin_push_tensor(mailbox.handle, lab.pointer(array), 6, 3, device, 5) == 0
    tensor = mailbox.pop()
    assert (tensor.tag, tensor.dtype, tensor.data_ptr) == (5, "float32", lab.pointer(array))
    assert bits(lab.numpy(tensor)) == bits(values) and plugin.plugin_deleted() == before
    del tensor
    until(lambda: plugin.plugin_deleted() == before + 1, "the tensor of C++ is ended, once")
    assert mailbox.stats()["released"] == 1


def test_handles_that_python_closed_are_stale_for_cpp(lab, plugin):
    mailbox, out = lab.context.mailbox(4, 64), lab.poisoned(4, 64)
    handle = mailbox.handle
    mailbox.close()
    assert plugin.plugin_pop(lab.context.handle, handle, lab.pointer(out), 4) == -1
    assert plugin.plugin_pop(0, handle, lab.pointer(out), 4) == -1


def test_what_the_c_api_captures_is_captured_here(lab, rng):
    c = ctypes.CDLL(gpumailbox.get_library())
    context, graph = ctypes.c_uint64(lab.context.handle), ctypes.c_uint64()
    own = lab.context.stream()
    stream = ctypes.c_void_p(own.handle)
    box, values = lab.context.mailbox(64, 64), random_rows(rng, 4)
    rows, out = lab.array(values), lab.poisoned(8, 64)
    # PyTorch's current stream, too: what its tensors wait for must be within the capture.
    around = torch.cuda.stream(torch.cuda.ExternalStream(own.handle)) if lab.backend == "cuda" else contextlib.nullcontext()
    if lab.backend == "cuda":
        torch.cuda.synchronize()
    with around:
        assert c.gmb_stream_begin_capture(context, stream, 1) == 0
        box.push(rows, stream=own)
        assert box.pop(8, out=out, stream=own) is None
        assert c.gmb_stream_end_capture(context, stream, ctypes.byref(graph)) == 0
    own.synchronize()
    assert box.stats()["published"] == 0
    for launch in (1, 2):
        assert c.gmb_graph_launch(graph, stream) == 0
        own.synchronize()
        assert (box.stats()["published"], box.stats()["released"]) == (4 * launch, 4 * launch)
        assert bits(lab.numpy(out)[:4]) == bits(values)
        out[:] = 0
        if lab.backend == "cuda":
            torch.cuda.synchronize()
    assert c.gmb_graph_destroy(graph) == 0
