"""The command line of the step runner. Exits by the contract of `workflows.errors`."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from workflows.errors import EXIT_CODES, SKIPPED, ArgosyError, InternalError, Reason
from workflows.pipeline import STEPS, Step
from workflows.run import OPERATOR_MARK

_PROGRAM = "python -I -m workflows.run"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse's own 2 is outside the contract. A wrong command line is the bug of whoever wrote it.
        self.print_usage(sys.stderr)
        self.exit(EXIT_CODES[Reason.INTERNAL], f"{self.prog}: {message}\n")


def main(arguments: list[str]) -> int:
    """Run one step.

    Args:
        arguments: Perhaps ``--after=STEP``, the step's name, then its ``--name=value``.

    Returns:
        The contract's exit code.
    """
    parser = _Parser(
        prog=_PROGRAM,
        description="Run one step of Argosy's pipeline, watched over.",
        epilog=_epilog() if arguments[:1] in ([], ["-h"], ["--help"]) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [step.name for step in STEPS]
    parser.add_argument(
        "--after",
        metavar="STEP",
        choices=names,
        action="append",
        default=[],
        help="in a pod: begin when this has ended",
    )
    parser.add_argument("step", metavar="STEP", choices=names, help="the step's name")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the step's own")
    given = parser.parse_args(arguments)
    if given.after:
        _tell_operator(f"waits for {' and '.join(given.after)}")
    try:
        return _run(next(step for step in STEPS if step.name == given.step), given.options, given.after)
    except ArgosyError as error:
        if error.detail:
            _tell_operator(error.detail)
        print(error, flush=True)  # noqa: T201
        _leave_notice(str(error))
        return error.exit_code


def _run(step: Step, arguments: list[str], needs: list[str]) -> int:
    module = _module(step)
    parser = _Parser(prog=f"{_PROGRAM} {step.name}", description=module.__doc__, allow_abbrev=False)
    module.arguments(parser)
    options = parser.parse_args(arguments)

    # Here, not above: the help needs neither, and settings cost most of the time that a step needs to start.
    from workflows.run.pod import failed, forget_missing_secrets  # noqa: PLC0415
    from workflows.run.supervisor import Limits, Supervisor  # noqa: PLC0415
    from workflows.settings import load  # noqa: PLC0415

    forget_missing_secrets(os.environ)
    settings = load()
    limits = Limits(
        # The whole build's clock runs elsewhere; in a pod nobody would tell by it why a step ended.
        seconds=min(getattr(settings, name) for name in (*step.limits, "build_timeout_seconds")),
        silent_seconds=settings.silent_seconds,
        max_log_bytes=settings.max_log_bytes,
    )
    supervisor = Supervisor(limits)
    # Last of all: what a step needs to start, it has got while others ran.
    if need := failed(needs):
        _leave_notice(f"Left out: {need} failed.")
        return SKIPPED
    return supervisor.run(functools.partial(module.run, options, settings))


def _tell_operator(line: str) -> None:
    print(f"{OPERATOR_MARK}{line}", file=sys.stderr, flush=True)  # noqa: T201


def _leave_notice(sentence: str) -> None:
    from workflows.run.pod import leave_notice  # noqa: PLC0415

    leave_notice(sentence)


def _module(step: Step) -> Any:
    # The name comes from the pipeline's own list, never from the command line.
    try:
        return importlib.import_module(f"workflows.steps.{step.name}")
    except ImportError as error:
        raise InternalError(detail=f"step {step.name}: {error}") from error


def _epilog() -> str:
    lines = (f"  {step.name:<9} {_summary(step)}" for step in STEPS)
    return "\n".join(("steps (each has --help):", *lines))


def _summary(step: Step) -> str:
    """The first line of the step's docstring, without running its module."""
    found = importlib.util.find_spec(f"workflows.steps.{step.name}")
    if not found or not found.origin:
        return "(not in this installation)"
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # The step is over and its processes are gone: what Python does at its own end has nothing left to do here.
    os._exit(code)
