"""The benchmark: every workload on rigger_mp and on its peers, side by side in one run.

    python -m bench                        cli.py: what to run, what to print
         │ plan (workloads x peers x rounds)
         ▼
    measure.py ──one sample──▶ python -m bench.sample    a fresh interpreter for each sample
         ▲                          │ workloads/X.py     what is done and what proves it
         │ figures + evidence       │ peers/Y.py         how one peer does it
         └──────────────────────────┘ tasks.py, tally.py the functions, and the count of their calls
         │
         ▼
    figures.py (medians, ratios) ─▶ table.py, goals.py, charts.py, readme.py, JSON

Samples are interleaved: one of each peer, then the next round, so that a slow minute of the machine hits all alike.
A sample whose evidence is not what the workload expects gives no figure and no ratio.
"""
