"""Feeds damaged files to every reader: each must give a result or an `InputError`, soon and in bounded memory.

python tests/fuzz.py --inputs 50000
python tests/fuzz.py --reader policy --only 1234     # one input again, with its traceback
"""

# ruff: noqa: T201  (a command prints)
from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from unittest.mock import patch

from diffpolicy import InputError, _pairs
from fuzz_mutations import mutate, with_digest
from fuzz_readers import READERS, Reader, cached

SECONDS = 10
"""Of the processor that one input may take, so that a busy machine finds no hang that there is not."""
WAITING = 12
"""Times as long by the clock, for what only waits."""
MEMORY = 1536 * 2**20
"""Bytes that one input may take on top of what the process has."""


class HangError(BaseException):
    """An input took too long; no reader that catches `Exception` hides it."""


@dataclass
class Tally:
    """What became of a reader's inputs.

    Args:
        failures: number of an input, and what it raised. worst_s: most of the processor's time that one took.
        peak_mib: most memory that the process had.
    """

    reader: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    worst_s: float = 0.0
    peak_mib: int = 0


def damaged(reader: Reader, number: int) -> dict[str, bytes]:
    """The files of an input: a function of the reader's name and a number alone."""
    random = Random(f"{reader.name} {number}")
    files = dict(random.choice(reader.samples()))
    name = random.choice(list(reader.forms))
    files[name] = mutate(files[name], reader.forms[name], random)
    if name == "policy.safetensors" and random.random() < 0.9:
        files["policy.json"] = with_digest(files["policy.json"], "tensors_sha256", files[name])
    return files


def attempt(reader: Reader, number: int) -> str:
    """Reads an input: `accepted` or `refused`.

    Raises:
        BaseException: whatever the reader raises but an `InputError` of one line.
    """
    files = damaged(reader, number)
    try:
        # two files that do not fit are here no pair that somebody is writing, so nobody is waited for
        with bounded(), patch.object(_pairs, "PAUSES_S", (0.0,)):
            read(reader, files)
    except InputError as error:
        message = str(error)
        if not message or len(message.splitlines()) > 1 or len(message) > 2000:
            raise AssertionError(f"a sentence was expected, got {message[:500]!r}") from error
        message.encode()
        return "refused"
    return "accepted"


def read(reader: Reader, files: Mapping[str, bytes]) -> None:
    """Gives a reader a folder with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        reader.read(Path(folder))


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Ends what takes longer, and refuses it more memory than `MEMORY`."""

    def stop(*_: object) -> None:
        raise HangError(f"no end after {seconds:g} s")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WAITING * seconds))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    for _, timer, most_s in timers:
        signal.setitimer(timer, most_s)
    try:
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for (number, _, _), handler in zip(timers, before, strict=True):
            signal.signal(number, handler)


def run(reader: Reader, numbers: range, most_seconds: float = float("inf")) -> Tally:
    """Reads the inputs of these numbers, as many as the time allows."""
    tally = Tally(reader.name)
    read(reader, reader.samples()[0])  # imports what it needs, which takes its time and memory once
    begin = time.monotonic()
    for number in numbers:
        if time.monotonic() - begin > most_seconds:
            break
        start = time.process_time()
        tally.inputs += 1
        try:
            outcome = attempt(reader, number)
        except (Exception, HangError) as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            tally.failures.append((number, f"{type(error).__name__} in {where}: {' '.join(str(error).split())[:160]}"))
        else:
            setattr(tally, outcome, getattr(tally, outcome) + 1)
        tally.worst_s = max(tally.worst_s, time.process_time() - start)
    tally.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return tally


def _apart(name: str, inputs: int, most_seconds: float) -> Tally:
    """`run` in a process of its own, which may die."""
    words = [
        sys.executable,
        __file__,
        "--reader",
        name,
        "--inputs",
        str(inputs),
        "--seconds",
        str(most_seconds),
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        return Tally(name, failures=[(-1, f"the process ended with status {done.returncode}: {said}")])
    return Tally(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Prints a line for each reader, then what failed; ends with 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=50_000, help="over all readers, by their weights")
    parser.add_argument("--reader", choices=[reader.name for reader in READERS], help="this one alone")
    parser.add_argument("--only", type=int, help="the number of one input")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of a reader, at most")
    parser.add_argument("--json", action="store_true", help="the tallies as JSON, in this process")
    options = parser.parse_args()
    readers = [cached(reader) for reader in READERS if options.reader in (None, reader.name)]
    if options.only is not None:
        print(*(f"{name}: {content[:2000]!r}" for name, content in damaged(readers[0], options.only).items()), sep="\n")
        print(attempt(readers[0], options.only))
        return 0
    total = sum(reader.weight for reader in readers)
    print(f"{'reader':25}{'inputs':>8}{'accepted':>10}{'refused':>9}{'failures':>10}{'worst s':>9}{'peak MiB':>10}")
    tallies = []
    for reader in readers:
        count = round(options.inputs * reader.weight / total)
        if options.json:
            print(json.dumps(asdict(run(reader, range(count), options.seconds))))
            continue
        t = _apart(reader.name, count, options.seconds)
        tallies.append(t)
        counts = f"{t.reader:25}{t.inputs:8}{t.accepted:10}{t.refused:9}{len(t.failures):10}"
        print(f"{counts}{t.worst_s:9.2f}{t.peak_mib:10}", flush=True)
    for t in tallies:
        for number, what in t.failures[:20]:
            print(f"{t.reader}, input {number}: {what}")
    return int(any(t.failures for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
