"""Programs killed at random moments, or writing to a full disk: python tests/long/kill_programs.py.

Each command runs once undisturbed. Then it is started again and again in another folder and killed
with SIGKILL after a random part of its time (or with --full: not allowed to write files of more
than a random size). After each time every file that is there under its final name must be whole:
the same bytes as in the undisturbed run, unless it is listed as one that grows. At last the command
runs to its end: the same files with the same bytes must be there, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "demo": "{python} demo.py -i examples -s {out}",
    "prepare": "{python} -m v3recon prepare -i {photos} -s {out}",
    "batch": "{python} -m v3recon batch {photos} -s {out}",
}
GROWING = ("config.json", "log.jsonl", "state.pt", "events", "progress", "last", "best")
"""Parts of names of files that a program goes on with, so that they differ before its end."""
UNFINISHED = (".part/", ".partial/")
"""Folders that a program works in and that are gone at its end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program", nargs="?", default="demo", choices=(*COMMANDS, "other"))
    parser.add_argument("--command", help="instead of the program's; {out} is the folder")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--finish-every", type=int, default=10, help="run to the end so often")
    parser.add_argument("--full", action="store_true", help="a full disk instead of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, default=ROOT / "examples")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    template = args.command or COMMANDS.get(args.program) or parser.error("give --command")
    with tempfile.TemporaryDirectory() as work:

        def command(out: Path) -> list[str]:
            places = {"python": sys.executable, "photos": args.photos}
            return shlex.split(template.format(out=out, **places))

        whole, out = Path(work) / "whole", Path(work) / "out"
        start = time.perf_counter()
        status, message = run(command(whole))
        seconds = time.perf_counter() - start
        if status:
            print(f"the undisturbed run ended with {status}: {message}")
            return 2
        expected = digests(whole)
        largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        print(f"undisturbed: {seconds:.1f} s, {len(expected)} files, the largest {largest} bytes")
        faults = 0
        for number in range(1, args.kills + 1):
            if args.full:
                limit = int(chance.uniform(0, largest))
                status, message = run(command(out), file_limit=limit)
                if "Traceback" in message:
                    faults += complain(number, f"a traceback with files up to {limit} bytes")
            else:
                run(command(out), kill_after=chance.uniform(0, seconds))
            faults += compare(number, expected, digests(out), at_the_end=False)
            if number % args.finish_every == 0 or number == args.kills:
                status, message = run(command(out))
                if status:
                    faults += complain(number, f"the next run ended with {status}: {message}")
                faults += compare(number, expected, digests(out), at_the_end=True)
                hidden = [p.name for p in out.rglob(".*") if p.is_file()]
                if hidden:
                    faults += complain(number, f"left behind: {hidden}")
                print(f"{number} of {args.kills}: {faults} faults", flush=True)
                shutil.rmtree(out, ignore_errors=True)
    return 1 if faults else 0


def run(
    command: list[str], *, kill_after: float | None = None, file_limit: int | None = None
) -> tuple[int, str]:
    """Status and the end of what a command says; negative where a signal ended it."""

    def limit_files() -> None:
        if file_limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=limit_files,
    )
    try:
        said, _ = child.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        said, _ = child.communicate()
    return child.returncode, said[-2000:]


def digests(folder: Path) -> dict[str, str]:
    """Digest of each file under its final name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.parts[-2:])
    }


def compare(
    number: int, expected: dict[str, str], found: dict[str, str], *, at_the_end: bool
) -> int:
    faults = 0
    for name, digest in found.items():
        if not at_the_end and any(one in name for one in UNFINISHED):
            continue
        if name not in expected:
            faults += complain(number, f"unexpected file {name}")
        elif digest != expected[name] and not any(part in name for part in GROWING):
            faults += complain(number, f"{name} has other bytes")
    if at_the_end:
        for name in expected.keys() - found.keys():
            faults += complain(number, f"{name} is missing")
    return faults


def complain(number: int, text: str) -> int:
    print(f"  {number}: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
