"""What the examples begin with: a device, arrays on it, and checks that say what they saw."""
from __future__ import annotations

import argparse
import importlib
import importlib.util
from typing import Any

import numpy

import gpumailbox


def check(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(what)
    print(f"ok: {what}")


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--backend", choices=("auto", "host", "cuda"), default="auto")
    return made


class Device:
    """A context, and how arrays come onto its device and back: with PyTorch on a GPU, with NumPy on the host."""

    def __init__(self, backend: Any) -> None:
        torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
        if backend == "auto" and not (torch and torch.cuda.is_available()):
            backend = "host"
        self.context = gpumailbox.Context(backend)
        self.torch: Any = None if self.context.backend == "host" else torch
        print(self.context)

    def to_device(self, array: Any) -> Any:
        return self.torch.from_numpy(array).cuda() if self.torch else numpy.asarray(array)

    def to_host(self, array: Any) -> Any:
        return self.torch.from_dlpack(array).cpu().numpy() if self.torch else numpy.from_dlpack(array)
