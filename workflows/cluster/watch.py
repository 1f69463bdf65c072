"""One kind of object, followed for ever: a list, then what changes.

What the API server is allowed to do is expected of it: end the watch whenever it likes, forget where we stood (410),
stop for a while, tell a thing twice or late. Every few minutes the list is read anyway, as a net.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/, *Efficient detection of changes*.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

from workflows.cluster.connection import Cluster, Json
from workflows.errors import RefusedError, TransientError

_logger = logging.getLogger(__name__)

_WATCH_SECONDS = 60
"""The API server ends a watch after so long, and the next goes on from there: a dead connection is noticed by then."""
_IDLE_SECONDS = _WATCH_SECONDS + 15
_FIRST_PAUSE_SECONDS = 0.2
_LAST_PAUSE_SECONDS = 5.0
RELIST_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one object.

    Args:
        name: The object's.
        found: The object as it is now; None where it is gone, or is not selected any more.
    """

    name: str
    found: Json | None


class Watch:
    """Follows the objects of one kind. One thread at a time may iterate.

    Args:
        cluster: Whose objects they are.
        path: Of the kind.
        selector: Of their labels.
        sleep: How a thread waits.
        relist_seconds: Between two lists.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        selector: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._path = path
        self._selector = selector
        self._sleep = sleep
        self._relist_seconds = relist_seconds
        self._versions: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._floor = 0
        self.is_current = False

    def changes(self) -> Iterator[Change | None]:
        """Everything that is there, then every change, for ever; None once a list is told whole.

        Raises:
            ConfigError: The API server does not let us.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                for change in self._round():
                    pause = _FIRST_PAUSE_SECONDS
                    yield change
            except (TransientError, RefusedError) as error:
                is_late = isinstance(error, RefusedError) and error.status == HTTPStatus.GONE
                level = logging.INFO if is_late else logging.WARNING
                _logger.log(level, "%s is listed anew: %s", self._path, error.detail)
                self._sleep(pause)
                pause = min(2 * pause, _LAST_PAUSE_SECONDS)
            finally:
                self.is_current = False

    def _round(self) -> Iterator[Change | None]:
        """One list, and what changes until the next is due."""
        found, version = self._cluster.listed(self._path, self._selector)
        yield from self._listed(found, int(version))
        self.is_current = True
        yield None
        ends = time.monotonic() + self._relist_seconds
        while time.monotonic() < ends:
            query = {
                "watch": "true",
                "labelSelector": self._selector,
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(_WATCH_SECONDS),
            }
            for line in self._cluster.lines(self._path, query, idle_seconds=_IDLE_SECONDS):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise RefusedError(detail=str(event["object"])[:500], status=int(event["object"].get("code", 0)))
                version = event["object"]["metadata"]["resourceVersion"]
                yield from self._told(event["type"], event["object"])

    def _listed(self, found: list[Json], version: int) -> Iterator[Change]:
        # Whatever is told late from now on is older than the list.
        self._floor, self._gone = version, {}
        for name in sorted(self._versions.keys() - {each["metadata"]["name"] for each in found}):
            del self._versions[name]
            yield Change(name=name, found=None)
        for each in found:
            name, now = _place(each)
            if now > self._versions.get(name, 0):
                self._versions[name] = now
                yield Change(name=name, found=each)

    def _told(self, kind: str, found: Json) -> Iterator[Change]:
        if kind == "BOOKMARK":
            return
        name, version = _place(found)
        # Versions are one row for all objects, those of a name that is used again included.
        if version <= max(self._floor, self._versions.get(name, 0), self._gone.get(name, 0)):
            return
        if kind == "DELETED":
            self._gone[name] = version
            if self._versions.pop(name, 0):
                yield Change(name=name, found=None)
        else:
            self._versions[name] = version
            yield Change(name=name, found=found)


def _place(found: Json) -> tuple[str, int]:
    return found["metadata"]["name"], int(found["metadata"]["resourceVersion"])
