"""``python -I -m workflows.builder.machine.enter SPECIFICATION COMMAND …``: a command behind the walls.

Run as this machine's root by `workflows.builder.isolation` only. Step by step:

(1) It joins the build's control groups, so that everything that follows counts against the build's limits.
(2) A user namespace is made in which user 0 is nobody of this machine.
(3) In a mount namespace of its own a new root is put together: the tools of this machine read-only, a few files of
    ``/etc``, and the folders of this build; these with their owners mapped, so that what is written to disk has the
    owners that it has inside. Nothing else of this machine is in sight.
(4) From here on in that user namespace, with new PID, network, IPC, UTS and control group namespaces.
(5) The new network namespace gets one end of a cable; the other end stands behind the firewall of `network`.
(6) No user namespace can be made below this one.
(7) The command runs as process 1: when it ends, or this process does, the kernel ends all the others.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from workflows.builder.machine import kernel
from workflows.builder.machine.network import connect
from workflows.builder.walls import CANNOT_BE_MADE, FAILED
from workflows.errors import KILLED, ArgosyError, ConfigError, TransientError, unless_killed

_TOOLS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
_ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "protocols",
    "services",
    "ssl",
)
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")


def main(arguments: list[str]) -> int:
    """Run a command behind the walls.

    Args:
        arguments: The specification as `workflows.builder.isolation` writes it (JSON), then the command.

    Returns:
        The command's exit code; 247 where somebody killed it, or what makes the walls; 125 where they cannot be made.
    """
    try:
        return _run(json.loads(arguments[0]), arguments[1:])
    except TransientError:
        return KILLED
    except (OSError, ArgosyError) as error:
        _tell(error)
        return FAILED


def _run(specification: dict[str, Any], command: list[str]) -> int:
    kernel.die_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    # Whoever started this may have bound itself more closely; here the group's limit counts.
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for group in specification["groups"]:  # (1)
        Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    userns = _user_namespace(specification["first_user"], specification["users"])  # (2)
    ready, set_ready = os.pipe()
    connected, set_connected = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(set_connected)
        _guard(lambda: _child(specification, command, userns, set_ready, connected))
    os.close(set_ready)
    if os.read(ready, 1):
        # With a child that is killed its end of the cable goes away.
        with _meanwhile(child, set_connected):
            connect(child, specification["link"], specification["host_address"], specification["address"])  # (5)
            os.write(set_connected, b"x")
    return _wait(child)


@contextmanager
def _meanwhile(child: int, pipe: int) -> Iterator[None]:
    """Do something to a child that goes on, or ends, when it hears from a pipe.

    Raises:
        TransientError: It failed because somebody has killed the child.
    """
    try:
        yield
    except (OSError, ArgosyError):
        os.close(pipe)
        unless_killed(f"process {child}", _wait(child))
        raise


def _wait(child: int) -> int:
    """The exit code of a child, once it has ended, as a process that stands between says it: in a byte."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _user_namespace(first: int, count: int) -> int:
    """A file descriptor of a new user namespace whose users 0 … are `first` … of this machine."""
    made, set_made = os.pipe()
    done, set_done = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(set_done)
        _guard(lambda: _hold(set_made, done))
    os.close(set_made)
    with _meanwhile(child, set_done):
        if not os.read(made, 1):
            raise ConfigError(detail="no user namespace")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(f"0 {first} {count}\n", encoding="ascii")
        descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.close(set_done)
    os.waitpid(child, 0)
    return descriptor


def _hold(set_made: int, done: int) -> NoReturn:
    kernel.unshare(kernel.CLONE_NEWUSER)
    os.write(set_made, b"x")
    os.read(done, 1)
    os._exit(0)


def _child(specification: dict[str, Any], command: list[str], userns: int, ready: int, connected: int) -> NoReturn:
    kernel.unshare(kernel.CLONE_NEWNS)
    _put_together(specification, userns)  # (3)
    os.setgroups([])
    kernel.enter(userns, kernel.CLONE_NEWUSER)  # (4)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    kernel.die_with_parent()
    others = kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | others)
    os.write(ready, b"x")
    if not os.read(connected, 1):
        os._exit(FAILED)
    child = os.fork()
    if child == 0:
        _guard(lambda: _become(specification, command))
    os._exit(_wait(child))


def _put_together(specification: dict[str, Any], userns: int) -> None:
    kernel.mount("", Path("/"), flags=kernel.MS_REC | kernel.MS_PRIVATE)
    root = Path(specification["root"])
    first = specification["first_user"]
    kernel.mount("tmpfs", root, flags=kernel.MS_NOSUID | kernel.MS_NODEV, data=f"mode=0755,uid={first},gid={first}")
    _show_tools(root)
    for path in (*(Path("/etc", name) for name in _ETC), *(Path("/dev", name) for name in _DEVICES)):
        if path.exists():
            kernel.bind(path.resolve(), _below(root, path), read_only=path.parent.name == "etc")
    for path in (Path("/proc"), Path("/sys")):
        kernel.bind(path, _below(root, path), read_only=False)
    for name, text in specification["files"].items():
        _below(root, Path(name)).write_text(text, encoding="utf-8")
    for name in specification["readable"]:
        kernel.bind(Path(name), _below(root, Path(name)), read_only=True, userns=userns)
    for name in specification["writable"]:
        kernel.bind(Path(name), _below(root, Path(name)), read_only=False, userns=userns)
    for name in ("tmp", "run", "var/tmp", "dev/pts", "dev/shm", "dev/mqueue"):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
    kernel.change_root(root)


def _show_tools(root: Path) -> None:
    for path in map(Path, _TOOLS):
        if path.is_symlink():
            _below(root, path).symlink_to(path.readlink())
        elif path.exists():
            kernel.bind(path, _below(root, path), read_only=True)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _become(specification: dict[str, Any], command: list[str]) -> NoReturn:
    kernel.die_with_parent()
    socket.sethostname("build")
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", Path("/proc"), flags=flags)
    # The profile of system calls that container tools bring lets everybody make a user namespace and mount in it. A
    # line has not the right to raise this again.
    Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")  # (6)
    for overlay in specification["overlays"]:
        kernel.overlay([Path(lower) for lower in overlay["lowers"]], Path(overlay["upper"]), Path(overlay["target"]))
    os.chdir(specification["folder"])
    os.execvpe(command[0], command, specification["environment"])  # (7)  # noqa: S606


def _guard(job: Any) -> NoReturn:
    """Run the part of a forked process: it must never return into its parent's part."""
    try:
        job()
    except OSError as error:
        _tell(error)
    finally:
        os._exit(FAILED)


def _tell(error: OSError | ArgosyError) -> None:
    said = error.detail if isinstance(error, ArgosyError) else error
    os.write(2, f"{CANNOT_BE_MADE}: {said}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
