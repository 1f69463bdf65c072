"""``python -m web.ledger``: brings the ledger's tables up to date, before new replicas of web start.

The chart's migration Job. Web does the same when it opens the ledger; here it fails where nobody is served yet.
"""

from __future__ import annotations

import sys

from web.ledger.database import Database
from workflows.errors import ArgosyError
from workflows.settings import load


def main() -> int:
    """Migrates.

    Returns:
        The exit code: 78 where the ledger's URL is wrong, 75 where the database does not answer.
    """
    try:
        database = Database(load().ledger)
        database.migrate()
        database.close()
    except ArgosyError as error:
        print(f"{error} {error.detail}".strip(), file=sys.stderr)  # noqa: T201  # for the person who reads the Job's log
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
