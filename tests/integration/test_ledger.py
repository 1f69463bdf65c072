from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from sqlalchemy import Connection

from web.ledger import Ledger
from web.ledger.database import Database
from workflows.build import BuildRequest, BuildStatus, State
from workflows.errors import TransientError
from workflows.image import CommitSHA, ImageName

PREAMBLE = """
    import sys, time
    from workflows.build import BuildRequest, BuildStatus, State

    def status(number):
        request = BuildRequest(
            image="localhost/argosy/x:abc", provider="gh", spec="o/r/main", ref="main", commit="a" * 40,
            repo_url="https://x/o/r", clone_url="https://x/o/r", slug="o/r", owner="o", attempt=number,
        )
        return BuildStatus(request=request, state=State.QUEUED, created=float(number))
"""


def started(code: str, url: str, *arguments: str) -> subprocess.Popen[str]:
    script = textwrap.dedent(PREAMBLE) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script, url, *arguments], text=True, stdout=subprocess.PIPE)


def output(process: subprocess.Popen[str], timeout: float = 60) -> str:
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return out


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}"


def test_four_processes_open_a_new_ledger_at_once_and_write(url):
    code = """
        from web.ledger import Ledger
        books = Ledger.open(sys.argv[1])
        first = int(sys.argv[2])
        for number in range(first, first + 50):
            books.record_status(status(number))
        books.close()
    """
    for process in [started(code, url, str(100 * number + 2)) for number in range(4)]:
        output(process)
    books = Ledger.open(url)
    assert len(books.recent_builds(1000)) == 200
    books.close()


def test_a_gevent_process_asks_from_many_native_threads_and_its_loop_goes_on(url):
    # The trap: gevent's patched locks and thread locals inside native threads of gevent's own pool.
    code = """
        from gevent import monkey; monkey.patch_all()
        import gc
        import gevent
        from gevent.threadpool import ThreadPool
        from tests.integration.heart import Heart
        from web import native
        from web.ledger import Ledger

        books = Ledger.open(sys.argv[1])
        pool = ThreadPool(8)
        heart = Heart()

        done = []
        def outside():  # as the recorder does: a native thread that no pool knows
            for number in range(1000, 1100):
                books.record_status(status(number))
            done.append(True)
        native.start(outside, "outside")

        def visit(number):
            pool.apply(books.record_status, (status(number),))
            assert pool.apply(books.build, (status(number).name,)).attempt == number
            return number
        jobs = [gevent.spawn(visit, number) for number in range(1, 301)]
        gevent.joinall(jobs, timeout=50, raise_error=True)
        assert sorted(job.value for job in jobs) == list(range(1, 301))
        while not done:
            gevent.sleep(0.01)
        assert len(pool.apply(books.recent_builds, (1000,))) == 400
        # A patched lock that is waited for outside the loop's thread makes an event loop for that thread, too.
        hubs = sum(isinstance(thing, gevent.hub.Hub) for thing in gc.get_objects())
        print(heart.beats, heart.longest, hubs)
        pool.apply(books.close)
    """
    beats, longest, hubs = output(started(code, url)).split()
    assert hubs == "1"
    assert int(beats) > 20
    assert int(longest) < 200  # a second


def test_one_who_reads_and_then_writes_is_not_refused_because_another_wrote_between(url):
    mine, theirs = Database(url), Database(url)
    mine.migrate()
    mine.write(lambda c: c.exec_driver_sql("CREATE TABLE counted (number INTEGER)"))
    mine.write(lambda c: c.exec_driver_sql("INSERT INTO counted VALUES (0)"))
    has_read = threading.Event()

    def add(connection: Connection) -> None:
        number = connection.exec_driver_sql("SELECT number FROM counted").scalar()
        has_read.set()
        time.sleep(0.2)
        connection.exec_driver_sql(f"UPDATE counted SET number = {number} + 1")

    first = threading.Thread(target=mine.write, args=(add,))
    first.start()
    assert has_read.wait(10)
    theirs.write(add)
    first.join()
    assert mine.read(lambda c: c.exec_driver_sql("SELECT number FROM counted").scalar()) == 2
    mine.close()
    theirs.close()


def test_a_reader_does_not_wait_for_another_process_that_writes(url, tmp_path):
    books = Ledger.open(url)
    other = sqlite3.connect(tmp_path / "state" / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    assert books.recent_builds() == ()
    assert time.monotonic() - begun < 8  # it would be refused after 10
    other.execute("ROLLBACK")
    other.close()
    books.close()


def test_the_file_is_in_wal_with_foreign_keys_and_a_timeout(url):
    books = Ledger.open(url)
    pragmas = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
    found = books._database.read(lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas])
    assert found == ["wal", 1, 1, 10000]
    books.close()


def test_a_full_disk_is_said_as_transient(url):
    books = Ledger.open(url)
    books._database.read(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1").scalar())
    request = BuildRequest(
        image=ImageName("localhost/argosy/x:abc"),
        provider="gh",
        spec="o/r/main" * 100_000,
        ref="main",
        commit=CommitSHA("a" * 40),
        repo_url="https://x/o/r",
        clone_url="https://x/o/r",
        slug="o/r",
        owner="o",
    )
    with pytest.raises(TransientError):
        books.record_status(BuildStatus(request=request, state=State.QUEUED, created=1))
    assert books.recent_builds() == ()
    books.close()
