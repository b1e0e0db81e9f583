"""What the load runs: functions that note each run in the ledger, and misbehave in every way there is."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin

from .kinds import RETRIES, TIME_LIMIT_SECONDS

ANSWER_FACTOR = 7
LEAK = 12 << 20


def note(ledger: str, *fields: object, sync: bool = True) -> None:
    """Append one line to this process's file of the ledger; with ``sync`` it is on the disk when this returns."""
    line = " ".join(map(str, (*fields, f"{time.monotonic():.4f}"))) + "\n"
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
    fd = os.open(f"{ledger}/{os.getpid()}.log", flags, 0o600)  # opened anew: a hook may have closed it
    try:
        os.write(fd, line.encode())
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def update(event: str, function: str) -> dict[str, Any]:
    """Return the update of globals by which a function tells that its run counts."""
    return {"chaos": {function: {"keys": {event: 1}, "order": [event]}}}


def answer_of(event: str) -> int:
    """Return what an event that succeeds answers."""
    return int(event) * ANSWER_FACTOR


def digest_of(value: bytes) -> str:
    """Return a digest of a large value."""
    return hashlib.blake2b(value, digest_size=8).hexdigest()


class Unpicklable:
    """Cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Poison:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return int, ("poison",)


class StubbornError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(first)
        self.second = second


class Ledgered(RiggerBasePlugin):
    """Binds the hooks that its subclass names."""

    hooks: tuple[str, ...] = ()
    concurrent = False

    def plugin_initialize(self) -> None:
        self.ledger = self.data["ledger"]
        for hook in self.hooks:
            self.register_plugin_hook(hook, concurrent=self.concurrent)

    def ran(self, event: str, function: str) -> None:
        note(self.ledger, "run", event, function)

    def done(self, event: str, function: str) -> Any:
        return {"answer": answer_of(event)}, update(event, function)

    def run(self, event: str, function: str) -> Any:
        self.ran(event, function)
        return self.done(event, function)


class Ordered(Ledgered):
    """Stateful, so its hooks are ordered: each sees what the one before it left in the globals."""

    hooks = ("count", "volley")

    def volley(self, event: str) -> Any:
        # Many of them run as one job if they are quick, and no kill takes a line that has been written.
        note(self.ledger, "run", event, "volley", sync=False)
        return self.done(event, "volley")

    def count(self, event: str, total: int) -> Any:
        self.ran(event, "count")
        return {"answer": answer_of(event), "total": total + 1}, {"total": total + 1, **update(event, "count")}


class Anywhere(Ledgered):
    """Stateless, and ordered by the configuration: a chain of such events may run on any worker."""

    stateless = True
    hooks = ("count_anywhere",)

    def count_anywhere(self, event: str, total: int) -> Any:
        self.ran(event, "count_anywhere")
        updates = {"total": total + 1, **update(event, "count_anywhere")}
        return {"answer": answer_of(event), "total": total + 1}, updates


class Keeper(Ledgered):
    """Stateful and concurrent: it must see events in the order fired."""

    hooks = ("keep",)
    concurrent = True

    def keep(self, event: str) -> Any:
        return self.run(event, "keep")


class Crowd(Ledgered):
    """Stateless and well behaved."""

    stateless = True
    hooks = ("plain", "slow", "spin", "swap", "peek", "large", "family", "child", "forgotten", "filed")

    def plugin_initialize(self) -> None:
        super().plugin_initialize()
        self.register_plugin_hook("filed_only", bg=True)

    def plain(self, event: str) -> Any:
        return self.run(event, "plain")

    def forgotten(self, event: str) -> Any:
        return self.run(event, "forgotten")

    def filed(self, event: str) -> Any:
        return self.run(event, "filed")

    def filed_only(self, event: str, seconds: float) -> Any:
        self.ran(event, "filed_only")
        time.sleep(seconds)
        return self.done(event, "filed_only")

    def slow(self, event: str, seconds: float) -> Any:
        self.ran(event, "slow")
        time.sleep(seconds)
        return self.done(event, "slow")

    def spin(self, event: str, seconds: float) -> Any:
        self.ran(event, "spin")
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return self.done(event, "spin")

    def swap(self, event: str) -> Any:
        local, updates = self.run(event, "swap")
        return local, {"left": event, "right": {"deep": event}, **updates}

    def peek(self, event: str, left: str, right: Any) -> Any:
        self.ran(event, "peek")
        if left != right["deep"]:
            raise AssertionError(f"torn: left is {left}, right is {right}")
        return self.done(event, "peek")

    def large(self, event: str, value: bytes) -> Any:
        local, updates = self.run(event, "large")
        return {**local, "digest": digest_of(value), "echo": value[::-1]}, updates

    def family(self, event: str, children: int) -> Any:
        self.ran(event, "family")
        for number in range(children):
            child = f"{event}.{number}"
            self.fire_hook("child", event=child, grandchildren=number % 2)
            note(self.ledger, "fired", child)
        return self.done(event, "family")

    def child(self, event: str, grandchildren: int) -> Any:
        self.ran(event, "child")
        for number in range(grandchildren):
            child = f"{event}.{number}"
            self.fire_hook("child", event=child, grandchildren=0)
            note(self.ledger, "fired", child)
        return None, update(event, "child")


class Clerk(Ledgered):
    """Runs in the archive: what is filed there must not be lost silently."""

    def plugin_initialize(self) -> None:
        super().plugin_initialize()
        name = self.data["function"]
        self.register_plugin_hook("filed", lambda event: self.file(event, name))

    def file(self, event: str, function: str) -> Any:
        self.ran(event, function)
        return None, update(event, function)


class Stage(Ledgered):
    """One of several functions of the staged hooks; each must see what the callback before it left."""

    stateless = True

    def plugin_initialize(self) -> None:
        super().plugin_initialize()
        for hook in ("staged", "marched"):
            self.register_plugin_hook(hook, self._function(hook), concurrent=True)

    def _function(self, hook: str) -> Callable[..., Any]:
        function = f"{hook}_{self.data['function']}"

        def take_part(event: str, prepared: str) -> Any:
            self.ran(event, function)
            if prepared != event:
                raise AssertionError(f"{event} was given the preparation of {prepared}")
            return {"parts": {function: 1}}, update(event, function)

        return take_part


class OwnStage(Stage):
    """The same, stateful."""

    stateless = False


def make_pre(ledger: str, hook: str) -> Callable[..., Any]:
    """Return a callback for before a staged hook."""

    def prepare(event: str) -> Any:
        note(ledger, "run", event, f"{hook}_pre")
        return {"prepared": event}, {"prepared_by": event, **update(event, f"{hook}_pre")}

    return prepare


def make_post(ledger: str, hook: str) -> Callable[..., Any]:
    """Return a callback for after a staged hook."""

    def conclude(event: str, parts: dict[str, int], prepared_by: str) -> Any:
        note(ledger, "run", event, f"{hook}_post")
        if len(parts) != len(("first", "second", "own")):
            raise AssertionError(f"{event}: only {sorted(parts)} of its functions count")
        if prepared_by != event:
            raise AssertionError(f"{event} sees the globals of {prepared_by}")
        return {"answer": answer_of(event)}, update(event, f"{hook}_post")

    return conclude


class Rogue(Ledgered):
    """Does what plugins should not."""

    stateless = True
    hooks = (
        "retried", "leave", "vanish", "segfault", "hang", "nearly", "leak", "garbage", "unpicklable",
        "stubborn", "poison", "brood", "twins",
    )  # fmt: skip

    def plugin_initialize(self) -> None:
        super().plugin_initialize()
        self.hoard: list[bytes] = []

    def retried(self, event: str, crashes: int) -> Any:
        self.ran(event, "retried")
        if self._attempt(event) < crashes:
            os._exit(8)
        return self.done(event, "retried")

    def _attempt(self, event: str) -> int:
        for attempt in range(RETRIES + 1):
            try:
                Path(f"{self.ledger}/attempt-{event}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return attempt
        raise AssertionError(f"{event} is run more often than {RETRIES} times again")

    def leave(self, event: str) -> None:
        self.ran(event, "leave")
        sys.exit(3)

    def vanish(self, event: str) -> None:
        self.ran(event, "vanish")
        os._exit(7)

    def segfault(self, event: str) -> None:
        self.ran(event, "segfault")
        ctypes.string_at(0)

    def hang(self, event: str) -> None:
        self.ran(event, "hang")
        time.sleep(600)

    def nearly(self, event: str, margin: float) -> Any:
        """End about when the time limit is reached: the event after this one must not be blamed."""
        self.ran(event, "nearly")
        time.sleep(max(0.0, TIME_LIMIT_SECONDS + margin))
        return self.done(event, "nearly")

    def leak(self, event: str) -> Any:
        self.hoard.append(b"x" * LEAK)
        return self.run(event, "leak")

    def garbage(self, event: str, which: int) -> Any:
        self.ran(event, "garbage")
        choices: tuple[Any, ...] = (42, (1, 2, 3), ("ab", None), ({}, {3: 4}), object(), [[], []], "no")
        return choices[which % len(choices)]

    def unpicklable(self, event: str) -> Any:
        self.ran(event, "unpicklable")
        return {"value": Unpicklable()}, update(event, "unpicklable")

    def stubborn(self, event: str) -> None:
        self.ran(event, "stubborn")
        raise StubbornError(event, 2)

    def poison(self, event: str) -> Any:
        """Succeed with a value that nobody can read."""
        local, updates = self.run(event, "poison")
        return {**local, "poison": Poison()}, updates

    def brood(self, event: str) -> Any:
        """Leave a process and a thread running."""
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        child.returncode = 0  # nobody will wait for it
        note(self.ledger, "child", child.pid)
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        return self.run(event, "brood")

    def twins(self, event: str) -> Any:
        """Return in two processes."""
        self.ran(event, "twins")
        os.fork()
        return self.done(event, "twins")


CLASSES: dict[str, type[RiggerBasePlugin]] = {
    "ordered": Ordered,
    "anywhere": Anywhere,
    "keeper": Keeper,
    "crowd": Crowd,
    "clerk": Clerk,
    "stage": Stage,
    "own_stage": OwnStage,
    "rogue": Rogue,
}


def instances(ledger: str) -> dict[str, dict[str, Any]]:
    """Return the configuration of all instances."""
    entries: dict[str, dict[str, Any]] = {
        name: {"plugin": name} for name in ("ordered", "anywhere", "keeper", "crowd", "own_stage", "rogue")
    }
    entries["own_stage"]["function"] = "own"
    for function in ("first", "second"):
        entries[function] = {"plugin": "stage", "function": function}
    for function in ("filed_bg", "filed_too"):
        entries[function] = {"plugin": "clerk", "function": function, "background": True}
    return {ident: {**entry, "ledger": ledger} for ident, entry in entries.items()}
