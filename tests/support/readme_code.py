#!/usr/bin/env python3
"""Extracts the code of the README that must compile: the ```cpp block after each line `<!-- compiled: NAME -->`. With
`<!-- compiled: NAME + main -->` an empty main function is added.

usage: readme_code.py README              prints the names
       readme_code.py README NAME OUTPUT  writes that block
"""

import re
import sys

readme, *rest = sys.argv[1:]
with open(readme, encoding="utf-8") as file:
    text = file.read()
markers = re.findall(r"<!-- compiled: (\w+)", text)
blocks = {
    name: code + ("\nint main() {}\n" if main else "")
    for name, main, code in re.findall(
        r"^<!-- compiled: (\w+)( \+ main)? -->\n+```cpp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
}
if not markers or markers != list(blocks):
    sys.exit(f"{readme}: each marker must stand before a ```cpp block; markers: {markers}, blocks: {list(blocks)}")
if not rest:
    print("\n".join(blocks))
else:
    name, output = rest
    with open(output, "w", encoding="utf-8", newline="\n") as file:
        file.write(blocks[name])
