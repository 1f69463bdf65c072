"""Ports that processes of the tests and of `make run` listen on."""

from __future__ import annotations

import random

from tools.farm import free_ports


def test_processes_whose_chance_has_the_same_seed_take_different_ports() -> None:
    found = []
    for _ in range(2):
        random.seed(1)
        found.append(free_ports(5))
    assert found[0] != found[1]
