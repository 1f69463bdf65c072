"""The forked process that is the step: its surroundings, and how it says how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from workflows.errors import DISK_FULL, EXIT_CODES, ArgosyError, InternalError, Reason, TransientError, is_full
from workflows.run import OPERATOR_MARK
from workflows.run.tree import die_with

_OOM_SCORE = "500"
"""When memory runs out, the kernel takes a step before it takes what supervises it."""


def become_step(step: Callable[[], None], *, parent: int, output: int, verdict: int) -> NoReturn:
    """Run `step` in a session of its own, and end this process by the contract's exit code.

    Args:
        step: What to run.
        parent: The process to end with.
        output: Descriptor of the log: stdout and stderr of the step and of all that it starts.
        verdict: Descriptor that takes the sentence for the visitor, as JSON, if the step fails. Not inherited by
            what the step starts, so that nothing else can speak there.
    """
    code = EXIT_CODES[Reason.INTERNAL]
    try:
        _log_to(os.dup(sys.stderr.fileno()))
        error = _error_of(lambda: _settle(parent, output)) or _error_of(step)
        code = error.exit_code if error else 0
        if error:
            os.write(verdict, json.dumps(str(error)).encode())
    finally:
        _flush()
        os._exit(code)


def _settle(parent: int, output: int) -> None:
    os.setsid()
    die_with(parent)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123
        score.write(_OOM_SCORE)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target, inheritable=True)
    # New streams, each line at once, whatever the locale can spell. The old ones may believe that they write to a file,
    # in which one can seek.
    sys.stdout, sys.stderr = (
        open(handle, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for handle in (1, 2)
    )


class _Marked(logging.Formatter):
    """Marks each line, those of a traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(OPERATOR_MARK + line for line in super().format(record).splitlines())


class _ToldToEnd(BaseException):
    """SIGTERM as an exception: the step's own `finally` and `with` clean up."""


def _log_to(operator: int) -> None:
    handler = logging.StreamHandler(os.fdopen(operator, "w", encoding="utf-8", errors="backslashreplace", buffering=1))
    handler.setFormatter(_Marked("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("workflows").setLevel(logging.INFO)


def _error_of(step: Callable[[], None]) -> ArgosyError | None:
    logger = logging.getLogger(__name__)
    try:
        step()
    except ArgosyError as error:
        if error.detail:
            logger.warning("%s", error.detail)
        return error
    except _ToldToEnd:
        return TransientError()
    except BaseException as error:  # the outermost edge of a step
        logger.exception("the step ended by an exception that nobody foresaw")
        if isinstance(error, OSError) and is_full(error):
            return TransientError(DISK_FULL)
        return InternalError()
    return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The log may be gone already; that is no reason to end otherwise.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001  # a signal handler's form
    raise _ToldToEnd
