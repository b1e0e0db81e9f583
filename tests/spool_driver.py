"""A program that fires background hooks with a spool, until everything in it is done: ``spool_driver.py OPTIONS``.

The options are a JSON object: ``directory``, ``numbers`` (first and last of the jobs to hand over), ``seconds`` of
each, and ``archive``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quiet import QuietRigger
from spool_plugins import Ledger, note


def main() -> None:
    options = json.loads(sys.argv[1])
    directory = Path(options["directory"])
    ledger, accepted = str(directory / "ledger"), str(directory / "accepted")
    instances = {"ledger": {"plugin": "ledger", "background": True}}
    config = {"workers": 1, "plugins": instances, "archive": options["archive"]}
    with QuietRigger(config, plugins={"ledger": Ledger}) as rigger:
        print("ready", flush=True)
        for number in range(*options["numbers"]):
            future = rigger.submit("work", ledger=ledger, number=number, seconds=options["seconds"])
            future.add_done_callback(lambda ended, number=number: ended.exception() or note(accepted, number))
        rigger.drain()
        print("done", flush=True)


if __name__ == "__main__":
    main()
