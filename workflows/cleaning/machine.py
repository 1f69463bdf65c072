"""What fills up on a machine that builds by itself, what costs least to make again first."""

from __future__ import annotations

from collections.abc import Callable

from workflows.cleaning.bases import BaseImages
from workflows.cleaning.caches import BaseLayers, RepositoryCaches, WheelCache
from workflows.cleaning.cleaner import Kind
from workflows.cleaning.images import Images, Usage
from workflows.cleaning.leftovers import Logs, leftovers
from workflows.engines import Engine
from workflows.image import BuildName
from workflows.settings import Settings
from workflows.stores.catalogue import Catalogue


def kinds(
    settings: Settings, *, engine: Engine, catalogue: Catalogue, usage: Usage, sleep: Callable[[float], None]
) -> list[Kind]:
    """Everything of builds and images that cleaning looks at on this machine.

    Args:
        settings: The farm's.
        engine: Says which builds go on.
        catalogue: An image leaves it before it leaves the storage.
        usage: Who works with images.
        sleep: Waits, in the thread that cleans.
    """

    def is_live(name: BuildName) -> bool:
        status = engine.status(name)
        return status is not None and not status.state.ended

    return [
        *leftovers(settings, is_live),
        Logs(settings),
        RepositoryCaches(settings),
        WheelCache(settings),
        BaseLayers(settings),
        Images(settings, catalogue, usage, sleep=sleep),
        BaseImages(settings),
    ]
