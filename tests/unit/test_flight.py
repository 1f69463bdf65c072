from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from workflows.errors import InternalError, NotFoundError
from workflows.providers.flight import Flights


def test_a_hundred_who_ask_at_once_are_asked_for_once():
    flights, go, calls = Flights(reuse_seconds=5), threading.Barrier(100), []

    def ask() -> int:
        go.wait()
        return flights.run("key", lambda: calls.append(time.sleep(0.05)) or 42)

    with ThreadPoolExecutor(100) as pool:
        answers = [each.result() for each in [pool.submit(ask) for _ in range(100)]]
    assert answers == [42] * 100
    assert len(calls) == 1


def test_who_asks_something_else_is_not_made_to_wait():
    flights, inside, leave = Flights(), threading.Event(), threading.Event()

    def slow() -> str:
        inside.set()
        assert leave.wait(10)
        return "slow"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(flights.run, "slow", slow)
        assert inside.wait(10)
        assert flights.run("fast", lambda: "fast") == "fast"
        leave.set()
        assert first.result() == "slow"


def test_an_answer_is_forgotten_after_a_moment():
    flights, calls = Flights(reuse_seconds=0), []
    for _ in range(3):
        flights.run("key", lambda: calls.append(1))
    assert len(calls) == 3
    assert len(flights._calls) == len(flights._forget_at) == 1


def test_an_error_is_everybodys():
    flights = Flights(reuse_seconds=5)

    def fail() -> None:
        raise NotFoundError("Gone.")

    for _ in range(2):
        with pytest.raises(NotFoundError, match=r"Gone\."):
            flights.run("key", fail)


def test_who_waits_on_a_call_that_was_broken_off_is_told():
    flights, inside, leave = Flights(reuse_seconds=5), threading.Event(), threading.Event()

    def break_off() -> None:
        inside.set()
        assert leave.wait(10)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flights.run, "key", break_off)
        assert inside.wait(10)
        follower = pool.submit(flights.run, "key", lambda: None)
        time.sleep(0.05)
        leave.set()
        with pytest.raises(InternalError):
            follower.result()
        with pytest.raises(KeyboardInterrupt):
            leader.result()
