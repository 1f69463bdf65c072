"""What one more package costs beside 50,000 kept files, as a ratio to what it costs beside none (goal: 1)."""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path

from tests.index import Index
from workflows.builder.wheels import Package, Wheels
from workflows.settings import Settings

FILES = 50_000
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder, Index().serving() as index:
        for number in range(ROUNDS):
            index.add(f"package{number}")
        index.add("large", files={f"large/{number // 500}/{number}.py": b"" for number in range(FILES)})
        empty, full = (_wheels(Path(folder) / name, index) for name in ("empty", "full"))
        full.add([Package(name="large", version="1.0")], "3.11")
        seconds = [(_cpu_seconds(full, number), _cpu_seconds(empty, number)) for number in range(ROUNDS)]
    beside, alone = (statistics.median(each) for each in zip(*seconds, strict=True))
    print(f"one more package beside {FILES:,} files: {beside:.3f} s of CPU; beside none: {alone:.3f} s")
    print(f"ratio {beside / alone:.2f} (goal: 1)")


def _wheels(state: Path, index: Index) -> Wheels:
    return Wheels(Settings(state=state, index_url=index.url))


def _cpu_seconds(wheels: Wheels, number: int) -> float:
    before = _used()
    assert wheels.add([Package(name=f"package{number}", version="1.0")], "3.11") == 1
    return _used() - before


def _used() -> float:
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


if __name__ == "__main__":
    main()
