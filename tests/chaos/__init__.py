"""The chaos suite: random load on one engine while its processes are killed, checked against a ledger.

::

    Load ──events──▶ Rigger ──▶ hooks ──one line for each run──▶ ledger files
     │                 ▲                                              │
     │ outcomes     Killer: SIGKILL, SIGSTOP of random processes      │
     ▼                 │ kills                                        ▼
    History ◀──────────┴──────────────────────────────────────────────┘
     └──▶ ledger.check ──▶ violations

``python -m tests.chaos --help`` tells how to run it.
"""
