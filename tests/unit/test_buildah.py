"""What buildah is given, a context of a stranger's files, and what its last words mean."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from workflows.builder.buildah import _unpacked
from workflows.builder.complaint import error_of, says_full
from workflows.errors import ArgosyError, BuildError, ConfigError, TransientError


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Members as name, kind and what a link leads to."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, target in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, target, 0o4755
            entry.uid, entry.gid = os.getuid(), os.getgid()
            tar.addfile(entry, io.BytesIO())
    stream.seek(0)
    return stream


def test_files_links_and_modes_stay_and_special_bits_go(tmp_path: Path) -> None:
    given = archive(
        ("src", tarfile.DIRTYPE, ""), ("src/run", tarfile.REGTYPE, ""), ("src/data", tarfile.SYMTYPE, "/srv")
    )
    folder = _unpacked(given, tmp_path / "context")
    assert (folder / "src" / "run").stat().st_mode & 0o7777 == 0o755
    assert (folder / "src" / "data").readlink() == Path("/srv"), "it is the image's own folder of that name"


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", tarfile.REGTYPE, "")],
        [("/tmp/outside", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/outside", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("device", tarfile.CHRTYPE, "")],
    ],
)
def test_what_would_lead_out_is_refused(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(BuildError):
        _unpacked(archive(*members), tmp_path / "context")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("how", ["while running runtime: exit status 3", "exit status 3"], ids=["runc", "chroot"])
def test_the_line_that_failed_is_named_however_it_was_run(how: str) -> None:
    error = error_of(f'Error: building at STEP "RUN make \\"all\\"": {how}', 3, is_full=False)
    assert str(error) == 'This line of the build ended with exit status 3: RUN make \\"all\\"'


LINE = 'Error: building at STEP "RUN x": while running runtime: exit status '


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (f"STEP 2/5: RUN x\n{LINE}1\n", BuildError),
        # What a line may print itself decides nothing.
        (f"STEP 2/5: RUN x\nreading blob: initializing source\n{LINE}1\n", BuildError),
        (f"STEP 2/5: RUN x\ncontainer exited on killed\n{LINE}1\n", TransientError),
        ('Error: building at STEP "RUN x": while running runtime: signal: killed\n', TransientError),
        (f"+ timeout -s KILL 5 x\n{LINE}137\n", BuildError),
        (f"write /x: no space left on device\n{LINE}1\n", BuildError),
        ("Error: committing container: write /x: no space left on device\n", TransientError),
        (
            "Error: initializing source docker://127.0.0.1:5000/x: pinging container registry 127.0.0.1:5000\n",
            BuildError,
        ),
        ("Error: initializing source docker://r.test/x: pinging container registry r.test: i/o\n", TransientError),
    ],
)
def test_a_line_that_ended_by_itself_is_its_authors_and_one_that_was_killed_is_nobodys(
    said: str, kind: type[ArgosyError]
) -> None:
    assert type(error_of(said, 1, is_full=False)) is kind


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        ("the walls around this build cannot be made: [Errno 1] Operation not permitted\n", 125, ConfigError),
        # A line of the build can say so, too, and end with whatever it likes.
        (f"STEP 2/5: RUN x\nthe walls around this build cannot be made\n{LINE}125\n", 125, BuildError),
        (f"the walls around this build cannot be made\n{LINE}125\n", 125, BuildError),
    ],
)
def test_only_the_walls_say_that_the_walls_cannot_be_made(said: str, code: int, kind: type[ArgosyError]) -> None:
    assert type(error_of(said, code, is_full=False)) is kind


def test_a_line_that_met_a_full_disk_is_nobodys_fault() -> None:
    said = f"write /x: no space left on device\n{LINE}1\n"
    assert says_full(said)
    assert type(error_of(said, 1, is_full=True)) is TransientError
