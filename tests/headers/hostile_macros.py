#!/usr/bin/env python3
"""Writes a source file that defines macros as garbage, includes the library and checks that the macros are still defined.

usage: hostile_macros.py object|function|engine INCLUDE OUTPUT [HEADER...]

object, function: defines the macros of push_macros.hpp in that form before <promptlayer.hpp>.
engine: defines these and other macros after all headers of others that the library includes, and before
<promptlayer.hpp> and each HEADER.
"""

import pathlib
import re
import sys

# Names that engines and other libraries define. They are not set aside, because the library has no such names. The
# standard library and Boost may have them.
ENGINE = """
    Any Array Assert Bind Body Boolean Buffer Bytes Call Callable Callback Channel Char Class Client Code Color Complete
    Completion Component Config Connection Context Count Data Debug Delegate Delete Double Empty End Entry Enum Error
    Event Expect Failure False File Float Format Frame Func Function Future Get Group Handle Hash Header Id Index Info
    Init Input Int Integer Interface Invoke Item Iterator Json Key Kind Length Level Limit Link List Load Lock Log Loop
    Map Max Member Memory Message Method Min Mode Module Move Mutex Name New Next Node Null Number Object Option Optional
    Other Others Out Output Own Pair Parser Path Policy Pool Port Print Private Promise Property Ptr Public Queue Random
    Range Read Record Ref Reply Response Result Ret Rule Rules Run Schema Self Send Server Service Set Settings Size Sleep
    Span State Static Status Stream String Struct Swap System Task Template Test Text This Thread Time Timeout Token Trace
    Traits Transform True Tuple Type Types Unit Unknown Update Url User Variable Variant Vector Version View Void Wait
    Warning Write X Y Z
    API ASSERT BIT CHECK DEBUG DEFAULT ENSURE EXPECT FAIL FORCEINLINE HIGH INFO INLINE INPUT INTERNAL LOG LOW MAX MIN
    OUTPUT REQUIRE SUCCESS THROW TRACE WARN
    assert_true byte_t container_of debug degrees expect_value fallthrough forever huge inout interrupts
    makedev minor major nil noreturn pascal property radians restrict sq unix linux unless verify_noerr word
""".split()

form, include, output, *others = sys.argv[1:]
library = pathlib.Path(include) / "promptlayer"
set_aside = re.findall(r'push_macro\("(\w+)"\)', (library / "detail" / "push_macros.hpp").read_text(encoding="utf-8"))
names = set(set_aside)
parameters, arguments = ("(...)", "(1)") if form == "function" else ("", "")
lines = []
if form == "engine":
    names |= set(ENGINE)
    for header in [library.parent / "promptlayer.hpp", *(library / f"{other}.hpp" for other in others)]:
        text = header.read_text(encoding="utf-8")
        conditions = []
        for line in text.splitlines():
            directive = re.match(r"#\s*(if|endif|include)\w*\s*(\S*)", line)
            if not directive:
                continue
            if directive[1] == "if":
                conditions.append(directive[2])
            elif directive[1] == "endif":
                conditions.pop()
            elif conditions[1:] in ([], ["defined(PROMPTLAYER_DEFINITIONS)"]) and "<promptlayer/" not in line:
                lines.append(f"#include {directive[2]}")
    lines.sort(key=lambda line: "<boost/" in line)
else:
    # These must be harmless, whatever the list holds.
    names |= {"check", "verify", "TEXT", "ERROR", "DELETE", "min", "max", "GetMessage", "send", "Value"}

lines += [f"#undef {name}\n#define {name}{parameters} @{name}" for name in sorted(names)]
lines += ["#include <promptlayer.hpp>"]
lines += [f"#include <promptlayer/{other}.hpp>" for other in others]
lines += ["#define SPELLED_(...) #__VA_ARGS__", "#define SPELLED(x) SPELLED_(x)"]
lines += [f'static_assert(std::string_view{{SPELLED({name}{arguments})}} == "@{name}");' for name in sorted(names)]
with open(output, "w", encoding="utf-8", newline="\n") as file:
    file.write("\n".join(lines) + "\n")
