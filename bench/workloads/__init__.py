"""All workloads, in the order in which they are run and shown."""

from __future__ import annotations

from bench.workload import Workload
from bench.workloads import calls

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (calls.BLOCKING, calls.SUBMIT)
}
