"""Wheels that are kept: only what is missing is fetched, and adding costs what is added. With a real uv."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from tests.index import Index
from workflows.builder.wheels import Package, Wheels
from workflows.settings import MIB, Settings

PYTHON = "3.11"


@pytest.fixture
def index() -> Iterator[Index]:
    with Index().serving() as index:
        yield index


class Kept:
    """The wheels of a farm whose builds install from the test's index."""

    def __init__(self, folder: Path, index: Index, **settings: object) -> None:
        self._settings = Settings(state=folder / "state", index_url=index.url).model_copy(update=settings)
        self.wheels = Wheels(self._settings)
        self._target = folder / "installed"

    @property
    def layers(self) -> list[Path]:
        """The cache, the youngest layer first."""
        with self.wheels.readable() as layers:
            return list(layers)

    def add(self, *names: str) -> int:
        packages = [Package(name=name, version="1.0") for name in names]
        return self.wheels.add(packages, PYTHON)

    def installs(self, name: str) -> bool:
        """Whether a layer holds all that an installation needs, with nobody asked."""
        command = [
            uv.find_uv_bin(),
            "pip",
            "install",
            "--no-config",
            "--no-deps",
            "--offline",
            f"--python-version={PYTHON}",
        ]
        command += [f"--default-index={self._settings.index_url}", f"--target={self._target / name}", f"{name}==1.0"]
        ways = [[*command, "--link-mode=copy", f"--cache-dir={layer}"] for layer in self.layers]
        return any(subprocess.run(way, capture_output=True, check=False).returncode == 0 for way in ways)


@pytest.fixture
def kept(tmp_path: Path, index: Index) -> Kept:
    return Kept(tmp_path, index)


def files_of(layer: Path) -> list[Path]:
    return [path for path in layer.rglob("*") if path.is_file()]


def test_only_what_is_missing_is_asked_for(kept: Kept, index: Index) -> None:
    for name in ("one", "two", "three"):
        index.add(name)
    assert kept.add("one", "two") == 2
    assert sorted(index.asked) == ["one", "two"]
    assert kept.add("one", "two", "three") == 3
    assert sorted(index.asked) == ["one", "three", "two"]
    assert kept.add("three", "one") == 2
    assert len(index.asked) == 3
    assert all(kept.installs(name) for name in ("one", "two", "three"))


def test_what_has_no_wheel_is_asked_for_once_and_keeps_no_other_away(kept: Kept, index: Index) -> None:
    index.add("wheel")
    index.add_source("source")
    assert kept.add("source", "wheel", "nowhere") == 1
    assert kept.installs("wheel")
    asked = len(index.asked)
    assert kept.add("source", "wheel", "nowhere") == 1
    assert len(index.asked) == asked


def test_an_index_that_does_not_answer_is_asked_again(
    kept: Kept, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    index.add("late")
    index.is_away = True
    assert kept.add("late") == 0
    index.is_away = False
    assert kept.add("late") == 1
    assert kept.installs("late")


def test_one_more_package_costs_what_it_has_however_much_is_there(kept: Kept, index: Index) -> None:
    index.add("large", files={f"large/{number}.py": b"" for number in range(2000)})
    index.add("small")
    assert kept.add("large") == 1
    (large,) = kept.layers
    before = {path: path.stat() for path in (large, *files_of(large))}
    assert kept.add("small") == 1
    small, same = kept.layers
    assert same == large
    assert len(files_of(small)) < 20
    assert {path: path.stat() for path in (large, *files_of(large))} == before, "not even another link to a file"
    assert kept.installs("small")
    assert kept.installs("large")


def test_many_small_layers_become_few_and_nothing_is_lost(kept: Kept, index: Index, tmp_path: Path) -> None:
    names = [f"package{number}" for number in range(12)]
    for name in names:
        index.add(name)
        assert kept.add(name) == 1
    assert len(kept.layers) <= 4
    assert kept.add(*names) == len(names)
    assert index.asked == names
    assert all(kept.installs(name) for name in names)
    folders = {path.name for path in (tmp_path / "state" / "cache" / "wheels").iterdir() if path.name.isdigit()}
    assert folders == {layer.name for layer in kept.layers}, "what is no part of the cache is gone"


def test_a_layer_stays_for_whoever_looks_at_it(kept: Kept, index: Index) -> None:
    for name in ("first", "second"):
        index.add(name)
    assert kept.add("first") == 1
    with kept.wheels.readable() as (layer,):
        assert kept.add("second") == 1
        assert layer not in kept.layers, "the two small ones are one now"
        assert files_of(layer)
    kept.wheels.remove_unused()
    assert not layer.exists()


def test_what_unpacks_to_more_than_the_limit_is_given_up_and_the_rest_is_kept(tmp_path: Path, index: Index) -> None:
    index.add("bomb", files={"bomb.bin": b"\0" * (300 * MIB)})
    index.add("small")
    kept = Kept(tmp_path, index, wheel_limit_bytes=20 * MIB)
    assert kept.add("bomb", "small") == 1
    assert sum(path.stat().st_size for layer in kept.layers for path in files_of(layer)) < MIB
    assert kept.installs("small")
    asked = len(index.asked)
    assert kept.add("bomb") == 0
    assert len(index.asked) == asked


def test_what_grows_beyond_the_limit_is_ended_while_it_grows(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, endless = tmp_path / "written", tmp_path / "uv"
    endless.write_text(f"""#!/bin/sh
for each in "$@"; do case "$each" in --cache-dir=*) cache="${{each#--cache-dir=}}";; esac; done
mkdir -p "$cache/archive-v0/endless"
for number in $(seq 1000); do
  head -c 1048576 /dev/zero > "$cache/archive-v0/endless/$number" || exit 1
  echo $number > {written}
  sleep 0.01
done
""")
    endless.chmod(0o755)
    monkeypatch.setattr(uv, "find_uv_bin", lambda: str(endless))
    kept = Kept(tmp_path, index, wheel_limit_bytes=20 * MIB)
    assert kept.add("endless") == 0
    assert 20 <= int(written.read_text()) < 1000
    assert [files_of(layer) for layer in kept.layers] == [[]]


def test_what_finds_no_room_begins_anew(tmp_path: Path, index: Index) -> None:
    for name in ("early", "late"):
        index.add(name, files={f"{name}.bin": b"x" * (2 * MIB)})
    kept = Kept(tmp_path, index, wheel_limit_bytes=3 * MIB)
    assert kept.add("early") == 1
    assert kept.add("late") == 1
    assert kept.installs("late")
    assert not kept.installs("early")


def test_wheels_of_an_older_argosy_are_read_on(kept: Kept, index: Index, tmp_path: Path) -> None:
    index.add("new")
    old = tmp_path / "state" / "cache" / "wheels" / "7"
    old.mkdir(parents=True)
    (old / "wheel").write_text("")
    old.with_name("newest").write_text("7")
    assert kept.layers == [old]
    assert kept.add("new") == 1
    assert any((layer / "wheel").exists() for layer in kept.layers)
    assert kept.installs("new")
