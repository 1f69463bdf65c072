"""The queue of suspended Workflows: whose turn it is, with real Workflows and two replicas that might admit."""

from __future__ import annotations

import time

from tests.cluster.replica import LEASE, Replica, replica, wish
from workflows.build import Lane, State
from workflows.image import BuildName

SHORT = "sleep 3"


def order_of(farm: Replica, names: list[BuildName]) -> list[BuildName]:
    """In which order builds were admitted."""
    return sorted(names, key=lambda name: farm.status(name).started)


def places_of(farm: Replica) -> dict[BuildName, int]:
    return {status.name: status.queue_position for status in farm.engine.known()}


def test_launches_overtake_prebuilds_and_no_owner_waits_for_anothers_thirty() -> None:
    limits = {"parallel_builds": 2, "parallel_builds_per_owner": 2}
    with replica("engine-queue", **limits) as farm:
        farm.is_admitting = False
        crowd = [farm.submit(wish(number, owner="crowd"), fetch=SHORT) for number in range(1, 31)]
        prebuild = farm.submit(wish(40, owner="crowd", lane=Lane.PREBUILD), fetch=SHORT)
        alone = farm.submit(wish(41, owner="alone"), fetch=SHORT)
        late = farm.submit(wish(42, owner="late", lane=Lane.PREBUILD), fetch=SHORT)
        farm.until(lambda: sorted(places_of(farm).values()) == list(range(1, 34)))
        places = places_of(farm)
        assert places[alone] == 2
        assert {places[prebuild], places[late]} == {32, 33}
        farm.is_admitting = True
        farm.until(lambda: farm.status(alone).started, seconds=180)
        admitted = order_of(farm, [name for name in (*crowd, alone, prebuild, late) if farm.status(name).started])
        # No more than one build of the crowd's stood before it.
        assert admitted.index(alone) <= 1
        assert all(farm.status(name).state is State.QUEUED for name in (prebuild, late))
        for _ in range(40):
            running = [status for status in farm.engine.known() if status.state is State.RUNNING]
            assert len(running) <= 2
            time.sleep(0.25)
        farm.until(lambda: sum(farm.status(name).state.ended for name in crowd) >= 4, seconds=300)
        # Whoever comes now with a launch comes before what was there first.
        launch = farm.submit(wish(43, owner="visitor"), fetch=SHORT)
        farm.until(lambda: farm.status(launch).started, seconds=180)
        assert all(farm.status(name).state is State.QUEUED for name in (prebuild, late))


def test_of_two_replicas_one_admits_and_the_other_takes_over_when_it_dies() -> None:
    with replica("engine-queue", parallel_builds=1, parallel_builds_per_owner=1) as farm:
        first = farm.submit(wish(1), fetch=SHORT)
        farm.until(lambda: farm.status(first).started)
        other = Replica(farm.place, parallel_builds=1, parallel_builds_per_owner=1)
        try:
            time.sleep(1)
            assert not other.is_leading
            # It dies: nothing is given back.
            farm.is_admitting = False
            second = other.submit(wish(2), fetch="true")
            farm.until(lambda: other.status(second).started, seconds=180)
            assert other.is_leading
            assert not farm.is_leading
        finally:
            other.close()


def test_a_replica_that_ends_gives_its_lease_back_at_once() -> None:
    with replica("engine-queue") as farm:
        farm.until(lambda: farm.is_leading)
        other = Replica(farm.place)
        try:
            farm.close()
            given = farm.place.get("lease", LEASE)["spec"].get("holderIdentity")
            assert given in {None, "", other.engine._holder}
            farm.until(lambda: other.is_leading)
        finally:
            other.close()
