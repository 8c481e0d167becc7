#!/usr/bin/env python3
"""Holds include/gpumailbox.h to docs/conventions.md: names, argument order, and what each comment must say.

Usage: conventions.py [--broken]     (with it, breaks a copy in several ways and sees each noticed)
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OBJECTS = ("triple_buffer", "coordinator", "pipeline", "module", "kernel", "tensor_mailbox", "stream_guard", "event_pool", "mailbox", "borrow", "context", "event", "stream", "graph", "memory",
           "pinned", "watch", "lease", "token", "status", "queue", "worker", "doorbell", "fifo", "arbiter")
VERBS = set("""create create_in attach destroy allocate allocate_async free free_async release get push pop poll query wait
               synchronize record launch use to copy fill trim arm borrow add remove begin_capture end_capture is_capturing
               wait_readable wait_writable wait_event host_function push_from_host_blocking pop_to_host_blocking string
               queue_upload queue_download queue_triple_upload queue_triple_download queue_compute queue_push queue_pop queue_graph
               add_buffer add_stage set_order execute capture reset_statistics load_file register acquire acquire_on give_up advance name start stop pause resume measure push_legacy push_arrow pop_dlpack elapsed_ms submit call cancel forget
               create_watch pop_to_host""".split())
# They never fail and give what they are asked for.
TEXTS = {"gmb_version", "gmb_version_string", "gmb_status_string", "gmb_status_name"}
# Of the process, not of an object.
FREE = TEXTS | {"gmb_last_error_message", "gmb_set_log_function"}
BLOCKING = re.compile(r"\b([Bb]locks|[Nn]ever blocks|[Dd]oes\s+not block|[Mm]ay\s+block|[Dd]oes not wait)\b")
THREADS = re.compile(r"[Tt]hread-safe|any thread|Safe while other threads|on the thread that made it")
# What another function's comment says of both.
AS_ANOTHER = re.compile(r"^\s*As `gmb_|Otherwise as `gmb_")


def functions(text):
    """Name, result, arguments as (type, name), comment."""
    for found in re.finditer(r"/\*\*(.*?)\*/\s*((?:const )?\w+)\s*(\*?)(gmb_\w+)\(([^;]*?)\);", text, flags=re.S):
        comment, result, star, name, listed = found.groups()
        if "/**" in comment:
            comment = comment.rsplit("/**", 1)[1]
        arguments = []
        for one in re.sub(r"\s+", " ", listed).split(","):
            parsed = re.fullmatch(r"(.*?[ *])(\w+)", one.strip())
            if parsed:
                arguments.append((parsed[1].strip(), parsed[2]))
        yield name, result + star, arguments, " ".join(line.strip(" *") for line in comment.splitlines())


def complaints(name, result, arguments, comment):
    if name not in FREE:
        subject = next((each for each in OBJECTS if name.startswith(f"gmb_{each}_")), None)
        if subject is None:
            yield "begins with no object"
        else:
            verb = name[len(f"gmb_{subject}_"):]
            if verb not in VERBS and not verb.startswith(("get_", "add_", "remove_", "to_")):
                yield f"{verb!r} is no verb of the list"
    if name in TEXTS:
        return
    if result != "gmb_status":
        yield f"gives {result}"
    outs = [bool(kind.endswith("*") and not kind.startswith("const") and what not in ("memory", "to", "records", "headers",
                                                                                     "argument", "array", "schema", "buffer", "items"))
            for kind, what in arguments]
    if any(a and not b for a, b in zip(outs, outs[1:])) and not name.endswith(("_info", "_statistics")) and "tensor_mailbox_push" not in name:
        yield "an output is not last"
    for kind, what in arguments:
        if "timeout" in what and what != "timeout_ns":
            yield f"{what} has no unit"
        if kind == "uint64_t" and what in ("size", "length"):
            yield f"{what} has no unit"
    if not re.search(r"\bErrors[:,]", comment):
        yield "its comment names no errors"
    if AS_ANOTHER.search(comment):
        return
    if not BLOCKING.search(comment):
        yield "its comment does not say whether it blocks"
    if not THREADS.search(comment):
        yield "its comment does not say whether threads may call it at once"


# What must be noticed, where it stands first.
BROKEN = [("gmb_token_poll(", "gmb_token_look("), ("gmb_status gmb_borrow_poll", "int gmb_borrow_poll"),
          ("gmb_graph_launch(", "gmb_launch_graph("), ("uint64_t timeout_ns,", "uint64_t timeout,"),
          ("gmb_stream stream,\n                              struct gmb_borrow *borrow",
           "struct gmb_borrow *borrow,\n                              gmb_stream stream"),
          ("Never blocks; thread-safe.", "Thread-safe."), ("Does not block; thread-safe.", "Does not block."),
          (" * Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`.", " *")]


def found_in(text):
    count, found = 0, []
    for name, *rest in functions(text):
        count += 1
        found += [f"{name}: {complaint}" for complaint in complaints(name, *rest)]
    return count, found


def main():
    text = (ROOT / "include/gpumailbox.h").read_text()
    if sys.argv[1:] == ["--broken"]:
        for of, to in BROKEN:
            if of not in text:
                sys.exit(f"error: the header has no {of!r} to break")
            if not found_in(text.replace(of, to, 1))[1]:
                sys.exit(f"error: nobody noticed {to!r} for {of!r}")
        print(f"{len(BROKEN)} of {len(BROKEN)} breaks are noticed")
        return 0
    count, found = found_in(text)
    print("\n".join([*found, f"{count} functions, {len(found)} complaints"]))
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
