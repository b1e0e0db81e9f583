"""What only the user's process can add to the statistics: CPU and memory of every process."""

from __future__ import annotations

import os
from typing import Any

import psutil


def complete_stats(stats: dict[str, Any], pids: dict[str, int], restarts: int) -> dict[str, Any]:
    """Return the dispatcher's statistics with every process measured.

    Args:
        stats: what the dispatcher answered.
        pids: the process ids of dispatcher and Manager.
        restarts: how often the dispatcher was replaced.
    """
    rows = [
        {"role": "main", "name": "main", "pid": os.getpid()},
        {"role": "dispatcher", "name": "dispatcher", "pid": pids["dispatcher"], "restarts": restarts},
        {"role": "manager", "name": "manager", "pid": pids["manager"]},
        *stats["processes"],
    ]
    return {**stats, "processes": [_measured(row) for row in rows]}


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    complete = {
        "jobs": 0, "busy_seconds": 0.0, "restarts": 0, "alive": False, "cpu_seconds": 0.0, "rss_bytes": 0, **row,
    }  # fmt: skip
    try:
        process = psutil.Process(row["pid"]) if row["pid"] else None
        if process is not None:
            times = process.cpu_times()
            complete["cpu_seconds"] = times.user + times.system
            complete["rss_bytes"] = process.memory_info().rss
            complete["alive"] = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        pass  # it ended meanwhile
    return complete
