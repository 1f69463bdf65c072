"""The recorder, the ledger and the archive in a gevent process, at the real local engine with scripted steps."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from web.ledger import Ledger
from web.recording import archive, transcript
from web.recording.archive import FsspecArchive
from workflows.build import State
from workflows.errors import Reason
from workflows.scan.verdict import Outcome, Verdict

VERDICT = Verdict(outcome=Outcome("pass"), message="Nothing found.")

STEP = """
    import os, sys
    step, options = sys.argv[1], dict(option[2:].split("=", 1) for option in sys.argv[2:])
    for number in range(200):
        print(f"{step} says {number}", flush=True)
    if step == "build" and "fails" in options["image"]:
        sys.exit(10)
    if step == "push":
        open(os.environ["ARGOSY_WORKSPACE"] + "/pushed.json", "w").write('{"digest": "sha256:' + "1" * 64 + '"}')
    if step == "scan":
        open(os.environ["ARGOSY_WORKSPACE"] + "/sbom.cdx.json", "w").write("{}")
        print(open(os.path.dirname(sys.argv[0]) + "/verdict").read(), flush=True)
"""

WEB = """
    from gevent import monkey; monkey.patch_all()
    import sys
    from pathlib import Path
    import gevent
    from tests.integration.heart import Heart
    from web import native
    from web.recording.archive import FsspecArchive
    from web.ledger import Ledger
    from web.recording.recorder import Recorder
    from workflows.build import BuildRequest
    from workflows.engines.admission import Admission
    from workflows.engines.local import LocalEngine
    from workflows.pipeline import BUILD, FETCH, PUBLISH, PUSH, SCAN, STAGE
    from workflows.settings import Settings

    folder = Path(sys.argv[1])
    settings = Settings(state=folder / "state")
    engine = LocalEngine(
        settings,
        steps=(FETCH, BUILD, STAGE, PUSH, PUBLISH, SCAN),
        command=(sys.executable, "-I", str(folder / "step.py")),
        sleep=native.sleep,
    )
    books = Ledger.open(settings.ledger)
    stop = native.Flag()
    recorder = Recorder(engine, books, FsspecArchive(settings.archive), Admission(engine, settings), keep_seconds=1)
    native.start(lambda: recorder.run(stop), "recorder")

    heart = Heart()

    off_loop = gevent.get_hub().threadpool.apply
    names = []
    for number, word in enumerate(("well", "fails", "fine"), start=1):
        request = BuildRequest(
            image=f"localhost/argosy/{word}:abc", provider="git", spec="x/main", ref="main", commit=f"{number:040x}",
            repo_url=f"https://x/{word}", clone_url=f"https://x/{word}", slug=word, owner=word,
        )
        names.append(off_loop(engine.submit, (request,)).name)
    while any((settings.builds_folder / name).exists() for name in names):
        gevent.sleep(0.02)
    print(heart.longest, *names)
    stop.set()
    off_loop(books.close)
"""


@pytest.mark.timeout(120)
def test_builds_are_admitted_recorded_and_forgotten_while_the_event_loop_goes_on(tmp_path: Path):
    for name, code in (("step.py", STEP), ("server.py", WEB)):
        (tmp_path / name).write_text(textwrap.dedent(code), encoding="utf-8")
    (tmp_path / "verdict").write_text(VERDICT.to_line(), encoding="utf-8")
    command = [sys.executable, str(tmp_path / "server.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    longest, *names = done.stdout.split()
    assert int(longest) < 200  # a second

    books = Ledger.open(f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}")
    store = FsspecArchive(f"file://{tmp_path / 'state' / 'archive'}")
    well, fails, fine = (books.build(name) for name in names)
    books.close()
    for build in (well, fine):
        assert (build.state, build.digest, build.verdict) == (State.SUCCEEDED, "sha256:" + "1" * 64, "pass")
        assert build.created <= build.started < build.published <= build.ended <= build.recorded
        assert store.get(archive.key(build.name, archive.SBOM)) == b"{}"
        lines = list(transcript.read(store.stream(archive.key(build.name, archive.LOG))))
        for step in ("fetch", "build", "stage", "push", "publish"):
            said = [line for line in lines if line.step == step]
            assert [line.text for line in said] == [f"{step} says {number}" for number in range(200)]
            assert [line.number for line in said] == list(range(1, 201))
        assert json.loads(lines[-1].text)["verdict"] == "pass"
    assert (fails.state, fails.reason, fails.digest, fails.published) == (State.FAILED, Reason.BUILD, "", 0)
    assert [step.exit_code for step in fails.steps][:3] == [0, 10, 64]
