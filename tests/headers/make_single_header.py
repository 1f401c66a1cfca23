#!/usr/bin/env python3
"""Makes the single header from its parts."""

import argparse
import difflib
import pathlib
import re
import sys

# Lowest first: a part includes only parts above it.
PARTS = [
    "detail/abi",
    "result",
    "error",
    "detail/text",
    "detail/json_text",
    "detail/number",
    "detail/date_time_text",
    "detail/redaction",
    "detail/model",
    "schema",
    "detail/walk",
    "detail/violation_collector",
    "validate",
    "detail/json_writer",
    "detail/json_reader",
    "json",
    "json_schema",
    "track_response",
    "track_prompt",
    "track_score",
    "track_metadata",
    "track_group",
    "log_request",
    "detail/compiled_models",
    "date_time",
    "detail/url",
    "detail/http_date",
    "http",
    "detail/exceptions",
    "detail/mutex",
    "transport",
    "config",
    "prepared_request",
    "detail/response_reader",
    "codec",
    "client",
    "retry",
    "retrying_transport",
    "detail/circuit_breaker",
    "outbox",
    "journal",
    "detail/any_transport",
    "tracker",
    "background_tracker",
    "polled_tracker",
    "threaded_transport",
    "testing/recording_transport",
]

# Stands where the macros are put back.
LAST = "detail/misuse"

INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "include"

TEMPLATE = """\
// promptlayer {version}: a client for PromptLayer's track-prompt, in one header
// SPDX-License-Identifier: BSL-1.0
// Generated from the parts in include/promptlayer by tests/headers/make_single_header.py; do not edit.
// Needs Boost.JSON 1.81 or later: link boost_json, or put `#include <boost/json/src.hpp>` in one source file.

#if defined(PROMPTLAYER_SOURCE) && defined(PROMPTLAYER_DETAIL_ABI_HPP) && !defined(PROMPTLAYER_DEFINITIONS)
#error "promptlayer: define PROMPTLAYER_SOURCE before the library is included for the first time"
#endif

#ifndef PROMPTLAYER_SINGLE_HEADER_HPP
#define PROMPTLAYER_SINGLE_HEADER_HPP

// Macros that would rewrite names below are set aside, and put back at the end.
{push}

{first}

{std}
#if defined(PROMPTLAYER_DEFINITIONS)
{definitions}
#endif

{parts}

{pop}

{last}

#endif
"""

# An include in this block, at the outermost level of a part, is needed by definitions only.
DEFINITIONS = "defined(PROMPTLAYER_DEFINITIONS)"


def read(name):
    path = INCLUDE / "promptlayer" / f"{name}.hpp"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        sys.exit(f"{path}: missing, though it is one of the parts of the single header")


def pragmas(name):
    return "\n".join(line for line in read(name).splitlines() if line.startswith("#"))


def part(name, above, std, definitions):
    """Returns the text of a part within its guard; its includes go to `std` and `definitions`."""
    text = read(name).strip()
    if not re.match(r"#ifndef (PROMPTLAYER_\w+_HPP)\n#define \1\n", text) or not text.endswith("\n#endif"):
        sys.exit(f"{name}.hpp: does not stand within an include guard PROMPTLAYER_..._HPP")
    lines, conditions, after_include = [], [], False
    for line in text.splitlines():
        directive = re.match(r"\s*#\s*(if|endif|include)\w*\s*(.*?)\s*$", line)
        kind, rest = directive.groups() if directive else (None, None)
        if kind == "if":
            conditions.append(rest)
        elif kind == "endif":
            conditions.pop()
        elif kind == "include":
            header = re.fullmatch(r"<([^>]+)>.*", rest)
            if not header:
                sys.exit(f"{name}.hpp: {line.strip()}: write it with angle brackets")
            is_ours = header[1].startswith("promptlayer/")
            if is_ours and header[1] not in above:
                sys.exit(f"{name}.hpp: {line.strip()}: not one of the parts above it")
            includes = std if len(conditions) == 1 else definitions if conditions[1:] == [DEFINITIONS] else None
            if is_ours or includes is not None:
                if not is_ours:
                    includes.add(header[1])
                after_include = True
                continue
        if after_include and not line and not lines[-1]:
            continue  # the blank line after removed includes
        after_include = False
        lines.append(line)
    return re.sub(r"\n#if [^\n]*\n+#endif\n", "\n", "\n".join(lines))


def single_header():
    std, definitions, parts = set(), set(), []
    above = {f"promptlayer/detail/{name}.hpp" for name in ("push_macros", "pop_macros", "misuse")}
    for name in PARTS:
        parts.append(part(name, above, std, definitions))
        above.add(f"promptlayer/{name}.hpp")
    last = part(LAST, above, std, definitions)
    includes = lambda headers: "\n".join(f"#include <{header}>" for header in sorted(headers))
    version = re.search(r'\blibrary_version\b[^"]*"([^"]+)"', read("config"))
    if not version:
        sys.exit("config.hpp: holds no library_version")
    return TEMPLATE.format(
        version=version[1],
        push=pragmas("detail/push_macros"),
        first="#include <version>\n\n" + parts[0],  # it defines the condition of DEFINITIONS
        std=includes(std - {"version"}),
        definitions=includes(definitions - std),
        parts="\n\n".join(parts[1:]),
        pop=pragmas("detail/pop_macros"),
        last=last,
    )


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=pathlib.Path, default=INCLUDE / "promptlayer.hpp", metavar="FILE")
    options.add_argument("--check", action="store_true", help="write nothing; fail if FILE is not what would be written")
    options.add_argument("--list", action="store_true", help="print the parts and do nothing else")
    given = options.parse_args()
    if given.list:
        print("\n".join(PARTS))
        return
    made = single_header()
    if not given.check:
        given.output.write_bytes(made.encode())
        return
    found = given.output.read_bytes().decode() if given.output.exists() else ""
    if found != made:
        sys.stdout.writelines(
            difflib.unified_diff(found.splitlines(True), made.splitlines(True), str(given.output), "made from the parts")
        )
        sys.exit(f"{given.output} is stale. Run: python3 tests/headers/make_single_header.py")


main()
