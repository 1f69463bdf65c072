"""The Argo engine at work on a real cluster, with the chart's templates and steps that do what a test says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tests.cluster import images, site
from tests.cluster.namespace import Namespace, argo, namespace
from tests.integration.fakes import request
from workflows.build import BuildRequest, BuildStatus
from workflows.cluster.connection import Cluster
from workflows.engines.argo.admission import ArgoAdmission
from workflows.engines.argo.engine import ArgoEngine
from workflows.engines.argo.site import SETTINGS_MAP, TEMPLATE
from workflows.errors import TransientError
from workflows.image import BuildName
from workflows.settings import Settings

FAILS = "echo '{sentence}' | tee /dev/termination-log; exit {code}"
LEASE = "argosy-admission"

Found = TypeVar("Found")


def fails(code: int, sentence: str = "What a visitor reads.") -> str:
    """What a step does that ends as one of ours ends."""
    return FAILS.format(code=code, sentence=sentence)


class Replica:
    """The engine of one replica, at work.

    Args:
        place: Where the builds are.
        settings: What differs from the defaults.
    """

    def __init__(self, place: Namespace, **settings: Any) -> None:
        self.place = place
        chosen: dict[str, Any] = {
            "engine": "argo",
            "image_store": "registry",
            "builds_namespace": place.name,
            "workflow_template": TEMPLATE,
            "image_prefix": f"{site.REGISTRY}/{place.name}/",
            "registry_insecure": True,
            "parallel_builds": 8,
            "parallel_builds_per_owner": 8,
        }
        self.settings = Settings(**chosen | settings)
        self.cluster = Cluster()
        self.engine = ArgoEngine(self.settings, self.cluster)
        self.heard: list[BuildStatus] = []
        self._is_admitting = True
        self._turn = threading.Lock()
        self._is_over = False
        self._lease = self.engine.lease(LEASE)
        self._admission = ArgoAdmission(self.engine, self.settings, self._lease)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._watch, self._admit)]
        for each in self._threads:
            each.start()
        self.until(lambda: self.engine.is_current)

    @property
    def is_admitting(self) -> bool:
        """Whether it moves the queue; once it is told not to, no round of it is under way any more."""
        return self._is_admitting

    @is_admitting.setter
    def is_admitting(self, value: bool) -> None:
        with self._turn:
            self._is_admitting = value

    @property
    def is_leading(self) -> bool:
        """Whether it is the one that admits."""
        return self.is_admitting and self._lease.held()

    def close(self) -> None:
        """The replica ends; what it has begun goes on."""
        self._is_over = True
        self._threads[1].join(30)
        self._admission.close()

    def plan(self, wish: BuildRequest, script: Mapping[str, str]) -> None:
        """Says what the steps of a build will do: shell, by the step's name."""
        name = wish.name.replace("-", "_")
        data = {f"SCRIPT_{step}_{name}": text for step, text in script.items()}
        path = f"/api/v1/namespaces/{self.place.name}/configmaps/{SETTINGS_MAP}"
        patiently(lambda: self.cluster.patch(path, {"data": data}))

    def submit(self, wish: BuildRequest, **script: str) -> BuildName:
        """Asks for a build whose steps do what `script` says."""
        if script:
            self.plan(wish, script)
        return patiently(lambda: self.engine.submit(wish)).name

    def status(self, name: BuildName) -> BuildStatus:
        """What the engine says now."""
        status = patiently(lambda: self.engine.status(name))
        assert status is not None, f"{name} is not known"
        return status

    def ended(self, name: BuildName, seconds: float = 180) -> BuildStatus:
        """What the watch says once it has ended."""
        self.until(lambda: (last := self.last(name)) and last.state.ended, seconds=seconds)
        last = self.last(name)
        assert last is not None
        return last

    def last(self, name: BuildName) -> BuildStatus | None:
        """What the watch said last; None where it said nothing yet."""
        return next((status for status in reversed(tuple(self.heard)) if status.name == name), None)

    def says(self, name: BuildName, words: str) -> bool:
        """Whether the watch said something with these words in it."""
        return any(words in status.message for status in tuple(self.heard) if status.name == name)

    def runs(self, name: BuildName, step: str) -> bool:
        """Whether a step has begun and not ended."""
        found = [each for each in self.status(name).steps if each.name == step]
        return bool(found[0].started) and found[0].exit_code is None

    def pods(self, name: BuildName) -> list[Any]:
        """The pods of a build that have not ended."""
        found = self.place.list("pods", f"workflows.argoproj.io/workflow={name}")
        return [pod for pod in found if pod["status"].get("phase") in {"Pending", "Running"}]

    def workflow(self, name: str) -> Any:
        """A Workflow as Kubernetes has it."""
        return self.place.get("workflow", name)

    def argo(self, command: str, name: str) -> str:
        """What an operator does with Argo's program to one Workflow, and what it prints."""
        return argo(command, name, "--namespace", self.place.name)

    @staticmethod
    def until(holds: Callable[[], object], seconds: float = 120) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.1)

    def _watch(self) -> None:
        for status in self.engine.watch():
            self.heard.append(status)
            if self._is_over:
                return

    def _admit(self) -> None:
        while not self._is_over:
            with self._turn:
                if self._is_admitting:
                    self._admission.tick()
            time.sleep(0.2)


def patiently(ask: Callable[[], Found]) -> Found:
    """What Kubernetes answers; it may be silent for a moment, and is asked again then, as everybody does."""
    for _ in range(10):
        with contextlib.suppress(TransientError):
            return ask()
        time.sleep(1)
    return ask()


def wish(number: int, **different: Any) -> BuildRequest:
    """A build; each number is another one."""
    chosen = {"image": f"registry.test/argosy/n{number}:abc", "commit": f"{number:07x}{'0' * 33}"}
    return request(**chosen | different)


@contextlib.contextmanager
def replica(prefix: str, *, parameters: Mapping[str, str] | None = None, **settings: Any) -> Iterator[Replica]:
    """One replica of a farm in a new namespace, which goes afterwards with all that is in it."""
    with namespace(prefix) as place:
        site.install(place, image=images.scripted(), parameters=parameters)
        made = Replica(place, **settings)
        try:
            yield made
        finally:
            made.close()
