"""Run the benchmarks named on the command line: ``python -m tests.benchmarks [feed launch build wheels cluster_…]``.

Without names those of one machine; ``make bench-cluster`` names the others.
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = ("feed", "launch", "build", "wheels")


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main()
