"""Entry of the launched processes: a fresh interpreter becomes the dispatcher, the Manager or the finder."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any

from rigger_mp.engine.process import die_with_parent, ignore_signals, set_name


def main(boot: dict[str, Any]) -> None:
    """Run the role that the launching process asked for.

    Args:
        boot: what :func:`rigger_mp.engine.launch.launch` wrote.
    """
    if os.getppid() != boot["parent"]:
        return  # the user's process is gone already
    ignore_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, workers end unseen
    set_name(f"rigger-{boot['role']}")
    if boot["role"] == "dispatcher":
        from rigger_mp.engine.starting import start_first_workers  # noqa: PLC0415 - only what the role needs

        start_first_workers(boot["fds"]["owner"], boot["fds"]["marks"])
        from rigger_mp.engine.dispatcher import dispatcher_main  # noqa: PLC0415 - while the workers start

        _begin_collecting()
        dispatcher_main(boot["parent"], boot["fds"])
    elif boot["role"] == "finder":
        from rigger_mp.engine.finder import finder_main  # noqa: PLC0415 - only what the role needs

        _begin_collecting()
        die_with_parent(boot["parent"])
        finder_main(boot["fds"]["asker"])
    else:
        from rigger_mp.engine.manager import manager_main  # noqa: PLC0415 - only what the role needs

        _begin_collecting()
        manager_main(boot["parent"], boot["fds"])


def _begin_collecting() -> None:
    """Collect garbage from now on, though not among what was imported."""
    gc.freeze()
    gc.enable()
