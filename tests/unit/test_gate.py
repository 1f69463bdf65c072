from __future__ import annotations

import threading
import time

from web.launching.gate import Gate


def test_those_who_come_first_go_in_first():
    gate = Gate(2)
    tickets = [gate.join() for _ in range(4)]
    assert [gate.wait(ticket, None, 0) for ticket in tickets] == [0, 0, 1, 2]
    gate.leave(tickets[1])
    assert [gate.wait(ticket, None, 0) for ticket in tickets[2:]] == [0, 1]


def test_whoever_gives_up_makes_room_in_the_queue():
    gate = Gate(1)
    tickets = [gate.join() for _ in range(3)]
    assert gate.wait(tickets[2], None, 0) == 2
    gate.leave(tickets[1])
    assert gate.wait(tickets[2], 2, 5) == 1


def test_a_ticket_may_be_handed_back_twice():
    gate = Gate(1)
    tickets = [gate.join() for _ in range(3)]
    assert gate.wait(tickets[0], None, 0) == 0
    gate.leave(tickets[0])
    gate.leave(tickets[0])
    assert [gate.wait(ticket, None, 0) for ticket in tickets[1:]] == [0, 1]


def test_waiting_ends_when_a_place_is_free():
    gate = Gate(1)
    first, second = gate.join(), gate.join()
    assert gate.wait(first, None, 0) == 0
    threading.Timer(0.1, gate.leave, (first,)).start()
    assert gate.wait(second, 1, 10) == 0


def test_a_closed_gate_lets_nobody_in_until_it_opens():
    gate = Gate(4)
    inside = gate.join()
    assert gate.wait(inside, None, 0) == 0
    gate.close_for(0.2)
    ticket = gate.join()
    assert gate.wait(ticket, None, 0) == 1
    assert gate.wait(inside, None, 0) == 0
    began = time.monotonic()
    assert gate.wait(ticket, 1, 10) == 0
    assert time.monotonic() - began < 5


def test_a_wait_without_news_ends_at_its_time():
    gate = Gate(1)
    first, second = gate.join(), gate.join()
    assert gate.wait(first, None, 0) == 0
    assert gate.wait(second, 1, 0.05) == 1
