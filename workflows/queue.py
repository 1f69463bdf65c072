"""Who may build next: one pure function, used by every engine.

Lane first, then owners in turn, then age; caps for the farm, for each owner and for each client network.

Source: ../shared/design.md, *Engines*.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from workflows.build import Lane
from workflows.image import BuildName


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A build in the queue.

    Args:
        name: The attempt.
        lane: Who waits for whom.
        owner: Whose repository it is; owners take turns.
        network: Client network of who asked; empty: no network's cap counts it.
        created: Seconds since the epoch.
    """

    name: BuildName
    lane: Lane
    owner: str
    network: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A build that runs, as far as the caps ask."""

    owner: str
    network: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many builds may run at the same time: in all, for one owner, for one client network."""

    farm: int
    owner: int
    network: int


def admissible(
    waiting: Sequence[Waiting], running: Sequence[Running], limits: Limits, served: Mapping[str, float] | None = None
) -> list[BuildName]:
    """The waiting builds that may run now, in the order of their turn.

    Args:
        waiting: In any order.
        running: In any order.
        limits: The caps.
        served: When each owner's last build was admitted, seconds since the epoch; who is not in it was never served.
    """
    owners = Counter(build.owner for build in running)
    networks = Counter(build.network for build in running if build.network)
    room = limits.farm - len(running)
    admitted: list[BuildName] = []

    def may(build: Waiting) -> bool:
        return owners[build.owner] < limits.owner and networks[build.network] < limits.network

    if room <= 0:
        return admitted
    for build in _in_turn(waiting, running, served or {}, may):
        admitted.append(build.name)
        owners[build.owner] += 1
        if build.network:
            networks[build.network] += 1
        if len(admitted) == room:
            break
    return admitted


def positions(
    waiting: Sequence[Waiting], running: Sequence[Running], served: Mapping[str, float] | None = None
) -> dict[BuildName, int]:
    """Each waiting build's place in the queue, from 1: its turn, if the caps held nobody back."""
    order = _in_turn(waiting, running, served or {}, lambda _: True)
    return {build.name: place for place, build in enumerate(order, start=1)}


def _in_turn(
    waiting: Sequence[Waiting],
    running: Sequence[Running],
    served: Mapping[str, float],
    may: Callable[[Waiting], bool],
) -> Iterator[Waiting]:
    """Those that `may` be admitted, each asked about at its turn; who may not loses no turn."""
    builds = Counter(build.owner for build in running)
    turns = dict(served)
    after_all = max(turns.values(), default=0)
    for lane in Lane:
        # Of each owner only the oldest competes, so only an owner's own turn ever changes its place in the heap.
        queues: dict[str, list[Waiting]] = defaultdict(list)
        for build in sorted(waiting, key=lambda build: (build.created, build.name), reverse=True):
            if build.lane is lane:
                queues[build.owner].append(build)

        def place(owner: str, queue: list[Waiting]) -> tuple[int, float, float, str, str]:
            return builds[owner], turns.get(owner, 0), queue[-1].created, queue[-1].name, owner

        heap = [place(owner, queue) for owner, queue in queues.items()]
        heapq.heapify(heap)
        while heap:
            owner = heapq.heappop(heap)[-1]
            build = queues[owner].pop()
            if may(build):
                builds[owner] += 1
                after_all += 1
                turns[owner] = after_all
                yield build
            if queues[owner]:
                heapq.heappush(heap, place(owner, queues[owner]))
