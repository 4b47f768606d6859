"""Ten thousand damaged files against every reader: python tests/long/mutate_files.py --help.

Each kind of file is read in a process of its own. The program ends with status 1 if a file is not
answered: another error than ValueError, a message of no use, a crash, more than --seconds, or a
process that grows by more than --megabytes. Such files are kept in --keep.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "robustness")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--files", type=int, default=10_000, help="mutated files in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of one file")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="limit of a process")
    parser.add_argument("--keep", type=Path, default=Path("unanswered"))
    args = parser.parse_args()

    from formats import FORMATS

    kinds = [number for number, kind in enumerate(FORMATS) if args.only in kind.name]
    context = multiprocessing.get_context("spawn")
    print(
        f"{'kind':20}{'files':>8}{'read':>8}{'refused':>9}{'slowest':>9}{'grown':>10}  not answered"
    )
    faults = 0
    for number in kinds:
        count = args.files // len(kinds)
        receiver, sender = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            work = (number, count, args.seed, args.seconds, Path(folder), args.keep, sender)
            child = context.Process(target=read_mutated, args=work)
            child.start()
            sender.close()
            last = (0, 0, 0.0, 0.0, [])
            try:
                while True:
                    last = receiver.recv()
            except EOFError:
                child.join()
            done, refused, slowest, grown, wrong = last
            if child.exitcode:
                wrong = [*wrong, f"the process ended with {child.exitcode}"]
                keep(args.keep, FORMATS[number].name, Path(folder))
        if grown > args.megabytes:
            wrong = [*wrong, f"grew by {grown:.0f} MB"]
        faults += len(wrong)
        print(
            f"{FORMATS[number].name:20}{done:8}{done - refused:8}{refused:9}"
            f"{slowest:7.2f} s{grown:7.0f} MB  {len(wrong)}"
        )
        for fault in wrong[:10]:
            print(f"    {fault}")
    print(f"{faults} not answered")
    return 1 if faults else 0


def read_mutated(
    number: int, count: int, seed: int, seconds: float, folder: Path, kept: Path, sender: Connection
) -> None:
    """Read damaged files of one kind and report now and then; runs in a process of its own."""
    from formats import FORMATS
    from mutations import mutations, try_reader

    kind = FORMATS[number]
    paths = kind.write(folder)
    for path in paths:
        try:
            kind.read(path)  # libraries are loaded before memory is measured
        except ValueError:
            continue
    before = peak()
    wrong: list[str] = []
    done, refused, slowest = 0, 0, 0.0
    signal.signal(signal.SIGALRM, too_slow)
    for index, path in enumerate(paths):
        for mutated in mutations(path, count // len(paths), seed=1000 * seed + index):
            signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
            outcome = try_reader(kind, mutated, seconds)
            signal.setitimer(signal.ITIMER_REAL, 0)
            done, refused = done + 1, refused + outcome.refused
            slowest = max(slowest, outcome.seconds)
            if outcome.fault:
                wrong.append(f"{path.name}: {outcome.fault}")
                keep(kept, kind.name, mutated)
            if done % 50 == 0 or outcome.fault:
                sender.send((done, refused, slowest, peak() - before, wrong))
    sender.send((done, refused, slowest, peak() - before, wrong))


def too_slow(*_: object) -> None:
    raise TimeoutError("stopped")


def peak() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def keep(kept: Path, kind: str, source: Path) -> None:
    """Copy what was not answered."""
    kept.mkdir(parents=True, exist_ok=True)
    name = f"{kind.replace(' ', '_')}_{time.time_ns()}_{source.name}"
    if source.is_dir():
        shutil.copytree(source, kept / name, dirs_exist_ok=True)
    else:
        shutil.copy2(source, kept / name)


if __name__ == "__main__":
    sys.exit(main())
