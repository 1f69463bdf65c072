"""How much room the state folder's disk has left."""

from __future__ import annotations

import shutil
from pathlib import Path

from workflows.errors import TransientError
from workflows.settings import Settings

FULL = "The disk of this service is nearly full. Nobody's repository is at fault: try again in a while."
"""What whoever asks for a build reads then."""

_SHARE = 10
"""A small disk need not keep more free than a tenth of itself."""


def missing_bytes(settings: Settings, folder: Path | None = None) -> int:
    """How many bytes too few are free; 0 where there are enough.

    Args:
        settings: The farm's.
        folder: Whose disk is looked at; None: the state folder's.

    Raises:
        TransientError: The disk does not say.
    """
    folder = folder or settings.state
    path = next(path for path in (folder, *folder.parents, Path("/")) if path.exists())
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        raise TransientError(detail=f"{path}: {error.strerror}") from error
    return max(0, min(settings.min_free_bytes, usage.total // _SHARE) - usage.free)
