"""Cleaning of caches and leftovers: what leaves, in which order, and what never does. `tests/local` has images."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.images import write_layout
from tests.steps import BUILD
from tests.storages import clean, fill
from workflows.builder.store import build_store
from workflows.builder.wheels import Wheels
from workflows.cleaning.caches import BaseLayers, RepositoryCaches, WheelCache
from workflows.cleaning.leftovers import Logs, leftovers
from workflows.image import BuildName
from workflows.settings import MIB, Settings
from workflows.stores.containers import Containers
from workflows.stores.staging import Staging

# --- caches ---


def test_the_least_recently_used_build_caches_leave_first_and_whole(settings: Settings) -> None:
    graphs = {key: fill(settings, key) for key in ("one", "two", "three")}
    for ago, key in enumerate(("two", "three", "one")):
        os.utime(graphs[key].with_name(f"{key}.lock"), (time.time() - 1000 + ago,) * 2)
    clean(RepositoryCaches(settings.model_copy(update={"build_cache_limit_bytes": 5 * MIB})))
    left = {path.name for path in graphs["one"].parent.iterdir()}
    assert left == {"one", "one.lock", "one.tmp", "three", "three.lock", "three.tmp"}
    # Its repository begins anew at once.
    assert fill(settings, "two").exists()


def test_a_cache_in_which_somebody_builds_stays(settings: Settings) -> None:
    kind = RepositoryCaches(settings.model_copy(update={"build_cache_limit_bytes": 0}))
    fill(settings, "busy")
    fill(settings, "idle")
    with build_store(settings, "busy") as store:
        clean(kind)
        assert {path.name for path in store.graph.parent.glob("[a-z]*") if path.is_dir()} == {"busy", "busy.tmp"}
    clean(kind)
    assert list(store.graph.parent.iterdir()) == []


def test_a_cache_in_which_a_build_begins_after_the_choice_stays(settings: Settings) -> None:
    kind = RepositoryCaches(settings)
    graph = fill(settings, "chosen")
    chosen = kind.things()
    assert not chosen[0].is_held
    with build_store(settings, "chosen"):
        kind.remove(chosen)
        assert (graph / "overlay" / "layer").exists()
    kind.remove(chosen)
    assert not graph.exists()


def test_a_cache_whose_deletion_was_killed_is_deleted(settings: Settings) -> None:
    graph = fill(settings, "half")
    graph.rename(graph.with_name(".leaving-half"))
    clean(RepositoryCaches(settings), later_seconds=4000)
    assert not graph.with_name(".leaving-half").exists()


def test_wheels_over_their_limit_begin_anew_and_stay_for_whoever_reads_them(settings: Settings) -> None:
    kind = WheelCache(settings.model_copy(update={"wheel_limit_bytes": MIB}))
    wheels = Wheels(settings)
    layer = settings.cache_folder / "wheels" / "1"
    layer.mkdir(parents=True)
    layer.with_name("newest").write_text("1")
    (layer / "wheel").write_bytes(os.urandom(2 * MIB))
    with wheels.readable() as read:
        assert read == (layer,)
        clean(kind)
        assert (layer / "wheel").exists(), "a build looks at it"
        with wheels.readable() as newer:
            assert newer != read
            assert [list(each.iterdir()) for each in newer] == [[]]
    clean(kind)
    assert not layer.exists()


def test_base_layers_give_way_where_the_disk_is_full_but_for_those_in_a_layout(settings: Settings) -> None:
    blobs = settings.cache_folder / "blobs"
    blobs.mkdir(parents=True)
    for name in ("linked", "free"):
        (blobs / name).write_bytes(os.urandom(MIB))
    (settings.workspace / "layer").hardlink_to(blobs / "linked")
    clean(BaseLayers(settings))
    assert {path.name for path in blobs.iterdir()} == {"linked", "free"}
    clean(BaseLayers(settings), missing=lambda: 10 * MIB)
    assert {path.name for path in blobs.iterdir()} == {"linked"}


# --- what killed processes leave ---


def test_a_log_that_grew_too_large_gives_the_room_of_its_first_part_back(settings: Settings) -> None:
    path = settings.state / "log" / "web.log"
    path.parent.mkdir(parents=True)
    with path.open("ab") as log:
        for number in range(4):
            log.write(b"%d" % number * MIB)
            log.flush()
        clean(Logs(settings, max_bytes=2 * MIB))
        log.write(b"the end")
    assert path.stat().st_blocks * 512 <= 1.1 * MIB
    assert path.read_bytes().rstrip(b"\0").endswith(b"3the end")


def test_staged_images_stay_for_builds_that_go_on_and_no_others(settings: Settings, tmp_path: Path) -> None:
    write_layout(tmp_path / "layout", {"f": "x"})
    live, dead = BUILD, BuildName("build-other-1a2b3c4-76543210")
    for name in (live, dead):
        Staging(settings).put(name, tmp_path / "layout", print)
        write_layout(tmp_path / "layout", {"f": "x"})
    kinds = leftovers(settings, lambda name: name == live)
    clean(*kinds)
    assert len(list(settings.staging_folder.iterdir())) == 2, "it may be a moment between two names"
    clean(*kinds, later_seconds=3601)
    assert [path.name for path in settings.staging_folder.iterdir()] == [live]


def test_half_written_files_and_broken_folders_leave_after_their_grace(settings: Settings) -> None:
    halves = [
        settings.catalogue_folder / ".image-x.json.new",
        settings.cache_folder / "base" / ".key.json.new",
        settings.builds_folder / "no-build" / "file",
        settings.builds_folder / BUILD / "logs" / "build.log",
    ]
    whole = [
        settings.catalogue_folder / "image-x.json",
        settings.builds_folder / "build-kept-1a2b3c4-01234567" / "status.json",
        settings.builds_folder / ".journal",
    ]
    for path in (*halves, *whole):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    kinds = leftovers(settings, lambda name: False)
    clean(*kinds)
    assert all(path.exists() for path in halves)
    clean(*kinds, later_seconds=25 * 3600)
    assert not any(path.exists() for path in halves)
    assert all(path.exists() for path in whole)


def test_configurations_and_run_roots_leave_with_their_storage(settings: Settings) -> None:
    graphs = {key: fill(settings, key) for key in ("gone", "stays")}
    containers = Containers(settings)
    for graph in graphs.values():
        containers.environment(graph)
        containers.runroot(graph).mkdir(parents=True)
    kinds = leftovers(settings, lambda name: False)
    clean(*kinds)
    before = set(containers.policy.parent.iterdir())
    subprocess.run(["rm", "-rf", graphs["gone"]], check=True)
    clean(*kinds, later_seconds=3601)
    gone = before - set(containers.policy.parent.iterdir())
    assert len(gone) == 2
    assert not containers.runroot(graphs["gone"]).exists()
    assert containers.runroot(graphs["stays"]).exists()
    for graph in graphs.values():
        subprocess.run(["rm", "-rf", containers.runroot(graph)], check=True)
