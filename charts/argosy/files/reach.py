"""Tries connections, for `helm test`: what must be reached is, and what must not be reached is not.

reach.py --reach HOST:PORT … --refuse HOST:PORT …
"""

import argparse
import socket
import sys

SECONDS = 3
"""Longer than any connection in a cluster takes; a policy drops packets and says nothing."""


def is_reached(place: str) -> bool:
    """Whether somebody takes connections there; says so."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
    except OSError as error:
        print(f"{place}: {error}", flush=True)
        return False
    print(f"{place}: reached", flush=True)
    return True


def main() -> int:
    """Tries all; the exit code is 1 where one is not as it must be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reach", nargs="*", default=[])
    parser.add_argument("--refuse", nargs="*", default=[])
    places = parser.parse_args()
    missed = [place for place in places.reach if not is_reached(place)]
    open_ = [place for place in places.refuse if is_reached(place)]
    if missed:
        print(f"TOO NARROW: {', '.join(missed)} must be reached from here and is not.")
    if open_:
        print(f"NOT ENFORCED: {', '.join(open_)} must not be reached from here and is. This cluster's network plugin")
        print("does not enforce network policies, or something else allows it: strangers' code reaches it, too.")
    return 1 if missed or open_ else 0


if __name__ == "__main__":
    sys.exit(main())
