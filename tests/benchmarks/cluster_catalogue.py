"""A catalogue of 10,000 entries that are really there: what a look-up costs, and whether any entry is late.

Goal (issue 5): a look-up is one GET, and the Hub never refuses what was published the moment before.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.cluster.namespace import namespace
from workflows.cluster.connection import Cluster
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName, pinned
from workflows.stores.catalogue import Entry
from workflows.stores.configmaps import KubernetesCatalogue

ENTRIES, LOOKUPS, THREADS = 10_000, 500, 8
HUB_CONFIG = "hub-config"


class Counted(Cluster):
    """The API server, with a count of what it is asked."""

    asked = 0

    @contextmanager
    def _opened(self, method: str, path: str, **options: Any) -> Iterator[Any]:
        self.asked += 1
        with super()._opened(method, path, **options) as answer:
            yield answer


def entry(number: int) -> Entry:
    """One of the entries; each number is another image."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(
        image=ImageName(f"registry.test/farm/r{number}:{digest[:40]}"),
        digest=ImageDigest(f"sha256:{digest}"),
        provider="gh",
        spec=f"owner/r{number}/main",
        repo_url=f"https://github.com/owner/r{number}",
        commit=CommitSHA(digest[:40]),
        builder="bench",
        published=time.time(),
        build=BuildName(f"build-r{number}-{digest[:7]}-{digest[:8]}"),
    )


def main() -> None:
    with namespace("bench-catalogue") as place:
        cluster = Counted()
        catalogue = KubernetesCatalogue(cluster, place.name)
        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda number: catalogue.add(entry(number)), range(ENTRIES)))
        seconds = time.monotonic() - began
        print(f"{ENTRIES:,} entries: {seconds:.0f} s by {THREADS} threads, {ENTRIES / seconds:.0f} a second")
        _look_up(catalogue, cluster)
        began = time.monotonic()
        assert len(catalogue.entries()) == ENTRIES
        print(f"all of them listed: {time.monotonic() - began:.1f} s")
        print(f"the Hub's look-up right after publish: {asyncio.run(_launches(catalogue, place.name))}")


def _look_up(catalogue: KubernetesCatalogue, cluster: Counted) -> None:
    asked, took = cluster.asked, []
    for number in range(0, ENTRIES, ENTRIES // LOOKUPS):
        known, began = entry(number), time.monotonic()
        found = catalogue.get(known.image, known.digest)
        took.append(time.monotonic() - began)
        assert found is not None
        assert found.image == known.image
    each = (cluster.asked - asked) / len(took)
    print(f"a look-up among them: {each:g} requests, median {statistics.median(took) * 1000:.1f} ms (goal: one GET)")


async def _launches(catalogue: KubernetesCatalogue, place: str) -> str:
    sys.path.insert(0, HUB_CONFIG)
    from catalogue import KubernetesCatalogue as HubCatalogue  # noqa: PLC0415  # the Hub's, from its own folder
    from catalogue import parse  # noqa: PLC0415

    hub, refused, took = HubCatalogue(place), 0, []
    for number in range(ENTRIES, ENTRIES + LOOKUPS):
        new = entry(number)
        await asyncio.to_thread(catalogue.add, new)
        image = parse(pinned(new.image, new.digest))
        began = time.monotonic()
        refused += not (image and await hub.holds(image))
        took.append(time.monotonic() - began)
    await hub._api.api_client.close()
    return f"{refused} of {LOOKUPS} refused (goal: none), median {statistics.median(took) * 1000:.1f} ms"
