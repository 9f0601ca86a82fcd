import errno
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


@pytest.fixture
def unwatched(monkeypatch):
    """Judges a silent claim at the first look."""
    monkeypatch.setattr(claim, "WATCH", 0.0)


def claimed_by(folder, worker, *, silent=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"claim.{latest(folder) + 1}.json"
    path.write_text(json.dumps(asdict(worker)))
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


def test_a_claim_that_an_older_version_gave_back_is_free(folder):
    claimed_by(folder, this_worker())
    (folder / "claim.1.json").write_text(json.dumps({"released": True, **asdict(this_worker())}))
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


AWAY = [{"host": "another"}, {"space": "another"}]


@pytest.mark.parametrize("away", AWAY)
def test_a_worker_that_cannot_be_seen_is_judged_by_its_heartbeat(folder, away, unwatched):
    claimed_by(folder, replace(this_worker(), **away), silent=claim.SILENCE / 2)
    assert is_live(folder)
    assert take(folder) is None
    claimed_by(folder, replace(this_worker(), **away), silent=claim.SILENCE * 2)
    assert not is_live(folder)
    assert take(folder) == 3


@pytest.mark.parametrize("away", AWAY)
def test_a_clock_set_back_by_hours_makes_no_dead_worker_live_for_ever(folder, away, unwatched):
    claimed_by(folder, replace(this_worker(), **away), silent=-7200)
    assert not is_live(folder)
    assert take(folder) == 2


@pytest.mark.parametrize("silent", [7200, -7200])
def test_a_live_worker_of_this_machine_is_seen_whatever_the_clocks_say(folder, silent, unwatched):
    claimed_by(folder, this_worker(), silent=silent)
    assert is_live(folder)
    assert take(folder) is None


@pytest.mark.parametrize("shift", [7200, -7200])
def test_a_live_worker_elsewhere_that_renews_its_claim_is_left_alone_whatever_the_clocks_say(
    folder, shift, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr(claim.time, "monotonic", lambda: now[0])
    claimed_by(folder, replace(this_worker(), host="another"))
    path = folder / "claim.1.json"
    for beat in range(20):
        os.utime(path, (time.time() + shift + beat,) * 2)
        assert take(folder) is None
        now[0] += claim.BEAT
    for _ in range(3):  # it beats no more
        assert take(folder) is None
        now[0] += claim.BEAT
    assert take(folder) == 2


def test_a_claim_torn_by_a_crash_is_judged_by_its_age(folder, unwatched):
    folder.mkdir(parents=True)
    path = folder / "claim.1.json"
    for torn in ("", "{", "[]", "{}"):
        path.write_text(torn)
        assert take(folder) is None
    os.utime(path, (time.time() - 2 * claim.SILENCE,) * 2)
    assert take(folder) == 2


def test_a_claim_is_made_whole_and_leaves_nothing_beside_it(folder):
    take(folder)
    assert [path.name for path in folder.iterdir()] == ["claim.1.json"]
    assert json.loads((folder / "claim.1.json").read_text())["pid"] == os.getpid()


def test_a_file_system_without_links_claims_all_the_same(folder, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert take(folder) == 1
    assert take(folder) is None
    assert [path.name for path in folder.iterdir()] == ["claim.1.json"]


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


def test_two_processes_of_one_thread_id_write_no_claim_over_each_others(tmp_path, monkeypatch):
    made, link = [], os.link
    monkeypatch.setattr(os, "link", lambda source, target: (made.append(source.name), link(source, target)))
    take(tmp_path / "one")
    take(tmp_path / "other")
    assert len(set(made)) == 2


def test_a_live_worker_of_another_machine_with_this_ones_name_is_judged_by_its_heartbeat(folder, unwatched):
    theirs = replace(this_worker(), machine="another", boot="another")
    claimed_by(folder, theirs)
    assert is_live(folder)
    assert take(folder) is None
    claimed_by(folder, theirs, silent=claim.SILENCE * 2)
    assert take(folder) == 3


def test_a_claim_of_a_version_that_named_no_machine_is_read_as_before(folder):
    for changes, live in (({}, True), ({"boot": "another"}, False), ({"start": "1"}, False)):
        claimed_by(folder, replace(this_worker(), **changes))
        path = folder / f"claim.{latest(folder)}.json"
        values = json.loads(path.read_text())
        values.pop("machine", None)
        path.write_text(json.dumps(values))
        assert is_live(folder) is live


def test_a_live_worker_whose_start_is_hidden_is_judged_by_its_heartbeat(folder, monkeypatch, unwatched):
    monkeypatch.setattr(claim, "_start", lambda pid: "")
    claimed_by(folder, replace(this_worker(), pid=1, start="1"))  # another user's
    assert is_live(folder)
    os.utime(folder / "claim.1.json", (time.time() - claim.SILENCE * 2,) * 2)
    assert take(folder) == 2
