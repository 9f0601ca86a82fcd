import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from studies import claim
from studies.claim import heartbeat, is_live, latest, release, take, this_worker


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "running" / "0123"


def claimed_by(folder, worker, *, silent=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"claim.{latest(folder) + 1}.json"
    path.write_text(json.dumps({"released": False, **asdict(worker)}))
    os.utime(path, (time.time() - silent,) * 2)


def ended_process():
    script = "import json; from dataclasses import asdict; from studies.claim import this_worker; "
    out = subprocess.run(
        [sys.executable, "-c", script + "print(json.dumps(asdict(this_worker())))"],
        capture_output=True,
        check=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(claim.__file__)),
    )
    return claim.Worker(**json.loads(out.stdout))


def test_a_folder_that_nobody_claimed_is_free_and_taken_once(folder):
    assert not is_live(folder)
    assert take(folder) == 1
    assert is_live(folder)
    assert take(folder) is None


def test_of_many_that_take_at_once_one_gets_it(folder):
    barrier, won = threading.Barrier(16), []

    def one():
        barrier.wait()
        won.append(take(folder))

    threads = [threading.Thread(target=one) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [number for number in won if number is not None] == [1]


def test_a_released_claim_is_free_at_once_and_counts_on(folder):
    release(folder, take(folder))
    assert not is_live(folder)
    assert take(folder) == 2


def test_the_claim_of_a_process_that_ended_is_taken_over_at_once(folder):
    claimed_by(folder, ended_process())
    assert take(folder) == 2


def test_a_process_id_that_was_given_to_another_process_is_not_the_claims(folder):
    claimed_by(folder, replace(this_worker(), start="1"))
    assert take(folder) == 2


def test_the_claim_of_a_boot_before_is_taken_over_at_once(folder):
    claimed_by(folder, replace(this_worker(), boot="another"))
    assert take(folder) == 2


@pytest.mark.parametrize("away", [{"host": "another"}, {"space": "another"}])
def test_a_worker_that_cannot_be_seen_is_judged_by_its_heartbeat(folder, away):
    claimed_by(folder, replace(this_worker(), **away), silent=claim.SILENCE / 2)
    assert take(folder) is None
    claimed_by(folder, replace(this_worker(), **away), silent=claim.SILENCE * 2)
    assert take(folder) == 3


def test_a_claim_torn_by_a_crash_is_judged_by_its_age(folder):
    folder.mkdir(parents=True)
    path = folder / "claim.1.json"
    path.write_text("{")
    assert take(folder) is None
    os.utime(path, (time.time() - 2 * claim.SILENCE,) * 2)
    assert take(folder) == 2


def test_the_heartbeat_renews_the_claim_while_the_block_runs(folder, monkeypatch):
    monkeypatch.setattr(claim, "BEAT", 0.01)
    take(folder)
    path = folder / "claim.1.json"
    os.utime(path, (0, 0))
    with heartbeat(folder, 1):
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert path.stat().st_mtime > 0
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
