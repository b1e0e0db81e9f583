"""One run of the chaos suite: an engine, a load, a killer, and the check of everything afterwards."""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rigger_mp import Rigger, RiggerClient
from rigger_mp.errors import RiggerError

from . import plugins
from .killer import Habits, Killer
from .kinds import RETRIES, TIME_LIMIT_SECONDS
from .ledger import History, Outcome, check, read_ledger, timeline
from .load import Load
from .proxy import CuttingProxy
from .remains import left_behind, look

DRAIN_TIME = 60.0
"""Seconds in which everything must have ended once nothing is killed any more."""
PROGRESS_TIME = 5.0
"""Seconds between two lines of progress."""
ENOUGH_RESTARTS = 100_000
LOST_CONNECTION_TIME = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a run.

    Attributes:
        seconds: how long the load lasts.
        seed: of every decision.
        habits: of the killer.
        progress: called with lines of text.
    """

    seconds: float
    seed: int
    habits: Habits = field(default_factory=Habits)
    progress: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run.

    Attributes:
        summary: lines of text.
        violations: what should not have been.
        folder: where the ledger is, if there are any violations; ``None``: it was removed.
    """

    summary: list[str]
    violations: list[str]
    folder: Path | None


class ChaosRigger(Rigger):
    """Keeps what nobody waited for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.reports: list[Outcome] = []
        self.messages: list[str] = []
        super().__init__(*args, **kwargs)

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        self.reports.append(Outcome(type(exc[1]).__name__, str(exc[1])[:2000], at=time.monotonic()))

    def log_message(self, message: object) -> None:
        self.messages.append(str(message))


def config_of(rng: random.Random, ledger: str) -> dict[str, Any]:
    """Return a random configuration."""
    limited = {"time_limit": TIME_LIMIT_SECONDS}
    return {
        "workers": rng.randint(1, 4),
        "threaded": rng.random() < 0.8,
        "max_tasks_per_child": rng.choice((None, None, 40, 400)),
        "max_memory_per_child": rng.choice((None, 250 << 20)),
        "max_restarts": ENOUGH_RESTARTS,
        "graceful_timeout": DRAIN_TIME,
        "server_enabled": True,
        "server_port": 0,
        "hooks": {
            "hang": limited,
            "nearly": limited,
            "retried": {"max_retries": RETRIES},
            "count_anywhere": {"concurrent": False},
            "marched": {"concurrent": False},
        },
        "plugins": plugins.instances(ledger),
    }


def run(options: Options) -> Verdict:
    """Run the load for a while, then check everything; Ctrl-C ends the load early."""
    folder = Path(tempfile.mkdtemp(prefix="rigger-mp-chaos-"))
    try:
        history, violations, chaos = _run_in(folder, options)
    except BaseException:
        shutil.rmtree(folder)
        raise
    if violations:
        (folder / "violations").write_text("\n".join(violations))
        (folder / "timeline").write_text("\n".join([*timeline(history), *chaos.messages]))
    else:
        shutil.rmtree(folder)
    return Verdict(chaos.summary(violations), violations, folder if violations else None)


def _run_in(folder: Path, options: Options) -> tuple[History, list[str], Chaos]:
    ledger, temporary = folder / "ledger", folder / "tmp"
    ledger.mkdir()
    temporary.mkdir()
    with _surroundings(temporary) as trouble:
        _warm_up()
        before = look(temporary)
        chaos = Chaos(options, str(ledger))
        chaos.run()
        trouble.extend(chaos.trouble)
        trouble.extend(left_behind(before, temporary, chaos.processes(ledger)))
        history = chaos.history
        read_ledger(history, _lines(ledger))
        return history, check(history) + trouble, chaos


@contextmanager
def _surroundings(temporary: Path) -> Iterator[list[str]]:
    """Put temporary files into a directory, leave no core dumps, and note exceptions of threads."""
    trouble: list[str] = []
    old_hook, old_folder = threading.excepthook, os.environ.get("TMPDIR")
    old_limit = resource.getrlimit(resource.RLIMIT_CORE)
    threading.excepthook = lambda args: trouble.append(f"thread {args.thread}: {args.exc_value!r}")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    resource.setrlimit(resource.RLIMIT_CORE, (0, old_limit[1]))
    try:
        yield trouble
    finally:
        threading.excepthook = old_hook
        resource.setrlimit(resource.RLIMIT_CORE, old_limit)
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
        if old_folder is not None:
            os.environ["TMPDIR"] = old_folder


def _warm_up() -> None:
    """Start an engine once: what is imported or opened for good is not left behind by the run."""
    with ChaosRigger({"workers": 1, "server_enabled": True, "server_port": 0}) as rigger:
        assert rigger.server_address is not None
        with RiggerClient("127.0.0.1", rigger.server_address[1]) as client:
            client.fire_hook("nothing", wait_for_task=True)
        rigger.stats()


def _lines(ledger: Path) -> dict[int, list[str]]:
    return {int(path.stem): path.read_text().splitlines() for path in ledger.glob("*.log")}


class Chaos:
    """The engine and everything around it.

    Args:
        options: what is asked.
        ledger: the directory of the ledger.

    Attributes:
        history: what happened.
        trouble: what went wrong outside of it.
    """

    def __init__(self, options: Options, ledger: str) -> None:
        self._options = options
        rng = random.Random(options.seed)
        self._config = config_of(rng, ledger)
        self._ledger = ledger
        self.history = History()
        self.trouble: list[str] = []
        self._rigger = ChaosRigger(self._config, plugins=plugins.CLASSES)
        self._load_rng, self._kill_rng, self._cut_rng = (random.Random(rng.getrandbits(64)) for _ in range(3))
        self._load: Load | None = None
        self._killer: Killer | None = None
        self._cuts = 0
        self._seconds = 0.0

    def run(self) -> None:
        """Start the engine, let load and killer loose on it, and wait for the end of everything."""
        with _watchdog(self._options.seconds):
            try:
                self._rigger.start()
                self._prepare()
                self._let_loose()
            finally:
                self._rigger.stop()
        self.history.reports = self._rigger.reports
        self._read_final_globals()

    def _prepare(self) -> None:
        self._rigger.global_data = {"total": 0, "left": "0", "right": {"deep": "0"}}
        for hook in ("staged", "marched"):
            pre, post = plugins.make_pre(self._ledger, hook), plugins.make_post(self._ledger, hook)
            self._rigger.register_hook_callback(hook, "pre", pre, concurrent=True)
            self._rigger.register_hook_callback(hook, "post", post, concurrent=True)

    def _let_loose(self) -> None:
        assert self._rigger.server_address is not None
        proxy = CuttingProxy(self._rigger.server_address[1], self._cut_rng)
        client = RiggerClient("127.0.0.1", proxy.port, retry_for=LOST_CONNECTION_TIME)
        load = self._load = Load(self._rigger, client, self.history, self._load_rng)
        killer = self._killer = Killer(self._rigger, self.history.kills, self._kill_rng, self._options.habits)
        killer.start()
        began = time.monotonic()
        with _ended_by_interrupt(load):
            load.run(began + self._options.seconds, self._ticker(began))
        if load.interrupted:
            self._options.progress("interrupted: checking what has been done so far")
        killer.stop()
        self._seconds = time.monotonic() - began
        load.finish()
        self.trouble += load.trouble
        proxy.steady = True
        client.close()
        proxy.close()
        self._cuts = proxy.cuts
        self._drain()

    def _drain(self) -> None:
        try:
            self._rigger.drain(DRAIN_TIME)
            events = self._rigger.stats()["events"]
            if events["pending"]:
                self.trouble.append(f"after drain() {events['pending']} events are pending")
            self.history.globals = self._rigger.global_data.copy()
        except (RiggerError, TimeoutError) as error:
            self.trouble.append(f"after the load: {type(error).__name__}: {error}")

    def _read_final_globals(self) -> None:
        if self._rigger.global_data.copy() != self.history.globals:
            self.trouble.append("the globals after the engine's end are others than just before")

    def _ticker(self, began: float) -> Callable[[], None]:
        next_line = [began + PROGRESS_TIME]

        def tick() -> None:
            if time.monotonic() >= next_line[0]:
                next_line[0] += PROGRESS_TIME
                self._options.progress(f"{time.monotonic() - began:6.0f} s  {self._counts()}")

        return tick

    def _counts(self) -> str:
        assert self._load is not None
        assert self._killer is not None
        ended = ", ".join(f"{count} {name}" for name, count in self._load.ended.most_common())
        return f"{self._load.fired} events fired ({ended}), {len(self.history.kills)} signals sent"

    def processes(self, ledger: Path) -> set[psutil.Process]:
        """Return processes that must be gone: those that were hit, and those that hooks started."""
        found = set(self._killer.seen) if self._killer is not None else set()
        for lines in _lines(ledger).values():
            for line in lines:
                if line.startswith("child "):
                    with suppress(psutil.Error):
                        process = psutil.Process(int(line.split()[1]))
                        if "import time; time.sleep(600)" in process.cmdline():
                            found.add(process)
        return found

    @property
    def messages(self) -> list[str]:
        """What the engine has logged."""
        return self._rigger.messages

    def summary(self, violations: list[str]) -> list[str]:
        """Return what happened, as lines of text."""
        by_kind: dict[str, Counter[str]] = {}
        for event in self.history.events.values():
            outcomes = self.history.outcomes.get(event.number, [Outcome("not watched")])
            by_kind.setdefault(event.kind, Counter()).update(outcome.name for outcome in outcomes)
        total: Counter[str] = sum(by_kind.values(), Counter())
        lines = [f"events by kind ({self._seconds:.0f} s, seed {self._options.seed}):"]
        lines += [f"  {kind:<15} {_listed(counts)}" for kind, counts in sorted(by_kind.items())]
        lines.append(f"events: {sum(total.values())}: {_listed(total)}")
        reports = Counter(report.name for report in self.history.reports)
        lines.append(f"losses of what nobody waited for: {_listed(reports)}")
        lines.append(f"runs in the ledger: {len(self.history.runs)}, by hooks fired: {len(self.history.fired)}")
        signals = self._killer.counts() if self._killer is not None else Counter()
        lines.append(f"signals: {_listed(signals)}; connections cut: {self._cuts}")
        keys = ("workers", "threaded", "max_tasks_per_child", "max_memory_per_child")
        lines.append("configuration: " + ", ".join(f"{key} {self._config[key]}" for key in keys))
        lines.append(f"verdict: {f'{len(violations)} violations' if violations else 'no violation'}")
        return lines


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


@contextmanager
def _ended_by_interrupt(load: Load) -> Iterator[None]:
    """Have the first Ctrl-C end the load between two events, and a second one everything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: object) -> None:
        load.interrupted = True
        signal.signal(signum, previous)

    previous = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _watchdog(seconds: float) -> Iterator[None]:
    """Print where every thread is if a run hangs."""
    faulthandler.dump_traceback_later(seconds + 4 * DRAIN_TIME, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
