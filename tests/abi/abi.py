"""What scripts/abi.sh compares: the header's stand-in library, its constants, and what a binary's debug information says.

abi.py stubs PREPROCESSED            C source with an empty body for every prototype of the header
abi.py constants HEADER LIST [--write]   the values of the header's macros against LIST
abi.py binary HEADERS LIBRARY SYMBOLS    every function and struct of SYMBOLS, the same in both
abi.py types HEADER DESCRIPTION      every public type is in the description that abidw made
"""

import os
import re
import subprocess
import sys
import tempfile

STATUS = re.compile(r"GMB_(OK|NOT_READY|ERROR_\w+)$")


def die(message):
    sys.exit(f"error: {message}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# The stand-in library ---------------------------------------------------------------------------------------------


def stubs(preprocessed):
    text = read(preprocessed)
    prototype = re.compile(r"((?:const )?\w+ \**\s*gmb_\w+\s*\((?!\*)[^;{}]*\));")
    body, count = prototype.subn(r"\1 { __builtin_trap(); }", text)
    wanted = set(re.findall(r"\b(gmb_[a-z0-9_]+)\s*\((?!\*)", text))
    if count != len(wanted):
        die(f"{count} of the {len(wanted)} prototypes were understood")
    print(body)
    # What only device code reads is in no prototype: a variable of the type keeps it in the description.
    for name in re.findall(r"^} (gmb_\w+);", text, re.M):
        if len(re.findall(rf"\b{name}\b", text)) <= 2:
            print(f"const {name} layout_of_{name} = {{0}};")


def types(header, description):
    """Every struct, typedef of an integer, handle and callback of the header is described."""
    names = re.findall(r"^typedef [^;{]*?\(?\*?(gmb_\w+)\)?(?:\([^;]*\))?;", read(header), re.M)
    names += re.findall(r"^} (gmb_\w+);", read(header), re.M)
    text = read(description)
    missing = [name for name in names if f"name='{name}'" not in text]
    if missing or not names:
        die(f"not in {description}, so that changes of it would pass: {' '.join(missing) or 'any type'}")
    print(f"{len(names)} types")


# Constants --------------------------------------------------------------------------------------------------------


def header_constants(header):
    compiler = os.environ.get("CC", "cc")
    include = f'#include "{os.path.abspath(header)}"\n'
    macros = subprocess.run([compiler, "-E", "-dM", "-x", "c", "-"], input=include, text=True, check=True,
                            capture_output=True).stdout
    # The version is no part of the ABI; scripts/symbols.sh compares it with the library's.
    found = dict(re.findall(r"^#define (GMB_(?!VERSION_)\w+) (.*)$", macros, re.M))
    if not found:
        die(f"{header} defines no constant")
    constants = {name: " ".join(text.split()) for name, text in found.items()}
    numbers = [name for name, text in constants.items() if re.match(r"[-(\w]", text) and "gmb_stream" not in text]
    lines = [include, "#include <stdio.h>\nint main(void) {\n"]
    for name in numbers:
        lines.append(f'  if (({name}) < 0) printf("{name} %lld\\n", (long long)({name}));\n'
                     f'  else printf("{name} %llu\\n", (unsigned long long)({name}));\n')
    lines.append("}\n")
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "constants")
        subprocess.run([compiler, "-w", "-x", "c", "-", "-o", program], input="".join(lines), text=True, check=True)
        values = subprocess.run([program], text=True, check=True, capture_output=True).stdout
    constants.update(line.split(" ", 1) for line in values.splitlines())
    return constants


def constants(header, path, write):
    now = header_constants(header)
    before = dict(line.split(" ", 1) for line in read(path).splitlines()) if os.path.exists(path) else {}
    # A status that is gone keeps its line, so that its number stays taken.
    for name, value in before.items():
        if STATUS.match(name) and name not in now:
            now[name] = value if value.endswith(" retired") else f"{value} retired"
        elif value.endswith(" retired") and name in now and f"{now[name]} retired" != value:
            die(f"{name} was {value.split()[0]} once and is {now[name]} now")
    owner = {}
    for name, value in sorted(now.items()):
        if STATUS.match(name):
            number = value.split()[0]
            if number in owner:
                die(f"status {number} belongs to {owner[number]} and to {name}: numbers are never used again")
            owner[number] = name
    for name, value in before.items():
        if STATUS.match(name) and now[name].split()[0] != value.split()[0]:
            die(f"{name} was {value} and is {now[name]}: a status keeps its number")
    if write:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name} {value}\n" for name, value in sorted(now.items()))
        before = now
    changes = [f"  {name}: {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
               for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if changes:
        die(f"constants are not those of {path} (scripts/abi.sh --write, if it is meant):\n" + "\n".join(changes))
    print(f"{len(now)} constants")


# Debug information ------------------------------------------------------------------------------------------------

# Structs of DLPack and Arrow: the header names them, and their standards say what they are.
STANDARD = {"DLManagedTensor", "DLManagedTensorVersioned", "ArrowDeviceArray", "ArrowSchema"}
KEPT = {"base_type", "pointer_type", "structure_type", "class_type", "union_type", "enumeration_type", "member",
        "typedef", "const_type", "array_type", "subrange_type", "subroutine_type", "subprogram", "formal_parameter"}
DIE = re.compile(r"^ <([0-9a-f]+)><([0-9a-f]+)>: Abbrev Number: \d+ \(DW_TAG_(\w+)\)")
ATTRIBUTE = re.compile(r"^ +<[0-9a-f]+> +DW_AT_(name|byte_size|type|data_member_location|external|upper_bound|count|"
                       r"encoding|low_pc) *: (.*)$")


class Debug:
    """The functions and types of one binary, by their offset in .debug_info."""

    def __init__(self, path, rust):
        self.rust, self.dies, self.functions = rust, {}, {}
        dump = subprocess.Popen(["readelf", "--debug-dump=info", path], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, errors="replace")
        open_dies, current = [], None
        for line in dump.stdout:
            entry = DIE.match(line)
            if entry:
                depth, tag = int(entry[1], 16), entry[3]
                current = {"tag": tag, "children": []} if tag in KEPT else None
                del open_dies[depth:]
                open_dies += [None] * (depth - len(open_dies)) + [current]
                if current is not None:
                    self.dies[int(entry[2], 16)] = current
                    if depth and open_dies[depth - 1] is not None:
                        open_dies[depth - 1]["children"].append(current)
            elif current is not None and (attribute := ATTRIBUTE.match(line)):
                name, value = attribute[1], attribute[2].strip()
                if name == "name":
                    current[name] = value.rsplit("): ", 1)[-1] if value.startswith("(indirect") else value
                    if current["tag"] == "subprogram" and current[name].startswith("gmb_"):
                        self.functions.setdefault(current[name], []).append(current)
                elif name == "type":
                    current[name] = int(value.strip("<>"), 16)
                elif name != "low_pc":
                    current[name] = int(value.split()[0].rstrip(":"), 0) if value[0].isdigit() else 0
                else:
                    current[name] = True
        if dump.wait() != 0:
            die(f"readelf cannot read {path}")

    def function(self, name):
        defined = [f for f in self.functions.get(name, []) if f.get("low_pc") and f.get("external")]
        return defined[0] if defined else None

    def strip(self, offset):
        """Past typedefs and const; (entry or None for void, whether const was on the way)."""
        const = False
        entry = self.dies.get(offset)
        while entry is not None and entry["tag"] in ("typedef", "const_type"):
            const |= entry["tag"] == "const_type"
            entry = self.dies.get(entry.get("type"))
        return entry, const

    def type(self, offset, structs, depth=0):
        entry, const = self.strip(offset)
        if entry is None:
            return "void"
        tag, name, size = entry["tag"], entry.get("name", ""), entry.get("byte_size", 0)
        if tag == "base_type":
            # DWARF: 4 float, 5 and 6 signed, 7 and 8 unsigned, 2 boolean.
            kind = {4: "float", 5: "signed", 6: "signed", 7: "unsigned", 8: "unsigned", 2: "boolean"}
            return "void" if name == "()" else f"{kind.get(entry.get('encoding'), 'other')} {size}"
        if tag == "subroutine_type" or name.startswith(("extern ", "core::option::Option<", "Option<")):
            return "function" if tag == "subroutine_type" else "pointer to function"
        if tag == "pointer_type":
            pointee, pointee_const = self.strip(entry.get("type"))
            if self.rust:
                pointee_const = name.startswith("*const ")
            if pointee is not None and pointee["tag"] == "subroutine_type":
                return "pointer to function"
            return f"pointer to {'const ' if pointee_const else ''}{self.type(entry.get('type'), structs, depth + 1)}"
        if tag == "array_type":
            lengths = [c.get("count", c.get("upper_bound", -1) + 1) for c in entry["children"]]
            return f"{self.type(entry['type'], structs, depth)} x {lengths}"
        if tag == "structure_type" and name.startswith("gmb_"):
            if name not in structs:
                structs[name] = f"{size} bytes:"
                structs[name] += "".join(sorted(f"\n    {m.get('data_member_location', 0):>6} {m['name']}: "
                                                f"{self.type(m['type'], structs)}"
                                                for m in entry["children"] if m["tag"] == "member"))
            return name
        if name in STANDARD:
            return name
        # void in Rust, and opaque types, which nobody looks into.
        return "void" if name in ("c_void", "CUstream_st") or not self.rust and size == 0 else f"{tag} {name} {size}"

    def describe(self, names):
        lines, structs = [], {}
        for name in names:
            function = self.function(name)
            if function is None:
                lines.append(f"{name}: not defined")
                continue
            parameters = [p for p in function["children"] if p["tag"] == "formal_parameter"]
            lines.append(f"{name}: ({', '.join(self.type(p.get('type'), structs) for p in parameters)})"
                         f" -> {self.type(function.get('type'), structs)}")
        lines += [f"struct {name}: {text}" for name, text in sorted(structs.items())]
        return lines


def binary(headers, library, symbols):
    names = read(symbols).split()
    there = Debug(library, rust=True)
    if not there.functions:
        die(f"{library} has no debug information about gmb_ functions: a stripped library can be compared with nothing")
    promised, found = Debug(headers, rust=False).describe(names), there.describe(names)
    for line in promised:
        if line.endswith("not defined"):
            die(f"{line} in the stand-in made from the header")
    if promised != found:
        only = [f"  - {line}" for line in promised if line not in found]
        only += [f"  + {line}" for line in found if line not in promised]
        die("the library (+) is not what its header (-) promises:\n" + "\n".join(only))
    structs = sum(line.startswith("struct ") for line in promised)
    print(f"{len(names)} functions and {structs} structs as in the header")


def main(command="", *rest):
    takes = {"stubs": (stubs, 1), "types": (types, 2), "binary": (binary, 3)}
    call, count = takes.get(command, (None, 0))
    if command == "constants" and len(rest) > 1 and rest[2:] in ((), ("--write",)):
        constants(*rest[:2], bool(rest[2:]))
    elif call and len(rest) == count:
        call(*rest)
    else:
        die(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
