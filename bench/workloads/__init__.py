"""All workloads, in the order in which they are run and shown."""

from __future__ import annotations

from bench.workload import Workload
from bench.workloads import calls, cpu, events, large, life, remote, steps

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        calls.BLOCKING,
        calls.SUBMIT,
        events.CALLBACKS,
        cpu.CPU_10MS,
        cpu.CPU_1MS,
        cpu.FAN_OUT,
        cpu.MIXED,
        large.LARGE_BYTES,
        large.LARGE_ARRAY,
        events.GROWTH,
        events.MANY_PLUGINS,
        events.MANY_HOOKS,
        life.START,
        life.MEMORY,
        life.ENDURANCE,
        remote.STREAM,
        remote.TRIPS,
        remote.IN_FLIGHT,
        remote.CONNECTIONS,
        steps.BLOCKING,
        steps.SUBMIT,
        steps.STEPS,
    )
}
