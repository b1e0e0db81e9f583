"""Ctrl-C, again and again, in the midst of whatever a program asks of its engine: the next thing it asks works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, random, signal, sys, threading, time
from rigger_mp import Rigger, RiggerBasePlugin, RiggerClient

INTERRUPTS = 600


class Echo(RiggerBasePlugin):
    stateless = True

    def plugin_initialize(self):
        self.register_plugin_hook("echo", self.echo)

    def echo(self, value):
        return {"echoed": value}, {"last": value}


def act(rigger, client, number):
    ACT


armed = False


def raise_once(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt


def interrupt(over):
    while not over.is_set():
        time.sleep(random.uniform(0.0002, 0.003))
        os.kill(os.getpid(), signal.SIGINT)


def act_and_be_interrupted(rigger, client):
    global armed
    number = 0
    for _ in range(INTERRUPTS):
        try:
            armed = True
            while True:
                number += 1
                act(rigger, client, number)
        except KeyboardInterrupt:
            pass


config = {"workers": 2, "server_enabled": True, "server_port": 0, "plugins": {"echo": {"plugin": "echo"}}}
with Rigger(config, plugins={"echo": Echo}) as rigger, RiggerClient(*rigger.server_address) as client:
    client.fire_hook("echo", value=0)
    signal.signal(signal.SIGINT, raise_once)
    over = threading.Event()
    thread = threading.Thread(target=interrupt, args=(over,))
    thread.start()
    act_and_be_interrupted(rigger, client)
    over.set()
    thread.join()
    rigger.drain(60)
    print(client.fire_hook("echo", grab_result=True, value=5)["echoed"], rigger.stats()["events"]["pending"])
"""


@pytest.mark.parametrize(
    "act",
    [
        'rigger.fire_hook("echo", wait=False, value=number)',
        'assert rigger.fire_hook("echo", value=number)["echoed"] == number',
        'assert rigger.submit("echo", value=number).result()["echoed"] == number',
        'assert client.fire_hook("echo", grab_result=True, value=number)["echoed"] == number',
        'assert client.submit("echo", grab_result=True, value=number).result()["echoed"] == number',
        'rigger.global_data["own"] = number; assert rigger.global_data["own"] == number',
    ],
)
def test_ctrl_c_again_and_again_leaves_an_engine_that_works(tmp_path: Path, act: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.replace("ACT", act))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=150, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("5 0\n", "", 0)
