"""Reads `cargo metadata` and prints THIRD-PARTY.md; fails on a licence that is not allowed.

Usage: licences.py NAME WHAT    (whose crates these are, and what they are linked into)
"""
import json
import pathlib
import re
import sys

# The earlier is preferred where a crate leaves the choice.
ALLOWED = ["MIT", "ISC", "Zlib", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Unlicense", "Unicode-3.0", "Apache-2.0"]
# A licence file is that of a licence when it has these words.
WORDS = {
    "MIT": "Permission is hereby granted, free of charge",
    "ISC": "Permission to use, copy, modify, and/or distribute this software",
    "Zlib": "This software is provided 'as-is'",
    "0BSD": "Permission to use, copy, modify, and/or distribute this software",
    "BSD-2-Clause": "Redistribution and use in source and binary forms",
    "BSD-3-Clause": "Redistribution and use in source and binary forms",
    "Unlicense": "This is free and unencumbered software",
    "Unicode-3.0": "UNICODE LICENSE V3",
    "Apache-2.0": "Apache License",
}

HEAD = """# Third-party software in {name}

Written by `scripts/licences.sh` from `cargo metadata`. These crates are linked into {what}, each under the licence in the last column; the texts follow.

| Crate | Version | Its licence | Used under |
|---|---|---|---|"""

TAIL = """
## The Rust standard library

Every library that rustc makes contains parts of Rust's standard library, licensed under MIT or Apache-2.0 at
your option, and of what that is made of. The notices for the version that was used come with the compiler
(`share/doc/rust/COPYRIGHT-library.html` in its folder) and are installed beside this file as
`COPYRIGHT-rust-library.html` where the compiler has them."""


def choose(expression):
    """The licences to keep to, of an SPDX expression; None when it has no way through ALLOWED."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        options = [both()]
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            options.append(both())
        options = [o for o in options if o is not None]
        return min(options, key=lambda o: max(map(ALLOWED.index, o)), default=None)

    def both():
        parts = [single()]
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            parts.append(single())
        return None if None in parts else sorted(set().union(*parts), key=ALLOWED.index)

    def single():
        token = tokens.pop(0)
        if token == "(":
            inner = either()
            if not tokens or tokens.pop(0) != ")":
                raise ValueError(expression)
            return inner
        if tokens and tokens[0] == "WITH":
            del tokens[:2]  # with an exception it is another licence
            return None
        return [token] if token in ALLOWED else None

    chosen = either()
    if tokens:
        raise ValueError(expression)
    return chosen


def linked(metadata):
    """The packages that normal dependencies lead to; a procedural macro runs in the compiler and stays there."""
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    todo, seen = [metadata["resolve"]["root"]], set()
    while todo:
        package = todo.pop()
        if package in seen or any("proc-macro" in t["kind"] for t in packages[package]["targets"]):
            continue
        seen.add(package)
        todo += [d["pkg"] for d in nodes[package]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
    seen.remove(metadata["resolve"]["root"])
    return sorted((packages[i] for i in seen), key=lambda p: (p["name"], p["version"]))


def text(folder, licence, package):
    files = [f for f in sorted(folder.iterdir()) if re.match(r"(?i)(licen[cs]e|copying|unlicense)", f.name) and f.is_file()]
    for file in files:
        content = file.read_text().replace("\r\n", "\n").strip("\n")
        if WORDS[licence] in " ".join(content.split()):
            return content
    sys.exit(f"error: {package} has no text of {licence} in {[f.name for f in files]}")


def main():
    rows, texts = [], []
    for package in linked(json.load(sys.stdin)):
        name = f"{package['name']} {package['version']}"
        expression = package["license"] or "no licence named"
        try:
            chosen = choose(expression)
        except (IndexError, ValueError):
            sys.exit(f"error: {name}: cannot read the licence {expression!r}")
        if not chosen:
            sys.exit(f"error: {name}: {expression} is not allowed (scripts/licences.py: {', '.join(ALLOWED)})")
        rows.append(f"| {package['name']} | {package['version']} | {expression} | {' AND '.join(chosen)} |")
        folder = pathlib.Path(package["manifest_path"]).parent
        for licence in chosen:
            # A text of many pages is the same for all: ours is beside this file.
            body = "In `LICENSE-APACHE`, beside this file." if licence == "Apache-2.0" else (
                "```text\n" + text(folder, licence, name) + "\n```")
            texts.append(f"\n## {name}: {licence}\n\n{body}")
    head = HEAD.format(name=sys.argv[1], what=sys.argv[2])
    print("\n".join([head, *rows, *texts, TAIL]))


if __name__ == "__main__":
    main()
