"""Looks for plugin classes in a fresh process, which knows no earlier version of any module.

::

    Rigger.reload ──configuration, registered classes──▶ finder: find_instances, imports anew
                  ◀─────────── Found ───────────────────
"""

from __future__ import annotations

import dataclasses
import pickle
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rigger_mp.discovery import Found, find_instances
from rigger_mp.encoding import dump_value
from rigger_mp.engine.launch import launch, program_arguments
from rigger_mp.engine.process import kill_tree
from rigger_mp.errors import NotRunningError, PluginError
from rigger_mp.fresh_source import import_fresh_sources

CHUNK = 1 << 16


class Finder:
    """The finder process, as the user's process holds it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process: subprocess.Popen[bytes] = launch("finder", {"asker": theirs.fileno()}, "rigger-mp finder")
        theirs.close()
        self._killed = False

    def find(self, config: Mapping[str, Any], registered: Mapping[str, type], base: Path | None) -> Found:
        """Find the plugins of all enabled instances, as :func:`~rigger_mp.discovery.find_instances` does.

        Raises:
            PluginError: a module ended the process while it was imported.
            NotRunningError: it was killed, because the engine stops.
            EncodingError: a registered class, or the configuration, cannot be sent to other processes.
        """
        used = {entry["plugin"] for entry in (config.get("plugins") or {}).values() if entry.get("enabled", True)}
        classes = {name: dump_value(cls) for name, cls in registered.items() if name in used}
        try:
            answer = self._ask(dump_value((dict(config), classes, base, program_arguments())))
        finally:
            self._release()
        if self._killed:
            raise NotRunningError("the engine is being stopped")
        if not answer:
            status = self._process.returncode
            raise PluginError(f"the process that imports the plugins ended with status {status} while it did")
        found: Found = pickle.loads(answer)
        entries = config.get("plugins") or {}
        instances = (spec._replace(data=dict(entries[spec.ident])) for spec in found.instances)
        return dataclasses.replace(found, instances=tuple(instances))

    def _ask(self, question: bytes) -> bytes:
        try:
            self._socket.sendall(question)
            self._socket.shutdown(socket.SHUT_WR)
            answer = _read_all(self._socket)
            self._process.wait()
        except ConnectionError:
            return b""
        return answer

    def kill(self) -> None:
        """End the process, whatever it does, because the engine stops; may be called in any thread."""
        self._killed = True
        self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            kill_tree(self._process.pid)

    def _release(self) -> None:
        self._end()
        self._process.wait()
        self._socket.close()


def finder_main(fd: int) -> None:
    """Run the finder in this process."""
    asker = socket.socket(fileno=fd)
    import_fresh_sources()
    config, classes, base, sys.argv[:] = pickle.loads(_read_all(asker))
    found = find_instances(config, classes, base)
    instances = (spec._replace(data={}) for spec in found.instances)
    asker.sendall(pickle.dumps(dataclasses.replace(found, instances=tuple(instances))))
    asker.close()


def _read_all(source: socket.socket) -> bytes:
    data = bytearray()
    while chunk := source.recv(CHUNK):
        data += chunk
    return bytes(data)
