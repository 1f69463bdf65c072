"""What of a web process depends on the engine: who executes, admits and files, and where the catalogue is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from web import native
from web.recording.desk import KEEP_SECONDS
from web.recording.recorder import Admitting
from web.services import Check
from workflows.engines import Engine
from workflows.engines.admission import Admission
from workflows.engines.argo.admission import ArgoAdmission
from workflows.engines.argo.engine import ArgoEngine
from workflows.engines.lease import Lease, Unshared
from workflows.engines.local import LocalEngine
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue, catalogue_of

ADMISSION = "argosy-admission"
RECORDING = "argosy-recording"
"""The leases in the builds' namespace: two, because a queue must move on while an archive hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executing:
    """The parts.

    Args:
        engine: Executes builds.
        admission: Moves the queue.
        recording: Says which of several processes files.
        catalogue: The images that may start.
        keep_seconds: How long the engine keeps what is filed.
        checks: Health checks by the name under which ``/health`` shows them.
    """

    engine: Engine
    admission: Admitting
    recording: Lease
    catalogue: Catalogue
    keep_seconds: float
    checks: Mapping[str, Check] = field(default_factory=dict)


def executing(settings: Settings) -> Executing:
    """The parts that the settings ask for.

    Raises:
        ConfigError: Builds are Argo's, and there is no way into its cluster.
    """
    return _argo(settings) if settings.engine == "argo" else _local(settings)


def _local(settings: Settings) -> Executing:
    # Native threads wait by the clock of the machine, not by the event loop's.
    engine = LocalEngine(settings, sleep=native.sleep)
    return Executing(
        engine=engine,
        admission=Admission(engine, settings),
        recording=Unshared(),
        catalogue=catalogue_of(settings),
        keep_seconds=KEEP_SECONDS,
    )


def _argo(settings: Settings) -> Executing:
    engine = ArgoEngine(settings, sleep=native.sleep)
    return Executing(
        engine=engine,
        admission=ArgoAdmission(engine, settings, engine.lease(ADMISSION)),
        recording=engine.lease(RECORDING),
        catalogue=catalogue_of(settings),
        # Filed means marked as filed, for every replica: pods and Workflows go by clocks of their own.
        keep_seconds=0,
        checks={"Argo Workflows": engine.check},
    )
