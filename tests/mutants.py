"""Mutations of the protocol, the plumbing and the Python package, each caught by a named test.

Works on copies of the tree under target/mutants, two at once: what Rust builds in the one, the rest in the other. A
mutant is caught when its test fails; the same tests pass on the unchanged copy first. Whatever was caught is not
built again as long as all that it depends on is the same, but with --all. Arguments pick mutants by name. With --kit FOLDER nothing is run: the mutated suites are built
for a GPU and packed there, for scripts/kit/mutants.py to run. The Python package
is tested with the library that scripts/stage.sh has staged, which is not mutated.
"""
import concurrent.futures
import contextlib
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

from mutations import MUTANTS, ON_A_GPU

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPIES = ROOT / "target" / "mutants"
STAGE = ROOT / "target" / "stage"
PYTHON = ROOT / "target" / "python" / "venv" / "bin" / "python"
NVCC = ROOT / "target" / "toolchain" / "cuda" / "bin" / "nvcc"
# With how many records: threads that take turns on few cores need long for many.
PROGRAMS = {"protocol": 20000, "overwrite": 20000, "tensor": 20000, "shared": 4000, "device": 20000, "queue": 8000,
            "doorbell": 8000, "arbiter": 8000}
# What was built beside the Python package's sources.
NOT_COPIED = shutil.ignore_patterns("target", "lib", "include", "licences", "_core*.so", "__pycache__", ".*")
# What a kind of test depends on, besides the mutation and the tools: folders and files.
PROTOCOL = ("include", "tests/protocol", "tests/history")
LIBRARY = ("Cargo.toml", "Cargo.lock", "build.rs", "README.md", "src", "include", "kernels", "tests/suite", "tests/driver",
           "scripts/toolchain.sh")
PACKAGE = ("python", "target/stage/lib/libgpumailbox.so.0", "target/stage/include", "scripts/toolchain-requirements.txt")
CAUGHT = COPIES / "caught.json"
# Set when one copy has failed: the other one need not go on.
FAILED = threading.Event()


def ended(command, folder, variables, limit):
    """How it ended, or None if it hung (`limit`, in seconds); and whatever it started has ended, too."""
    with subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class Memory:
    """Which mutants were caught, and with what inputs."""

    def __init__(self, forgets):
        self.known = {} if forgets or not CAUGHT.exists() else json.loads(CAUGHT.read_text())
        self.lock = threading.Lock()
        self.inputs = {}
        self.tools = "".join(subprocess.run(tool, capture_output=True, text=True, check=True).stdout
                             for tool in (["rustc", "-vV"], ["c++", "--version"]))
        self.tools += pathlib.Path(__file__).read_text()

    def digest(self, of):
        """Of files, by name and content."""
        if of not in self.inputs:
            known = hashlib.sha256()
            for root in (ROOT / part for part in of):
                for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
                    if path.is_file() and not NOT_COPIED("", [p for p in path.relative_to(root).parts]):
                        known.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
            self.inputs[of] = known.hexdigest()
        return self.inputs[of]

    def key(self, mutant):
        kind = mutant[4].split()[0]
        of = PROTOCOL if kind in PROGRAMS else PACKAGE if kind == "python" else LIBRARY
        return hashlib.sha256(repr((mutant, self.digest(of), self.tools)).encode()).hexdigest()

    def has(self, mutant):
        return self.known.get(mutant[0]) == self.key(mutant)

    def note(self, mutant, caught):
        with self.lock:
            self.known.pop(mutant[0], None)
            if caught:
                self.known[mutant[0]] = self.key(mutant)
            CAUGHT.parent.mkdir(parents=True, exist_ok=True)
            written = CAUGHT.with_suffix(".new")
            written.write_text(json.dumps(self.known))
            written.replace(CAUGHT)


class Copy:
    """The tree, in which one mutation at a time is made."""

    def __init__(self, name, wanted):
        self.root = COPIES / name
        # How long each test took without a mutation, in seconds.
        self.took = {}
        # What the last one said.
        self.told = ""
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in ("src", "include", "kernels", "tests", "benches", "python"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
            if (ROOT / folder).exists():
                shutil.copytree(ROOT / folder, self.root / folder, ignore=NOT_COPIED if folder == "python" else None)
        for file in ("Cargo.toml", "Cargo.lock", "build.rs", "README.md"):
            shutil.copy(ROOT / file, self.root / file)
        # The tests need none of the libraries for others.
        manifest = self.root / "Cargo.toml"
        manifest.write_text(re.sub(r"(?m)^crate-type = .*$", 'crate-type = ["rlib"]', manifest.read_text()))
        for name, file, text, *_ in wanted:
            count = (self.root / file).read_text().count(text) if (self.root / file).exists() else 0
            if count != 1:
                sys.exit(f"error: {name}: its text stands {count} times in {file}")

    def bring_the_library(self):
        """What the Python package has beside its sources."""
        for needed, script in ((STAGE / "lib" / "libgpumailbox.so.0", "stage"), (PYTHON, "python")):
            if not needed.exists():
                sys.exit(f"error: {needed} is missing: run scripts/{script}.sh first")
        within = self.root / "python" / "gpumailbox"
        (within / "lib").mkdir()
        shutil.copy(STAGE / "lib" / "libgpumailbox.so.0", within / "lib")
        shutil.copytree(STAGE / "include", within / "include")
        # cargo goes by the files' times: those of a copy are older than what a run that was broken off has built.
        (self.root / "python" / "src" / "lib.rs").touch()

    @contextlib.contextmanager
    def mutated(self, mutant):
        _, file, text, replacement, _ = mutant
        path = self.root / file
        original = path.read_text()
        path.write_text(original.replace(text, replacement))
        try:
            yield
        finally:
            path.write_text(original)

    def environment(self, label, cuda=False, models=False, python=False):
        """Of a build. build.rs watches GMB_CHAOS: a label of its own makes cargo compile each
        mutant whatever the files' times say. One that begins with 1 means delays."""
        target = self.root / "target"
        made = dict(os.environ, GMB_CUDA="OFF", GMB_CHAOS=label, GMB_TEST_SEED="1", CARGO_TARGET_DIR=str(target))
        made.pop("GMB_CUDA_ARCHS", None)
        # A build for each mutant: what makes programs faster, or easier to debug, costs more than it saves.
        made.update(CARGO_PROFILE_DEV_DEBUG="0", CARGO_PROFILE_DEV_OPT_LEVEL="0", CARGO_PROFILE_RELEASE_DEBUG="0",
                    CARGO_PROFILE_RELEASE_LTO="off", CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16",
                    CARGO_PROFILE_RELEASE_INCREMENTAL="true")
        if cuda:
            made.update(GMB_CUDA="ON", GMB_CUDA_ARCHS="90")
            if NVCC.exists():
                made["NVCC"] = str(NVCC)
        if models:
            made.update(RUSTFLAGS="--cfg loom", LOOM_MAX_PREEMPTIONS="3", CARGO_TARGET_DIR=str(target / "loom"))
        if python:
            # Python knows a module that it compiled by its second and size: a mutant may be of the same ones.
            made.update(GMB_LIBRARY_DIR=str(STAGE / "lib"), GMB_SEED="1", PYTHONPATH=str(self.root / "python"),
                        PYTHONDONTWRITEBYTECODE="1", CARGO_TARGET_DIR=str(target / "python"))
        return made

    def build(self, command, variables, folder=None):
        built = subprocess.run(command, cwd=folder or self.root, env=variables, capture_output=True, text=True)
        if built.returncode != 0:
            sys.exit(f"error: the mutant does not compile:\n{built.stderr[-2000:]}")
        return built.stdout

    def build_extension(self, variables):
        python = self.root / "python"
        self.build(["cargo", "build", "--release", "--locked"], variables, python)
        shutil.copy(self.root / "target" / "python" / "release" / "lib_core.so", python / "gpumailbox" / "_core.abi3.so")

    def build_suite(self, variables):
        """Where the suite is then."""
        told = self.build(["cargo", "test", "--locked", "--no-run", "--test", "suite", "--message-format", "json"], variables)
        messages = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        suite, = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "suite"]
        return suite

    def passes(self, how, label="unchanged"):
        """True when the test passes; a test that hangs has noticed, too."""
        kind, what = how.split(" ", 1)
        variables = self.environment(label, cuda=kind == "kernels", models=kind == "model", python=kind == "python")
        folder = self.root
        if kind == "python":
            self.build_extension(variables)
            folder = self.root / "python"
            command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{what}"]
        elif kind in PROGRAMS:
            program = self.root / "protocol"
            flags = [] if what == "none" else [f"-fsanitize={what}"]
            self.build(["c++", "-std=c++17", "-O1", "-DGMB_CHAOS", "-Iinclude", *flags, f"tests/protocol/{kind}.cpp",
                        "-o", str(program), "-lpthread"], variables)
            command = [str(program), "1", str(PROGRAMS[kind])]
        elif kind == "model":
            command = ["cargo", "test", "--locked", "--quiet", "--release", "--lib"]
            self.build([*command, "--no-run"], variables)
            command += ["--", "--exact", what]
        else:
            command = [self.build_suite(variables), "--exact", what]
        # Ten times as long as without a mutation is a hang, and ten seconds are a moment on a busy machine.
        began = time.monotonic()
        ran = ended(command, folder, variables, max(10, 10 * self.took[how]) if how in self.took else 120)
        # Threads that race do not always do what a mutation forbids: two seeds more before it has survived.
        for seed in ("2", "3") if kind in PROGRAMS and label != "unchanged" else ():
            if ran is None or ran.returncode != 0:
                break
            command[1] = seed
            ran = ended(command, folder, variables, max(10, 10 * self.took[how]))
        self.took.setdefault(how, time.monotonic() - began)
        self.told = "it hung" if ran is None else ran.stdout + ran.stderr
        if ran is None:
            return False
        if kind == "python":
            # One that was not found, or skipped, notices nothing; one that died of a signal tells nothing.
            if ran.returncode >= 0 and not re.search(r"^1 (passed|failed)\b", ran.stdout, re.M):
                sys.exit(f"error: not one test ran for {what}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
        elif kind not in PROGRAMS and ran.returncode == 0 and "1 passed" not in ran.stdout:
            sys.exit(f"error: no such test: {what}")
        return ran.returncode == 0


def beside(work, parts):
    """Calls `work` with each of the parts, all at once."""
    def guarded(part):
        try:
            return work(*part)
        except BaseException:
            FAILED.set()
            raise

    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(guarded, parts))


def on_a_gpu(mutant):
    """The build and the test that notice the mutant on a GPU, or None."""
    name, _, _, _, how = mutant
    if name in ON_A_GPU:
        return ON_A_GPU[name]
    kind, what = how.split(" ", 1)
    return f"plain {what}" if kind in ("suite", "kernels") else None


def build_for_a_gpu(name, mutants):
    """The mutated suites, stripped, with what is told of each."""
    copy = Copy(name, mutants)
    made = []
    for mutant in mutants:
        if FAILED.is_set():
            break
        mode, test = on_a_gpu(mutant).split(" ", 1)
        label = ("1 " if mode == "chaos" else "") + mutant[0]
        program = f"{name}-{len(made)}"
        with copy.mutated(mutant):
            suite = copy.build_suite(copy.environment(label, cuda=True))
        subprocess.run(["strip", "-o", str(copy.root / program), suite], check=True)
        made.append((copy.root, {"program": program, "name": mutant[0], "test": test, "delays": mode == "chaos"}))
        print(f"built: {mutant[0]} ({mode} {test})", flush=True)
    return made


def pack(wanted, folder):
    """Builds the mutated suites and packs them together: they differ little, so they take little room."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [m for m in wanted if on_a_gpu(m)]
    halves = [("kit-a", wanted[::2]), ("kit-b", wanted[1::2])]
    made = sum(beside(build_for_a_gpu, [half for half in halves if half[1]]), [])
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 256 << 20}]
    with lzma.open(folder / "mutants.tar.xz", "w", filters=filters) as packed, \
            tarfile.open(fileobj=packed, mode="w") as archive:
        for root, told in made:
            archive.add(root / told["program"], told["program"])
            (root / told["program"]).unlink()
    (folder / "mutants.json").write_text(json.dumps([told for _, told in made], indent=1))
    print(f"{len(made)} mutants in {(folder / 'mutants.tar.xz').stat().st_size >> 20} MiB")


def test(name, mutants, memory):
    """Which of the mutants survived."""
    copy = Copy(name, mutants)
    if any(m[4].startswith("python ") for m in mutants):
        copy.bring_the_library()
    for how in dict.fromkeys(m[4] for m in mutants):
        if not copy.passes(how):
            sys.exit(f"error: {how} fails without a mutation:\n{copy.told[-4000:]}")
    survivors = []
    for mutant in mutants:
        if FAILED.is_set():
            break
        began = time.monotonic()
        with copy.mutated(mutant):
            survived = copy.passes(mutant[4], mutant[0])
        told = f"{mutant[0]} ({mutant[4]})"
        memory.note(mutant, not survived)
        if survived:
            survivors.append(told)
        print(f"{'SURVIVED' if survived else 'caught'}: {told}, {time.monotonic() - began:.1f} s", flush=True)
    return survivors


def main():
    forgets, arguments = "--all" in sys.argv, [a for a in sys.argv[1:] if a != "--all"]
    kit = arguments[:1] == ["--kit"] and pathlib.Path(arguments[1]).resolve()
    names = arguments[2:] if kit else arguments
    wanted = [m for m in MUTANTS if not names or any(a in m[0] for a in names)]
    if os.environ.get("GMB_CUDA") == "OFF":
        for name, *_ in (m for m in wanted if m[4].startswith("kernels")):
            print(f"left out, for GMB_CUDA=OFF: {name}")
        wanted = [m for m in wanted if not m[4].startswith("kernels")]
    if kit:
        pack(wanted, kit)
        return 0
    memory = Memory(forgets)
    left = [m for m in wanted if not memory.has(m)]
    if len(left) < len(wanted):
        print(f"{len(wanted) - len(left)} were caught before, and nothing that they depend on has changed")
    of_suite = [m for m in left if m[4].split()[0] in ("suite", "kernels")]
    others = [m for m in left if m not in of_suite]
    parts = [(name, part, memory) for name, part in (("suite", of_suite), ("others", others)) if part]
    survivors = sum(beside(test, parts), []) if parts else []
    # Once more at the end, where one looks.
    for told in survivors:
        print(f"error: no test noticed: {told}")
    print(f"{len(wanted) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
