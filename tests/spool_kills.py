"""Killing a program that uses a spool, with all of its processes at once, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
from waiting import wait_for

from rigger_mp.encoding import load_names, load_part
from rigger_mp.engine.job_marks import STARTED
from rigger_mp.engine.kept_jobs import Payload
from rigger_mp.engine.spool_file import companion, connect, identity_of, read_marks

DRIVER = Path(__file__).parent / "spool_driver.py"


class Campaign:
    """Runs the driver, kills it, and notes which jobs were running by the marks, and which by the ledger."""

    def __init__(self, directory: Path, seconds: float, max_retries: int, seed: int) -> None:
        self.directory = directory
        self.spool = directory / "jobs.spool"
        self.random = random.Random(seed)
        self.seconds = seconds
        self.archive = {"spool": str(self.spool), "max_retries": max_retries}
        self.marked: list[int] = []
        self.open: list[int] = []
        self.kills = 0

    def run(self, first: int, last: int, kill_after: float | None) -> bool:
        """Hand jobs over; kill everything after some seconds, or let it finish. Returns whether it finished."""
        options = {"directory": str(self.directory), "numbers": (first, last), "seconds": self.seconds}
        command = [sys.executable, str(DRIVER), json.dumps({**options, "archive": self.archive})]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        if kill_after is not None:
            threading.Event().wait(kill_after)
            self._kill(driver.pid)
        rest = driver.stdout.read()
        driver.stdout.close()
        finished = driver.wait() == 0 and rest == "done\n"
        if not finished:
            self.kills += 1
            self._look()
        return finished

    def _kill(self, pid: int) -> None:
        main = psutil.Process(pid)
        everything = [main, *main.children(recursive=True)]
        self.random.shuffle(everything)
        for process in everything:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A zombie is dead, and nobody here may reap it.
        wait_for(lambda: not any(map(_lives, everything)))

    def _look(self) -> None:
        with closing(connect(self.spool, read_only=True)) as database:
            jobs = database.execute("SELECT id, attempts, payload FROM jobs").fetchall()
            dead = database.execute("SELECT attempts, payload FROM dead").fetchall()
            marks = read_marks(companion(self.spool), identity_of(database))
        started = {(mark.key, mark.attempt) for mark in marks if mark.state == STARTED}
        # The dispatcher may have outlived the archive for long enough to write its end down.
        interrupted = Counter({_number(payload): n + ((key, n) in started) for key, n, payload in jobs})
        interrupted += Counter({_number(payload): n for n, payload in dead})
        self.marked += (interrupted - Counter(self.marked)).elements()
        starts, ends = self.ledger("start"), self.ledger("end")
        earlier = Counter(self.open)
        self.open += [number for number in starts if starts[number] - ends[number] > earlier[number]]

    def ledger(self, word: str) -> Counter[int]:
        path = self.directory / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(int(line.split()[1]) for line in lines if line.startswith(word))

    def accepted(self) -> set[int]:
        path = self.directory / "accepted"
        return {int(line) for line in path.read_text().splitlines()} if path.exists() else set()

    def dead(self) -> list[int]:
        with closing(sqlite3.connect(self.spool)) as database:
            return [_number(payload) for (payload,) in database.execute("SELECT payload FROM dead")]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _number(payload: bytes) -> int:
    number: Any = load_part(load_names(Payload.load(payload).arguments)["number"])
    return int(number)


def kill_until_done(campaign: Campaign, jobs: int, kills: int, longest: float) -> None:
    """Hand over so many jobs, a part in each of several starts, all but the last of which are killed."""
    part = -(-jobs // (kills + 1))
    for number in range(kills):
        campaign.run(number * part, (number + 1) * part, campaign.random.uniform(0.0, longest))
    while not campaign.run(kills * part, jobs, None):
        raise AssertionError("a run that nobody killed did not finish")


def check_promise(campaign: Campaign, max_retries: int) -> None:
    """Each accepted job ran; twice only those that were running when killed, as often as they may."""
    starts, ends = campaign.ledger("start"), campaign.ledger("end")
    marked, open_, dead = Counter(campaign.marked), Counter(campaign.open), campaign.dead()
    assert not open_ - marked, "the ledger knows of a running job that the marks do not know"
    assert sorted(dead) == sorted(number for number, times in marked.items() if times > max_retries)
    assert campaign.accepted() <= starts.keys() | set(dead)
    assert starts.keys() - set(dead) == ends.keys() - set(dead), "a job was not finished"
    for number, count in starts.items():
        assert 1 + min(open_[number], max_retries) <= count <= 1 + min(marked[number], max_retries)
