#!/usr/bin/env python3
"""Changes one comparison, bound or boolean of a header at a time, and lists the changes that no test finds.

  tests/mutation/mutate.py [--jobs N] [--sample N] [--list] [HEADER...]

HEADER is a path below include/promptlayer, such as outbox.hpp; all headers of TESTS without one. Each change is
compiled into the tests of its header alone. A change that does not compile or that a test does not survive is
found. The others are compared with survivors.txt, which explains those that cannot be found. Fails if there are
more. Takes about ten seconds a change on one core; --list prints some thousands.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = ROOT / 'include' / 'promptlayer'
EXPLAINED = pathlib.Path(__file__).with_name('survivors.txt')

# The tests of each header, the quickest first. Each file is a program of its own, with support/main.cpp. Options of
# the compiler may follow its name.
TESTS = {
    'codec.hpp': ['core/decode.cpp', 'core/encode.cpp', 'core/client.cpp', 'core/schema_rules.cpp'],
    'config.hpp': ['core/config.cpp'],
    'date_time.hpp': ['core/date_time.cpp'],
    'detail/circuit_breaker.hpp': ['delivery/outbox.cpp', 'delivery/outbox_simulation.cpp'],
    'detail/date_time_text.hpp': ['core/date_time.cpp'],
    'detail/http_date.hpp': ['core/http.cpp', 'core/decode.cpp'],
    'detail/json_reader.hpp': ['core/from_json.cpp', 'core/schema_rules.cpp', 'core/from_json.cpp -D_GLIBCXX_ASSERTIONS'],
    'detail/json_text.hpp': ['core/json_text.cpp'],
    'detail/json_writer.hpp': ['core/to_json.cpp', 'core/schema_rules.cpp', 'core/to_json.cpp -fsanitize=address'],
    'detail/number.hpp': ['core/number.cpp', 'core/from_json.cpp'],
    'detail/redaction.hpp': ['core/text.cpp', 'core/decode.cpp'],
    'detail/response_reader.hpp': ['core/decode.cpp', 'core/schema_rules.cpp'],
    'detail/text.hpp': ['core/text.cpp', 'core/text.cpp -DPROMPTLAYER_NO_SIMD', 'core/to_json.cpp', 'core/http.cpp'],
    'detail/url.hpp': ['core/config.cpp', 'core/http.cpp'],
    'detail/walk.hpp': ['core/validate.cpp', 'core/schema_rules.cpp'],
    'error.hpp': ['core/error.cpp', 'core/decode.cpp', 'core/schema_rules.cpp'],
    'file_journal.hpp': ['delivery/file_journal.cpp', 'delivery/journal_faults.cpp'],
    'http.hpp': ['core/http.cpp', 'core/decode.cpp'],
    'outbox.hpp': ['delivery/outbox.cpp', 'delivery/outbox_simulation.cpp'],
    'retry.hpp': ['delivery/retry.cpp', 'delivery/outbox.cpp'],
    'retrying_transport.hpp': ['delivery/retrying_transport.cpp'],
    'tracker.hpp': ['delivery/polled_tracker.cpp', 'delivery/background_tracker.cpp'],
}

# What is changed into what. The format of the sources has spaces around operators, or the end of the line after them,
# and none around template arguments.
CHANGES = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r' <(?= |$)', ' <='), (r' <=(?= |$)', ' <'), (r' >(?= |$)', ' >='), (r' >=(?= |$)', ' >'),
    (r' ==(?= |$)', ' !='), (r' !=(?= |$)', ' =='),
    (r' &&(?= |$)', ' ||'), (r' \|\|(?= |$)', ' &&'),
    (r'(?<=[ (])!(?=[\w(])', ''),
    (r'\btrue\b', 'false'), (r'\bfalse\b', 'true'),
    (r' \+ 1\b', ''), (r' - 1\b', ''),
    (r'\+\+', '--'),
    (r'\bstd::min\b', 'std::max'), (r'\bstd::max\b', 'std::min'),
    (r"(?<![\w.'])(\d[\d']*)(?![\w.])", lambda match: str(int(match[1].replace("'", '')) + 1)),
]]


class Mutant:
    def __init__(self, header, line, column, before, after):
        self.header, self.line, self.column, self.before, self.after = header, line, column, before, after

    def key(self):
        return f'{self.header}: {self.before.strip()}  ->  {self.after.strip()}'


def compiled_lines(path, compiler):
    """Returns the indexes of the lines that are compiled on this machine."""
    result = subprocess.run([*compiler, '-E', '-I', ROOT / 'include', path], stdout=subprocess.PIPE, text=True, check=True)
    lines, here, number = set(), False, 0
    for line in result.stdout.splitlines():
        if marker := re.match(r'# (\d+) "(.*)"', line):
            number, here = int(marker[1]) - 1, marker[2] == str(path)
            continue
        if here and line.strip():
            lines.add(number)
        number += 1
    return lines


def mutants_of(header, compiler):
    """Yields the changes of each line of code."""
    compiled = compiled_lines(INCLUDE / header, compiler)
    for number, line in enumerate((INCLUDE / header).read_text().splitlines()):
        if number not in compiled:
            continue
        code = re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])\'', lambda text: '"' * len(text[0]), line)
        code = code.split('//')[0]
        if code.lstrip().startswith(('#', 'template', 'static_assert', 'requires', 'namespace', 'concept')):
            continue
        for pattern, replacement in CHANGES:
            for match in pattern.finditer(code):
                changed = match.expand(replacement) if isinstance(replacement, str) else replacement(match)
                yield Mutant(header, number, match.start(), line, line[:match.start()] + changed + line[match.end():])


def unchanged(header):
    line = (INCLUDE / header).read_text().splitlines()[0]
    return Mutant(header, 0, 0, line, line)


def survives(mutant, work, compiler, main):
    """Returns true if all tests of the header pass with the change."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=work))
    try:
        shutil.copytree(INCLUDE, folder / 'promptlayer')
        path = folder / 'promptlayer' / mutant.header
        lines = path.read_text().splitlines(keepends=True)
        lines[mutant.line] = mutant.after + '\n'
        path.write_text(''.join(lines))
        headers = [f'#include <promptlayer/{part}.hpp>\n' for part in parts()]
        (folder / 'promptlayer.hpp').write_text('#pragma once\n' + ''.join(headers))
        for test in TESTS[mutant.header]:
            program = folder / 'test'
            name, *arguments = test.split()
            built = subprocess.run(
                [*compiler, '-I', folder, f'-DPROMPTLAYER_TEST_DATA="{ROOT}/tests/data"', *arguments,
                 ROOT / 'tests' / name, main, '-o', program, '-lboost_json', '-pthread'],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if built.returncode != 0:
                return False
            try:
                ran = subprocess.run(['prlimit', '--cpu=60', program, '--abort-after=1', '--no-breaks'], cwd=folder,
                                     timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                return False
            if ran.returncode != 0:
                return False
        return True
    finally:
        shutil.rmtree(folder)


def parts():
    """Returns the public headers of the single header."""
    source = (ROOT / 'tests' / 'headers' / 'make_single_header.py').read_text()
    return re.findall(r'^    "([\w/]+)",$', source, re.MULTILINE)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('--jobs', type=int, default=os.cpu_count())
    arguments.add_argument('--sample', type=int, help='only so many changes, taken at random')
    arguments.add_argument('--list', action='store_true', help='prints the changes and tests none')
    arguments.add_argument('header', nargs='*')
    options = arguments.parse_args()
    if unknown := set(options.header) - set(TESTS):
        arguments.error(f'no tests are named for {", ".join(sorted(unknown))}')
    compiler = [os.environ.get('CXX', 'g++'), '-std=c++20', '-O0', '-w']

    headers = options.header or list(TESTS)
    mutants = [mutant for header in headers for mutant in mutants_of(header, compiler)]
    if options.sample:
        mutants = random.Random(1).sample(mutants, min(options.sample, len(mutants)))
    if options.list:
        print('\n'.join(mutant.key() for mutant in mutants))
        return 0
    explained = {line.split('  |  ')[0] for line in EXPLAINED.read_text().splitlines() if '  |  ' in line}
    unexplained = 0
    with tempfile.TemporaryDirectory() as work:
        entry = pathlib.Path(work) / 'main.o'
        subprocess.run([*compiler, '-I', ROOT / 'include', '-c', ROOT / 'tests/support/main.cpp', '-o', entry], check=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for header, passes in zip(headers, pool.map(lambda header: survives(unchanged(header), work, compiler, entry),
                                                        headers)):
                if not passes:
                    sys.exit(f'the tests of {header} fail without a change')
            results = pool.map(lambda mutant: survives(mutant, work, compiler, entry), mutants)
            survived = 0
            for mutant, result in zip(mutants, results):
                if not result:
                    continue
                survived += 1
                if mutant.key() not in explained:
                    unexplained += 1
                    print(f'survives, line {mutant.line + 1}: {mutant.key()}', flush=True)
    print(f'{len(mutants)} changes, {len(mutants) - survived} found, {survived - unexplained} explained, '
          f'{unexplained} unexplained')
    return 1 if unexplained else 0


if __name__ == '__main__':
    sys.exit(main())
