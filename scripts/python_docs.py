#!/usr/bin/env python3
"""Runs every ```python block of docs/python.md and python/README.md in a fresh interpreter.

    PYTHON scripts/python_docs.py [FILE...]

PYTHON is one that has the package and NumPy. A block whose first line begins with "# continues" goes on where the one before
it ended, and runs after it. One whose first line is "# needs torch and a GPU", and what continues it, is left out unless
PyTorch is there with CUDA. Exits with 1 if a block fails, or if there is none.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ("docs/python.md", "python/README.md")
NEEDS_GPU = "# needs torch and a GPU"
CONTINUES = "# continues"
SECONDS = 120
ASKS = "import torch; raise SystemExit(0 if torch.cuda.is_available() else 1)"


def blocks_of(path):
    """Line of each block, its own text, what runs, and whether that needs a GPU."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        code, line = block[1], text.count("\n", 0, block.start()) + 2
        before, gpu = "", code.startswith(NEEDS_GPU)
        if code.startswith(CONTINUES):
            if not found:
                sys.exit(f"error: {path}:{line}: there is nothing to continue")
            before, gpu = found[-1][1], found[-1][2] or gpu
        found.append((line, before + code, gpu))
    return found


def main(files):
    # An interpreter of its own: torch takes memory, and this one starts many.
    has_gpu = subprocess.run([sys.executable, "-c", ASKS], capture_output=True).returncode == 0
    ran = failed = left_out = 0
    for name in files:
        path = os.path.join(ROOT, name)
        for line, code, gpu in blocks_of(path):
            if gpu and not has_gpu:
                left_out += 1
                print(f"{name}:{line}: needs a GPU")
                continue
            ran += 1
            # Elsewhere, so that the installed package is what is used.
            with tempfile.TemporaryDirectory() as folder:
                try:
                    told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
                                          timeout=SECONDS)
                    words = "" if told.returncode == 0 else f"exit status {told.returncode}\n{told.stdout}{told.stderr}"
                except subprocess.TimeoutExpired:
                    words = f"not done after {SECONDS} s\n"
            failed += bool(words)
            print(f"{name}:{line}: {'failed: ' + words if words else 'ok'}", flush=True)
    print(f"{ran - failed} of {ran} blocks ok ({left_out} need a GPU)")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or FILES))
