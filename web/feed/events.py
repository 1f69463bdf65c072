"""How a feed's events are written: phases, ids, and what a build waits for in words."""

from __future__ import annotations

from collections.abc import Mapping

from web.feed.ring import Position
from workflows.build import BuildStatus, LogLine
from workflows.events import Phase, encode, event, event_of_line
from workflows.image import BuildName, attempt_of
from workflows.pipeline import STEPS

PHASES: Mapping[str, Phase] = {
    "resolve": Phase.FETCHING,
    "fetch": Phase.FETCHING,
    "build": Phase.BUILDING,
    "stage": Phase.PUSHING,
    "push": Phase.PUSHING,
    "publish": Phase.PUSHING,
}
"""The phase of a step's lines. What is not named here (scan, warm) runs beside, and its lines are no visitor's."""

_STEP_INDEX = {step.name: index for index, step in enumerate(STEPS)}


def position_of(line: LogLine) -> Position | None:
    """Where a line stands among a visitor's; None for a step whose lines are no visitor's."""
    return Position(_STEP_INDEX[line.step], line.number) if line.step in PHASES else None


def encoded(name: BuildName, position: Position, line: LogLine) -> bytes:
    """A line as the event that it becomes."""
    data = event_of_line(line.text, PHASES[line.step], step=line.step)
    return encode(data, id_of(name, position))


def id_of(name: BuildName, position: Position) -> str:
    """The id of what stands at a position of an attempt, without a nonce."""
    return f"{attempt_of(name)}.{position.step}.{position.line}"


def stamped(events: bytes, nonce: str) -> bytes:
    """The same events, each of which begins with its id, with the nonce in that."""
    # JSON holds no line break, so this is the one between an event's id and its data.
    return events.replace(b"\ndata: ", b"~%b\ndata: " % nonce.encode()) if nonce else events


def sentence(status: BuildStatus) -> str:
    """What a build waits for, in a sentence; empty where it waits for nothing."""
    if status.queue_position:
        return f"You are {ordinal(status.queue_position)} in the queue."
    return "" if status.state.ended else status.message


def waiting(status: BuildStatus, usual_seconds: float | None) -> dict[str, object]:
    """The first event of every stream."""
    # BinderHub's words; what is ours goes along in keys.
    return event(
        Phase.WAITING,
        "Waiting for build to start...",
        queue_position=status.queue_position or None,
        build=status.name,
        usual_seconds=None if usual_seconds is None else round(usual_seconds, 1),
    )


def held_up(status: BuildStatus) -> dict[str, object]:
    """What a build waits for by now."""
    place = status.queue_position or None
    return event(Phase.WAITING, sentence(status), queue_position=place, build=status.name)


def ordinal(number: int) -> str:
    """A place in a row, as ``1st``, ``2nd`` or ``11th``."""
    teen = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
