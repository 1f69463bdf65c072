"""scan: what is in the staged image (SBOM), what is known against it (findings), and whether it may pass (verdict)."""

from __future__ import annotations

import argparse

from workflows.errors import ConfigError, PolicyError
from workflows.image import BuildName, ImageDigest, ImageName
from workflows.scan.rules import rules_of
from workflows.scan.scanner import Scanner
from workflows.scan.verdict import Outcome
from workflows.settings import Settings
from workflows.stores.files import write_whole
from workflows.stores.staging import Staging


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this step."""
    parser.add_argument("--build", required=True, help="name of the build, after which the staging place is named")
    parser.add_argument("--image", required=True, help="name and tag that the image is to have, or has")
    parser.add_argument("--held", default="", help="digest, where that image is there already and nothing is staged")


def run(options: argparse.Namespace, settings: Settings) -> None:
    """Scan what is staged, or held; write ``sbom.cdx.json``, ``findings.json``, and the verdict as a line of the log.

    Under policy ``report`` a finding is no failure: the verdict tells, and whoever reads it decides. Under ``enforce``
    the verdict is said first, then what the rules refuse is refused; a build without a scanner, or a database for it to
    ask, is stopped.

    Raises:
        PolicyError: The rules refuse the image.
        BuildError: There is no usable image in the staging place.
        TooLargeError: It is larger than the setting ``max_image_bytes``.
        ConfigError: Syft is not installed, the file of ignored findings is wrong; or, under ``enforce``, Grype is not
            installed, or its database is missing or stale.
        TransientError: Registry or disk.
    """
    # Before all else: a rule that cannot be read must not cost a scan.
    rules = rules_of(settings) if settings.scan_policy == "enforce" else None
    # Absolute: the tools run in a folder of their own.
    workspace = settings.workspace.absolute()
    sbom = workspace / "sbom.cdx.json"
    staging = Staging(settings)
    if options.held:
        staged = staging.held(ImageName(options.image), ImageDigest(options.held))
    else:
        staged = staging.open(BuildName(options.build))
    _say(f"scanning {options.image} ({staged.digest})")
    scanner = Scanner(settings, workspace)
    with staging.layout(staged, workspace / "layout", _say) as layout:
        scanner.sbom(layout, sbom)
    verdict = scanner.verdict(staged.digest, sbom, rules)
    write_whole(workspace / "findings.json", verdict.to_json())
    _say(verdict.to_line())
    if rules is None:
        return
    if not verdict.is_whole:
        message = "This service's list of vulnerabilities is missing or too old, so it lets no image pass for now."
        raise ConfigError(f"{message} Only its operators can mend that.", detail=verdict.message)
    if verdict.outcome is Outcome.REFUSED:
        raise PolicyError(verdict.message)


def _say(line: str) -> None:
    print(line, flush=True)
