"""Cleaning of real storages: what leaves, in which order, and what never does. `tests/integration` has caches."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.images import STATIC_PROGRAM, write_layout
from tests.storages import clean, fill, keep, podman
from workflows.cleaning.bases import BaseImages
from workflows.cleaning.caches import RepositoryCaches
from workflows.cleaning.images import Images
from workflows.cleaning.tool import sizes
from workflows.image import BuildName, CommitSHA, ImageDigest, ImageName
from workflows.settings import MIB, Settings
from workflows.stores.catalogue import Entry, FolderCatalogue
from workflows.stores.containers import Containers
from workflows.stores.images import image_store

PROGRAM = STATIC_PROGRAM.read_bytes()
BUILD = BuildName("build-demo-1a2b3c4-01234567")


class Shelf:
    """A storage of published images of a megabyte each, and who uses them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.catalogue = FolderCatalogue(settings.catalogue_folder)
        self.launched: dict[ImageName, float] = {}
        self.being_launched: set[ImageName] = set()
        self.while_it_waits: Callable[[], None] = lambda: None
        self._folder = folder

    def last_launches(self) -> Mapping[ImageName, float]:
        return self.launched

    def held(self) -> set[ImageName]:
        return self.being_launched

    def put(self, name: str, *, launched: float = 0, published: bool = True, program: bytes = PROGRAM) -> ImageName:
        """An image that was last launched so many seconds ago."""
        image = ImageName(f"localhost/argosy/{name}:1")
        layout = self._folder / f"layout-{name}"
        digest = write_layout(layout, {"program": program, "data": os.urandom(MIB)})
        keep(self.settings, layout, image, store=Containers(self.settings).images)
        if published:
            self.catalogue.add(entry(image, digest))
        self.launched[image] = time.time() + 10_000 - launched
        return image

    def there(self) -> set[str]:
        """The images of the storage, by the first part of their names."""
        named = podman(self.settings, "images", "--format", "{{.Repository}}").stdout.split()
        return {name.rpartition("/")[2] for name in named}

    def listed(self) -> set[str]:
        return {entry.image.rpartition("/")[2].partition(":")[0] for entry in self.catalogue.entries()}

    def clean(self, limit_bytes: int, **changes: object) -> None:
        settings = self.settings.model_copy(update={"image_limit_bytes": limit_bytes, **changes})
        clean(Images(settings, self.catalogue, self, sleep=lambda seconds: seconds and self.while_it_waits()))


def entry(image: ImageName, digest: str) -> Entry:
    return Entry(
        image=image,
        digest=ImageDigest(digest),
        provider="git",
        spec="x/main",
        repo_url="https://example.org/x",
        commit=CommitSHA("1a2b3c4"),
        builder="a test",
        published=1.0,
        build=BUILD,
    )


@pytest.fixture
def shelf(machine: Settings, tmp_path: Path) -> Shelf:
    return Shelf(machine, tmp_path)


# --- images that run ---


def test_the_least_recently_launched_images_leave_first(shelf: Shelf) -> None:
    for name, ago in (("old", 300), ("oldest", 400), ("new", 100), ("newest", 50)):
        shelf.put(name, launched=ago)
    size = sum(Images(shelf.settings, shelf.catalogue, shelf).things()[0].parts.values())
    shelf.clean(2 * size)
    assert shelf.there() == shelf.listed() == {"new", "newest"}
    # The storage itself holds no more than it says: nothing is left of what went.
    layers = Containers(shelf.settings).images / "overlay"
    assert sizes([layers])[layers] < 3 * size


def test_an_image_leaves_the_catalogue_before_the_storage(shelf: Shelf) -> None:
    shelf.put("demo")
    seen: list[tuple[set[str], set[str]]] = []
    shelf.while_it_waits = lambda: seen.append((shelf.listed(), shelf.there()))
    shelf.clean(0)
    assert seen == [(set(), {"demo"})]
    assert shelf.there() == set()


@pytest.mark.parametrize("running", [True, False])
def test_an_image_that_a_server_runs_from_never_leaves(shelf: Shelf, waiting: bytes, *, running: bool) -> None:
    image = shelf.put("used", launched=900, program=waiting)
    shelf.put("other", launched=1)
    if running:
        assert podman(shelf.settings, "run", "--detach", "--network=none", image, "/program").returncode == 0
    else:
        # What the container engine is just making has no process yet.
        assert podman(shelf.settings, "create", image, "/program").returncode == 0
    shelf.clean(0)
    assert shelf.there() == shelf.listed() == {"used"}
    assert podman(shelf.settings, "ps", "--all", "--quiet").stdout.split()


def test_an_image_whose_launch_begins_meanwhile_stays_and_is_listed_again(shelf: Shelf) -> None:
    image = shelf.put("demo")
    shelf.put("other")
    shelf.while_it_waits = lambda: shelf.being_launched.add(image)
    shelf.clean(0)
    assert shelf.there() == shelf.listed() == {"demo"}


def test_an_image_of_which_the_hub_makes_a_container_meanwhile_stays_and_is_listed_again(shelf: Shelf) -> None:
    image = shelf.put("demo")
    shelf.put("other")
    shelf.while_it_waits = lambda: podman(shelf.settings, "create", image, "/program")
    shelf.clean(0)
    assert shelf.there() == shelf.listed() == {"demo"}


def test_what_was_published_anew_meanwhile_keeps_its_new_entry(shelf: Shelf) -> None:
    image = shelf.put("demo")
    other = "sha256:" + "0" * 64

    def publish() -> None:
        shelf.catalogue.add(entry(image, other))
        shelf.being_launched.add(image)

    shelf.while_it_waits = publish
    shelf.clean(0)
    kept = shelf.catalogue.get(image)
    assert kept is not None
    assert kept.digest == other


def test_an_image_without_an_entry_leaves_after_its_grace(shelf: Shelf) -> None:
    shelf.put("named", launched=900)
    shelf.put("nameless", published=False)
    shelf.launched.clear()
    images = Images(shelf.settings, shelf.catalogue, shelf, grace_seconds=60)
    clean(images)
    assert shelf.there() == {"named", "nameless"}
    clean(images, later_seconds=61)
    assert shelf.there() == {"named"}


def test_copies_of_a_registrys_images_leave_without_leaving_the_catalogue(shelf: Shelf) -> None:
    shelf.put("demo")
    shelf.clean(0, image_store="registry")
    assert (shelf.there(), shelf.listed()) == (set(), {"demo"})


def test_a_nearly_full_disk_takes_images_that_are_within_their_limit(shelf: Shelf) -> None:
    for name, ago in (("old", 300), ("new", 100)):
        shelf.put(name, launched=ago)
    images = Images(shelf.settings, shelf.catalogue, shelf, sleep=lambda seconds: None)
    clean(images, missing=lambda: 1 if "old" in shelf.there() else 0)
    assert shelf.there() == shelf.listed() == {"new"}


# --- base images ---


def test_a_base_image_stays_for_as_long_as_an_image_stands_on_it(machine: Settings, tmp_path: Path) -> None:
    containers = Containers(machine)
    for name in ("stood-on", "lonely"):
        write_layout(tmp_path / name, {"program": PROGRAM, "data": os.urandom(1000)})
        keep(machine, tmp_path / name, f"localhost/{name}:1", store=containers.base)
    assert podman(machine, "create", "--name", "made", "localhost/stood-on:1", "/program").returncode == 0
    assert podman(machine, "commit", "made", "localhost/argosy/demo:1").returncode == 0
    assert podman(machine, "rm", "made").returncode == 0
    bases = BaseImages(machine, unused_seconds=60)
    clean(bases)
    assert based(machine) == {"stood-on", "lonely"}
    clean(bases, later_seconds=61)
    assert based(machine) == {"stood-on"}
    image_store(machine).remove(ImageName("localhost/argosy/demo:1"))
    clean(bases, later_seconds=61)
    assert based(machine) == set()


def test_the_farms_own_base_image_never_leaves(machine: Settings, tmp_path: Path) -> None:
    write_layout(tmp_path / "base", {"program": PROGRAM})
    keep(machine, tmp_path / "base", "localhost/base:1", store=Containers(machine).base)
    settings = machine.model_copy(update={"base_image": "localhost/base:1", "base_limit_bytes": 0})
    clean(BaseImages(settings, unused_seconds=0), later_seconds=10)
    assert based(machine) == {"base"}


def based(settings: Settings) -> set[str]:
    named = podman(settings, "images", "--format", "{{.Repository}}", store=Containers(settings).base).stdout.split()
    return {name.rpartition("/")[2] for name in named}


def test_a_deep_tree_and_a_mount_below_it_are_deleted(machine: Settings, tmp_path: Path) -> None:
    graph = fill(machine, "deep")
    here = os.open(graph, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("not ours to delete")
    (graph / "mounted here").mkdir()
    subprocess.run(["mount", "--bind", kept, graph / "mounted here"], check=True)
    clean(RepositoryCaches(machine.model_copy(update={"build_cache_limit_bytes": 0})))
    assert not graph.exists()
    assert (kept / "file").exists()
