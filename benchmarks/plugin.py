"""What the pytest plugin costs a suite that does not use it: paired runs with and without it.

    python benchmarks/plugin.py [--pairs 15]

Each pair runs `pytest --collect-only` on an empty folder twice, in turn with the plugin first and last.
Printed are medians of the times and of the differences, with the quartiles of these: by the clock, and of the
processor, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(folder: Path, *more: str) -> tuple[float, float]:
    """The time of one run of pytest in `folder`: by the clock, and of the processor."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *more]
    # Other plugins would only add noise; this one is loaded by its entry point otherwise.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Compiled files are kept, as those of an installation are, and leave the checkout alone.
    environment |= {"PYTHONPYCACHEPREFIX": str(folder.parent / f"{folder.name}-compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started, used = time.perf_counter(), processor()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - started, processor() - used
    if done.returncode != 5:  # nothing was collected
        raise SystemExit(f"pytest ended with {done.returncode}: {done.stdout}{done.stderr}")
    return spent


def processor() -> float:
    """The processor time of all processes that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(pairs: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Times with and without the plugin, pair by pair; the order changes with each pair."""
    with_it: list[tuple[float, float]] = []
    without: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "suite")
        folder.mkdir()
        ways = ((with_it, ("-p", "normdoctor.pytest_plugin")), (without, ("-p", "no:normdoctor")))
        for _, more in ways:  # once for the caches of files
            seconds(folder, *more)
        for number in range(pairs):
            for times, more in ways if number % 2 else reversed(ways):
                times.append(seconds(folder, *more))
    return with_it, without


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    with_it, without = measure(parser.parse_args().pairs)
    for index, name in enumerate(("clock", "processor")):
        ours, theirs = ([1e3 * times[index] for times in runs] for runs in (with_it, without))
        low, middle, high = statistics.quantiles(
            [one - other for one, other in zip(ours, theirs, strict=True)], n=4
        )
        print(
            f"{name:10} with the plugin {statistics.median(ours):7.1f} ms, "
            f"without {statistics.median(theirs):7.1f} ms, "
            f"difference {middle:5.1f} ms (quartiles {low:.1f} to {high:.1f})"
        )


if __name__ == "__main__":
    main()
