"""What the pytest plugin costs a suite that does not use it: paired runs with and without it.

    python benchmarks/plugin.py [--pairs 15]

Each pair runs `pytest --collect-only` on an empty folder twice, in turn with the plugin first and last, and
prints the median of the times and of the differences, with the quartiles of the differences.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(folder: Path, *more: str) -> float:
    """The time of one run of pytest in `folder`."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *more]
    # Other plugins would only add noise; this one is loaded by its entry point otherwise.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - started
    if done.returncode != 5:  # nothing was collected
        raise SystemExit(f"pytest ended with {done.returncode}: {done.stdout}{done.stderr}")
    return spent


def measure(pairs: int) -> tuple[list[float], list[float]]:
    """Times with and without the plugin, pair by pair; the order changes with each pair."""
    with_it: list[float] = []
    without: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
    differences = [1e3 * (one - other) for one, other in zip(with_it, without, strict=True)]
    low, middle, high = statistics.quantiles(differences, n=4)
    print(f"with the plugin     median {1e3 * statistics.median(with_it):7.1f} ms")
    print(f"without             median {1e3 * statistics.median(without):7.1f} ms")
    print(f"difference          median {middle:7.1f} ms (quartiles {low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
