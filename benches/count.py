#!/usr/bin/env python3
"""Counts the instructions of one mint, and of one request through the service without sockets, and compares them
with benches/counts.json: `make bench-check`. With --renew it writes that file instead. In both cases, a mint may
take at most 1.5 times the instructions of the bare signature.

Unlike times, instruction counts are the same on a busy machine. They change with the compiler, so the file names the
compiler version; a processor without AVX2 runs other code paths in the cryptography."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
COUNTS = HERE / "counts.json"
PROGRAM = HERE.parent / "target/release/examples/count"
# Each operation is counted in a run with FEW and in a run with MANY repetitions. The difference between the two counts
# does not include the start of the program, which is the same in both runs.
FEW, MANY = 500, 2500
SLACK = 0.05
MINT_OF_HMAC = 1.5
RENEW = "if the new cost is intended, run `make bench-counts` and commit benches/counts.json"


def instructions(what, times):
    if not shutil.which("valgrind"):
        sys.exit("Install it: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as scratch:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out"]
        ran = subprocess.run([*valgrind, PROGRAM, what, str(times)], capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or not collected:
        sys.exit(f"{what} under valgrind failed:\n{ran.stderr}")
    return int(collected[1])


def count(what):
    return round((instructions(what, MANY) - instructions(what, FEW)) / (MANY - FEW))


def main():
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    counted = {what: count(what) for what in ("hmac", "mint", "router")}
    if counted["mint"] > MINT_OF_HMAC * counted["hmac"]:
        sys.exit(f"A mint takes {counted['mint']} instructions, more than {MINT_OF_HMAC} × the {counted['hmac']} of its signature.")
    if "--renew" in sys.argv:
        COUNTS.write_text(json.dumps({"compiler": compiler, "instructions": counted}, indent=2) + "\n")
        print(COUNTS.read_text(), end="")
        return
    known = json.loads(COUNTS.read_text())
    if known["compiler"] != compiler:
        sys.exit(f"benches/counts.json is for {known['compiler']}, but this compiler is {compiler}: {RENEW}")
    failed = False
    for what, number in counted.items():
        change = number / known["instructions"][what] - 1
        failed |= abs(change) > SLACK
        print(f"{what:8} {number:7} instructions, {change:+.1%} against {known['instructions'][what]}")
    if failed:
        sys.exit(f"A count has changed by more than {SLACK:.0%}: {RENEW}.")


if __name__ == "__main__":
    main()
