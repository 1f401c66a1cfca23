#!/usr/bin/env python3
"""Writes a source file that defines every macro of push_macros.hpp as garbage, includes the library, and proves that
the macros are there afterwards.

usage: hostile_macros.py object|function push_macros.hpp OUTPUT
"""

import re
import sys

form, listed, output = sys.argv[1:]
with open(listed, encoding="utf-8") as file:
    names = set(re.findall(r'push_macro\("(\w+)"\)', file.read()))
# Whatever the list says, these have to be harmless.
names |= {"check", "verify", "TEXT", "ERROR", "DELETE", "min", "max", "GetMessage"}
parameters, arguments = {"object": ("", ""), "function": ("(...)", "(1)")}[form]

lines = [f"#define {name}{parameters} @{name}" for name in sorted(names)]
lines += ["#include <promptlayer.hpp>", "#define SPELLED_(...) #__VA_ARGS__", "#define SPELLED(x) SPELLED_(x)"]
lines += [f'static_assert(std::string_view{{SPELLED({name}{arguments})}} == "@{name}");' for name in sorted(names)]
with open(output, "w", encoding="utf-8", newline="\n") as file:
    file.write("\n".join(lines) + "\n")
