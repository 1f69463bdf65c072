"""Writes the WorkflowTemplates that the chart ships; with ``--check`` only says whether they are stale.

They are rendered by `workflows.engines.argo.rendering`, once for each scan policy, into one file of several documents.
What refers to anything that is not there is not written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from workflows.engines.argo.references import faults
from workflows.engines.argo.rendering import POLICIES, render

GOLDEN = Path(__file__).parent.parent / "charts/argosy/files/pipeline.yaml"
HEADER = """\
# Written by `make render` out of workflows/pipeline.py: change that, never this file.
# `make lint` notices where it is stale.
# One WorkflowTemplate for each scan policy; the chart takes the one of its value and names it after its content.
"""


def rendered() -> str:
    """What is to stand in the file.

    Raises:
        SystemExit: A template refers to what is not there.
    """
    documents = {policy: render(policy) for policy in POLICIES}
    wrong = [f"{policy}: {fault}" for policy, text in documents.items() for fault in faults(yaml.safe_load(text))]
    if wrong:
        raise SystemExit("\n".join(wrong))
    return HEADER + "".join(f"---\n{text}" for text in documents.values())


def main() -> int:
    """Writes or checks; the exit code is 1 where a check finds the file stale."""
    parser = argparse.ArgumentParser(description="Write the WorkflowTemplates into the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is stale")
    options = parser.parse_args()
    fresh = rendered()
    if GOLDEN.exists() and GOLDEN.read_text(encoding="utf-8") == fresh:
        return 0
    if options.check:
        print(f"{GOLDEN.name}: the WorkflowTemplates are stale; `make render` writes them anew", file=sys.stderr)
        return 1
    GOLDEN.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
