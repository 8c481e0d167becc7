"""Runs mutated suites on a GPU: each must fail the test that is named for it."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile

SECONDS = 40
AT_ONCE = max(4, min(8, (os.cpu_count() or 4) // 2))


def run(folder, environment):
    """Results of the mutants packed in `folder` by tests/mutants.py."""
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(folder / "mutants.tar.xz") as archive:
            archive.extractall(unpacked, filter="data")

        def one(mutant):
            command = [str(pathlib.Path(unpacked) / mutant["program"]), "--exact", mutant["test"], "--nocapture"]
            try:
                done = subprocess.run(command, env=environment, timeout=SECONDS, text=True, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, errors="replace")
            except subprocess.TimeoutExpired:
                return dict(mutant, result="caught", how="hangs")
            ran = re.search(r"^running 1 test$", done.stdout, re.M)
            failed = re.search(r"^test result: FAILED", done.stdout, re.M) or done.returncode < 0
            how = "fails" if done.returncode > 0 else "dies" if done.returncode < 0 else "passes"
            return dict(mutant, result="caught" if ran and failed else "SURVIVED", how=how)

        mutants = json.loads((folder / "mutants.json").read_text())
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            return [{k: v for k, v in r.items() if k != "program"} for r in pool.map(one, mutants)]
