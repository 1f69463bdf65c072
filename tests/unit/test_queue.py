"""Who may build next: rules, and properties over thousands of made-up queues."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from workflows.build import Lane
from workflows.image import BuildName
from workflows.queue import Limits, Running, Waiting, admissible, positions

NO_LIMITS = Limits(farm=1000, owner=1000, network=1000)


def waits(name: str, *, owner: str = "", lane: Lane = Lane.LAUNCH, network: str = "", created: float = 0) -> Waiting:
    return Waiting(name=BuildName(name), lane=lane, owner=owner or name, network=network, created=created)


def runs(owner: str = "somebody", network: str = "") -> Running:
    return Running(owner=owner, network=network)


def test_the_oldest_goes_first():
    waiting = [waits("b", created=2), waits("a", created=1), waits("c", created=3)]
    assert admissible(waiting, [], NO_LIMITS) == ["a", "b", "c"]


def test_a_lane_waits_for_the_one_before_whatever_the_age():
    waiting = [
        waits("prebuild", lane=Lane.PREBUILD, created=1),
        waits("api", lane=Lane.API, created=2),
        waits("launch", lane=Lane.LAUNCH, created=3),
    ]
    assert admissible(waiting, [], NO_LIMITS) == ["launch", "api", "prebuild"]
    assert admissible(waiting, [], Limits(farm=1, owner=1, network=1)) == ["launch"]


def test_owners_take_turns_within_a_lane():
    waiting = [waits(f"a{n}", owner="a", created=n) for n in range(3)] + [waits("b0", owner="b", created=9)]
    assert admissible(waiting, [], NO_LIMITS) == ["a0", "b0", "a1", "a2"]


def test_who_has_less_running_goes_first():
    waiting = [waits("a0", owner="a", created=1), waits("b0", owner="b", created=2)]
    assert admissible(waiting, [runs("a")], NO_LIMITS) == ["b0", "a0"]


def test_who_was_served_last_goes_last_though_nothing_runs():
    waiting = [waits("a0", owner="a", created=1), waits("b0", owner="b", created=2)]
    one = Limits(farm=1, owner=1, network=1)
    assert admissible(waiting, [], one, served={"a": 100}) == ["b0"]
    assert admissible(waiting, [], one, served={"a": 100, "b": 200}) == ["a0"]


def test_a_full_farm_admits_nobody():
    assert admissible([waits("a")], [runs(), runs()], Limits(farm=2, owner=9, network=9)) == []
    assert admissible([waits("a")], [runs(), runs(), runs()], Limits(farm=2, owner=9, network=9)) == []


def test_who_is_held_back_by_a_cap_holds_nobody_else_back():
    waiting = [
        waits("a0", owner="a", created=1),
        waits("near", network="192.0.2.0/24", created=2),
        waits("api", lane=Lane.API, created=3),
    ]
    running = [runs("a"), runs("x", "192.0.2.0/24")]
    assert admissible(waiting, running, Limits(farm=9, owner=1, network=1)) == ["api"]


def test_builds_that_nobody_asked_for_share_no_networks_cap():
    waiting = [waits("a"), waits("b"), waits("c")]
    assert len(admissible(waiting, [runs()], Limits(farm=9, owner=1, network=1))) == 3


def test_positions_count_from_1_in_the_order_of_turns():
    waiting = [waits("a0", owner="a", created=1), waits("a1", owner="a", created=2), waits("b0", owner="b", created=3)]
    assert positions(waiting, []) == {"a0": 1, "b0": 2, "a1": 3}


def made_up(seed: int) -> tuple[list[Waiting], list[Running], Limits, dict[str, float]]:
    chance = random.Random(seed)
    owners = [f"owner{n}" for n in range(chance.randint(1, 6))]
    networks = ["", *(f"net{n}" for n in range(chance.randint(1, 4)))]
    waiting = [
        waits(
            f"build{n}",
            owner=chance.choice(owners),
            lane=chance.choice(list(Lane)),
            network=chance.choice(networks),
            created=chance.randint(0, 20),
        )
        for n in range(chance.randint(0, 30))
    ]
    running = [runs(chance.choice(owners), chance.choice(networks)) for _ in range(chance.randint(0, 8))]
    limits = Limits(farm=chance.randint(1, 12), owner=chance.randint(1, 4), network=chance.randint(1, 4))
    served = {owner: chance.randint(1, 99) for owner in owners if chance.random() < 0.5}
    return waiting, running, limits, served


@pytest.mark.parametrize("seed", range(300))
def test_any_queue_is_admitted_by_the_rules(seed: int):
    waiting, running, limits, served = made_up(seed)
    admitted = admissible(waiting, running, limits, served)
    by_name = {build.name: build for build in waiting}
    rest = [build for build in waiting if build.name not in admitted]
    owners = Counter(build.owner for build in running) + Counter(by_name[name].owner for name in admitted)
    networks = Counter(build.network for build in running) + Counter(by_name[name].network for name in admitted)
    new_owners = {by_name[name].owner for name in admitted}
    new_networks = {by_name[name].network for name in admitted} - {""}

    def free(build: Waiting) -> bool:
        return owners[build.owner] < limits.owner and (not build.network or networks[build.network] < limits.network)

    # Each once, no cap broken by us, nobody left who could have gone.
    assert len(admitted) == len(set(admitted)) <= max(0, limits.farm - len(running))
    assert all(owners[owner] <= limits.owner for owner in new_owners)
    assert all(networks[network] <= limits.network for network in new_networks)
    assert len(running) + len(admitted) >= limits.farm or not any(free(build) for build in rest)
    # Nobody of a later lane went while one of an earlier, whom no cap held, stayed.
    lanes = list(Lane)
    for name in admitted:
        assert not any(lanes.index(build.lane) < lanes.index(by_name[name].lane) and free(build) for build in rest)
    # Of one owner in one lane and network, the older goes first.
    for build in rest:
        for name in admitted:
            other = by_name[name]
            if (other.owner, other.lane, other.network) == (build.owner, build.lane, build.network):
                assert other.created <= build.created


@pytest.mark.parametrize("seed", range(50))
def test_the_order_in_which_the_queue_is_handed_over_changes_nothing(seed: int):
    waiting, running, limits, served = made_up(seed)
    mixed = random.Random(seed + 1).sample(waiting, len(waiting))
    assert admissible(mixed, running, limits, served) == admissible(waiting, running, limits, served)
    assert positions(mixed, running, served) == positions(waiting, running, served)
    assert sorted(positions(waiting, running, served).values()) == list(range(1, len(waiting) + 1))


def test_one_at_a_time_every_owner_is_served_before_any_is_served_twice():
    waiting = [waits(f"a{n}", owner="a", created=n) for n in range(5)]
    waiting += [waits(f"{owner}0", owner=owner, created=10) for owner in "bcd"]
    served: dict[str, float] = {}
    order: list[str] = []
    while waiting:
        (name,) = admissible(waiting, [], Limits(farm=1, owner=1, network=1), served)
        build = next(build for build in waiting if build.name == name)
        waiting.remove(build)
        served[build.owner] = len(served) + len(order) + 1
        order.append(build.owner)
    assert sorted(order[:4]) == ["a", "b", "c", "d"]
