"""The system calls of mount and user namespaces that Python does not offer.

The numbers are the same on every architecture from `open_tree` on; that of `pivot_root` stands in the table below.

Source: mount_setattr(2), open_tree(2), move_mount(2), unshare(2), setns(2), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_IDMAP = 0x10_0000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc.unshare(flags), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Enter the namespace behind an open file.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc.setns(namespace, kind), "setns")


def mount(filesystem: str, target: Path, *, flags: int = 0, data: str = "") -> None:
    """Mount a file system that has no device; empty `filesystem`: change what is mounted at `target`.

    Raises:
        OSError: The kernel refuses.
    """
    kind = os.fsencode(filesystem) if filesystem else None
    source = kind or b"none"
    result = _libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), os.fsencode(data) if data else None)
    _check(result, f"mount {filesystem or 'none'} on {target}")


def overlay(lowers: Sequence[Path], upper: Path, target: Path) -> None:
    """Show folders at `target`, which is made, as one that seems writable.

    Args:
        lowers: What is read, the upper ones first.
        upper: An empty folder that takes what is written.
        target: Where they are seen as one.

    Raises:
        OSError: The kernel refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in ("upper", "work"):
        (upper / name).mkdir()
    # What the root of those below may, that of the one above may: uv makes folders there as another user.
    status = lowers[0].stat()
    os.chown(upper / "upper", status.st_uid, status.st_gid)
    # Volatile: without it, taking the mount away writes all that the machine has in memory to disk, for seconds.
    data = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper}/upper,workdir={upper}/work,userxattr,volatile"
    mount("overlay", target, data=data)


def unmount(target: Path) -> None:
    """Take away what is mounted at `target`, at the latest when nobody uses it any more.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def bind(source: Path, target: Path, *, read_only: bool, userns: int | None = None) -> None:
    """Show `source` at `target`, which is made.

    Args:
        source: A file or a folder.
        target: Where it is to be seen.
        read_only: Whether nothing can be written through it.
        userns: File descriptor of a user namespace. With it, owners on disk are seen there as they are on disk:
            user 0 of that namespace writes files of user 0, although he is nobody on this machine.

    Raises:
        OSError: The kernel refuses.
    """
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    # An idmapped mount is one mount; what is mounted below it stays out of sight.
    depth = 0 if userns is not None else _AT_RECURSIVE
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | depth)
    tree = _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")
    try:
        attributes = _MountAttributes(set=_MOUNT_ATTR_RDONLY if read_only else 0)
        if userns is not None:
            attributes.set |= _MOUNT_ATTR_IDMAP
            attributes.userns = userns
        if attributes.set:
            size = ctypes.sizeof(attributes)
            where = ctypes.c_uint(_AT_EMPTY_PATH | depth)
            result = _libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", where, ctypes.byref(attributes), size)
            _check(result, f"mount_setattr {source}")
        how = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), how), f"move_mount {target}")
    finally:
        os.close(tree)


def change_root(root: Path) -> None:
    """Make `root`, a mount, this process's ``/``; the old one is gone from its mount namespace.

    Raises:
        OSError: The kernel refuses, or this architecture is unknown.
    """
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root: unknown architecture {platform.machine()}")
    old = root / ".old"
    old.mkdir()
    _check(_libc.syscall(number, os.fsencode(root), os.fsencode(old)), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _MNT_DETACH), "umount2")
    Path("/.old").rmdir()


def die_with_parent() -> None:
    """End this process by SIGKILL when its parent ends. Lost whenever the process changes its user.

    Raises:
        OSError: The kernel refuses.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
