"""Syft and Grype: what is in an image, and what is known against it.

Source: https://github.com/anchore/syft and https://github.com/anchore/grype, their READMEs and ``--help``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from workflows.errors import ConfigError, InternalError, TransientError, unless_killed
from workflows.image import ImageDigest
from workflows.scan.database import alone, default_database, hold, stamp
from workflows.scan.findings import normalised
from workflows.scan.rules import Rules, today
from workflows.scan.verdict import Verdict, database_of, judged, no_database, not_yet
from workflows.settings import Settings

_logger = logging.getLogger(__name__)

_TRIES = 3
"""Of a scan whose database was changed under it, which can happen only where no links can be made."""
_NO_DATABASE = ("database does not exist", "failed to load vulnerability db", "no vulnerability database")


class Scanner:
    """Scans images.

    Args:
        settings: ``grype_db`` and its greatest age.
        folder: Scratch space; what the tools leave in it is removed.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._scratch = folder / "scan"

    def sbom(self, layout: Path, path: Path) -> None:
        """Write what is in the image of an OCI layout to `path`, as CycloneDX JSON.

        Raises:
            ConfigError: There is no Syft.
            TransientError: It failed: disk or memory.
        """
        syft = _program("syft")
        command = [syft, "scan", f"oci-dir:{layout}", "--scope=squashed", f"--output=cyclonedx-json={path}", "--quiet"]
        done = self._run(command, _SYFT_ENVIRONMENT)
        if done.returncode != 0:
            raise TransientError(detail=f"syft: {done.stderr.strip()}")

    def verdict(self, digest: ImageDigest, sbom: Path, rules: Rules | None = None) -> Verdict:
        """What is known against the packages of an SBOM.

        Args:
            digest: The image's.
            sbom: Of `sbom`.
            rules: What refuses an image; None: nothing does.

        Raises:
            TransientError: The database is changed again and again.
            InternalError: Grype failed, other than for want of a database.
        """
        if not is_installed():
            return not_yet(digest)
        output = self._findings(sbom)
        if output is None:
            return no_database(digest)
        matches, status = _read(output)
        findings = normalised(matches)
        expired = ""
        if rules:
            day = today()
            findings = tuple(rules.decide(finding, day) for finding in findings)
            for ignore in rules.expired(findings, day):
                expired += f" What this service ignored of {ignore} counts again since {ignore.expires} is over."
        database = database_of(status, time.time())
        max_age = self._settings.grype_db_max_age_hours
        verdict = judged(findings, database, digest=digest, max_age_hours=max_age)
        return dataclasses.replace(verdict, message=verdict.message + expired)

    def _findings(self, sbom: Path) -> str | None:
        """Grype's JSON; None where there is no database."""
        command = [_program("grype"), f"sbom:{sbom}", "--output=json", "--quiet"]
        source = self._settings.grype_db.absolute() if self._settings.grype_db else default_database()
        held = self._scratch.with_name("grype-db")
        for _ in range(_TRIES):
            before = stamp(source)
            try:
                database = self._hold(source, held)
                done = self._run(command, _grype_environment(database))
                if done.returncode == 0:
                    return done.stdout
                if database == source and stamp(source) != before:
                    _logger.info("the database was changed under a scan: %s", done.stderr.strip())
                    continue
                if any(text in done.stderr for text in _NO_DATABASE) or not self._has_database(database):
                    return None
                raise InternalError(detail=f"grype: {done.stderr.strip()}")
            finally:
                shutil.rmtree(held, ignore_errors=True)
        raise TransientError(detail=f"{source} is changed again and again")

    def _hold(self, source: Path, target: Path) -> Path:
        if self._settings.grype_db is not None:
            return hold(source, target)
        # Grype's own place: brought up to date by one of us at a time. Without a network what is there is used.
        with alone(source):
            done = self._run([_program("grype"), "db", "update", "--quiet"], _grype_environment(source))
            if done.returncode != 0:
                _logger.warning("the database is not brought up to date: %s", done.stderr.strip()[-500:])
            return hold(source, target)

    def _has_database(self, database: Path) -> bool:
        return self._run([_program("grype"), "db", "status"], _grype_environment(database)).returncode == 0

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        # A folder of our own as the current one and as the temporary one: both tools read a configuration file from
        # the first and unpack layers into the second.
        self._scratch.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                # A visitor who waits for a server on the same processors goes first.
                ["nice", "-n", "10", *command],
                cwd=self._scratch,
                env=os.environ | environment | {"TMPDIR": str(self._scratch)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise ConfigError(detail=f"{command[0]} does not run: {error.strerror}") from error
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        unless_killed(command[0], done.returncode)
        return done


_SYFT_ENVIRONMENT = {
    "SYFT_CHECK_FOR_APP_UPDATE": "false",
    # Digests of every file are of no use to us and cost a read of all.
    "SYFT_FILE_METADATA_SELECTION": "none",
}


def _grype_environment(database: Path) -> dict[str, str]:
    return {
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
        # An old database still finds old vulnerabilities: its age is judged, and said, by us.
        "GRYPE_DB_VALIDATE_AGE": "false",
        "GRYPE_DB_CACHE_DIR": str(database),
        "GRYPE_DB_AUTO_UPDATE": "false",
    }


def _read(output: str) -> tuple[list[Any], Any]:
    try:
        given = json.loads(output)
        return list(given["matches"]), given["descriptor"]["db"]["status"]
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(detail=f"grype wrote no findings: {output[:500]}") from error


def is_installed() -> bool:
    """Whether there is a Grype; `make run` installs it while images are published already."""
    return _found("grype") is not None


def _found(name: str) -> str | None:
    """The path of a program: beside this Python, on the PATH, or where `make install` puts what it builds."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    folders.append(str(Path.home() / ".cache/argosy/bin"))
    return shutil.which(name, path=os.pathsep.join(folders))


def _program(name: str) -> str:
    found = _found(name)
    if found is None:
        raise ConfigError(detail=f"{name} is not installed: make install, or ARGOSY_SCAN_POLICY=off")
    return found
