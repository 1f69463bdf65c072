"""A Hub that does what the test says, behind the same Protocol as the real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from web.launching.hub import Hub, Progress, ServerState
from workflows.errors import TransientError

READY = Progress(message="Server ready at /user/someone/", is_ready=True)
FAILED = Progress(message="Spawn failed: the server ended before it was ready.", is_failed=True)
STARTING = (Progress(message="Server requested"), Progress(message="Spawning server..."))


@dataclass
class FakeHub(Hub):
    """Users and servers in dictionaries.

    Args:
        starts: What each start in turn comes to: an error that is raised, or the last event; afterwards `READY`.
        users: Those that there are, with the options that their servers were started with.
        states: What each user's server does.
        removed: Users that were deleted, in order.
        stopping: How often a user cannot be deleted yet.
        door: Holds every start while it is closed.
    """

    starts: list[Exception | Progress] = field(default_factory=list)
    users: dict[str, Mapping[str, str]] = field(default_factory=dict)
    states: dict[str, ServerState] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    stopping: int = 0
    started: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    door: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.door.set()
        self._ends: dict[str, Progress] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        pass

    def create_user(self, name: str) -> bool:
        with self._lock:
            is_new = name not in self.users
            self.users.setdefault(name, {})
        return is_new

    def server_state(self, name: str) -> ServerState:
        return self.states.get(name, ServerState.NONE)

    def start_server(self, name: str, options: Mapping[str, str]) -> None:
        with self._lock:
            end = self.starts.pop(0) if self.starts else READY
            if isinstance(end, Exception):
                raise end
            self.started += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.users[name] = options
            self.states[name] = ServerState.STARTING
            self._ends[name] = end

    def progress(self, name: str, timeout_seconds: float) -> Iterator[Progress]:
        yield from STARTING
        assert self.door.wait(20)
        end = self._ends[name]
        with self._lock:
            if self.states.get(name) is ServerState.STARTING:
                self.in_flight -= 1
                self.states[name] = ServerState.READY if end.is_ready else ServerState.NONE
        if end.is_ready or end.is_failed:
            yield end

    def stop_server(self, name: str) -> None:
        if name not in self.users:
            raise TransientError(detail="nobody of that name")
        self.states.pop(name, None)

    def delete_user(self, name: str) -> bool:
        if self.stopping:
            self.stopping -= 1
            return False
        self.users.pop(name, None)
        self.removed.append(name)
        return True
