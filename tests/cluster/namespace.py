"""A namespace of one test's own on the cluster of ``KUBECONFIG``, spoken to by kubectl, and by argo as people do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]

_ENDED = frozenset({"Succeeded", "Failed", "Error"})


class RefusedError(Exception):
    """A program says no; the text is what it says."""


def kubectl(*arguments: str, document: Object | list[Object] | None = None) -> str:
    """What kubectl prints.

    Raises:
        RefusedError: Its exit code is not 0.
    """
    documents = document if isinstance(document, list) else [document] if document else []
    return _printed(["kubectl", *arguments], "\n".join(map(json.dumps, documents)))


def argo(*arguments: str) -> str:
    """What Argo's own program prints.

    Raises:
        RefusedError: Its exit code is not 0.
    """
    return _printed(["argo", *arguments])


def _printed(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RefusedError(done.stderr.strip())
    return done.stdout


class Namespace:
    """One namespace.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def create(self, *documents: Object) -> None:
        """Creates objects; one without a namespace gets this one."""
        kubectl("create", "--namespace", self.name, "--filename", "-", document=list(documents))

    def try_out(self, *documents: Object) -> None:
        """What `create` does, without doing it: the API server's whole check."""
        kubectl("create", "--dry-run=server", "--namespace", self.name, "--filename", "-", document=list(documents))

    def get(self, kind: str, name: str) -> Object:
        """One object."""
        return dict(json.loads(kubectl("get", kind, name, "--namespace", self.name, "--output", "json")))

    def labels(self, kind: str, name: str) -> dict[str, str]:
        """One object's labels."""
        return self.get(kind, name)["metadata"].get("labels") or {}

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """The objects of a kind."""
        only = ["--selector", selector] if selector else []
        found = kubectl("get", kind, "--namespace", self.name, *only, "--output", "json")
        return list(json.loads(found)["items"])

    def log(self, pod: str, container: str) -> str:
        """What a container has printed."""
        return kubectl("logs", pod, "--container", container, "--namespace", self.name)

    def ended(self, workflow: str, *, seconds: float = 120) -> Object:
        """A Workflow once it has ended."""

        def look() -> Object | None:
            found = self.get("workflow", workflow)
            return found if found.get("status", {}).get("phase") in _ENDED else None

        return eventually(look, seconds=seconds, what=lambda: self.get("workflow", workflow).get("status"))


def eventually(
    look: Callable[[], Any], *, seconds: float = 60, what: Callable[[], object] = lambda: "it does not come"
) -> Any:
    """What `look` gives once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.3)
    return found


@contextlib.contextmanager
def namespace(prefix: str) -> Iterator[Namespace]:
    """A new namespace, deleted afterwards with all that is in it."""
    made = Namespace(f"{prefix}-{uuid.uuid4().hex[:8]}")
    kubectl("create", "namespace", made.name)
    account = ("get", "serviceaccount", "default", "--ignore-not-found", "--output=name", "--namespace", made.name)
    try:
        # Without it no pod is accepted.
        eventually(lambda: kubectl(*account))
        yield made
    finally:
        kubectl("delete", "namespace", made.name, "--wait=false")
