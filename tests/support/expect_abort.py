#!/usr/bin/env python3
"""Proves that a program ends by a signal or an abort, and says why.

usage: expect_abort.py TEXT PROGRAM [ARGUMENT...]
"""

import subprocess
import sys

expected, *command = sys.argv[1:]
done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
if 0 <= done.returncode <= 2:
    sys.exit(f"{command}: returned {done.returncode}, which is no abort\n{done.stdout}")
if expected not in done.stdout:
    sys.exit(f"{command}: does not say: {expected}\n{done.stdout}")
