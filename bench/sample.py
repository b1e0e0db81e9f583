"""Take one sample, in a fresh interpreter: ``python -m bench.sample TASK RESULT``, both JSON files.

Started by :mod:`bench.measure`. A fresh interpreter for each sample: no peer inherits another's threads, memory or
start method, and none runs in the background while another is measured.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path


def end_cleanly(*_: object) -> None:
    """Unwind the stack, so that every peer stops its processes."""
    raise SystemExit(1)


def main(task_file: str, result_file: str) -> None:
    """Run one workload with one peer."""
    signal.signal(signal.SIGTERM, end_cleanly)
    from bench.workloads import WORKLOADS

    task = json.loads(Path(task_file).read_text())
    sample = WORKLOADS[task["workload"]].run(task["peer"], task["size"])
    Path(result_file).write_text(json.dumps(asdict(sample)))


if __name__ == "__main__":
    main(*sys.argv[1:])
