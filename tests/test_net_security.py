"""Who may do what: binds, tokens, TLS, shutdown."""

from __future__ import annotations

import asyncio
import hmac
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from net_plugins import PLUGINS
from quiet import QuietRigger
from remote import TIMEOUT, Wire, port_of, served, server_config

from rigger_mp import AsyncRiggerClient, RiggerClient
from rigger_mp.errors import AuthenticationError, ConfigError, ConnectionLostError
from rigger_mp.net.security import Security, check_bind, client_context, is_loopback_address

TOKEN = "correct horse battery staple"
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificates, is not installed")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RIGGER_MP_TOKEN", TOKEN)
    return TOKEN


def openssl(folder: Path, *arguments: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server.pem and client.pem, each with its key, signed by it."""
    folder = tmp_path_factory.mktemp("certificates")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "names",
        )  # fmt: skip
    return folder


def tls_keys(folder: Path) -> dict[str, Any]:
    return {"server_tls_cert": str(folder / "server.pem"), "server_tls_key": str(folder / "server.key")}


# -- what is bound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_other_addresses_need_tls_and_a_token(address: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_bind(address, Security())
    for word in ("server_tls_cert", "server_token_file", "RIGGER_MP_TOKEN", "server_insecure"):
        assert word in str(raised.value)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ConfigError, match="server_token_file"):
        check_bind(address, Security(tls=tls))
    with pytest.raises(ConfigError, match="server_tls_cert"):
        check_bind(address, Security(token=TOKEN))
    assert check_bind(address, Security(token=TOKEN, tls=tls)) == ""
    assert check_bind(address, Security(insecure=True)).startswith("INSECURE")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(address: str) -> None:
    assert is_loopback_address(address)
    assert check_bind(address, Security()) == ""


def test_an_engine_refuses_to_start_unprotected_and_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError, match="server_insecure"), served(server_address="0.0.0.0"):
        pass


def test_insecure_is_said_loudly() -> None:
    with served(server_address="0.0.0.0", server_insecure=True) as rigger:
        assert any(message.startswith("INSECURE") for message in rigger.messages)
        with RiggerClient("127.0.0.1", port_of(rigger)) as client:
            assert client.ready


# -- tokens ---------------------------------------------------------------------------------------------------


def test_where_tokens_come_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert Security.from_config({"server_token_file": str(file)}, {}).token == TOKEN
    assert Security.from_config({}, {"RIGGER_MP_TOKEN": TOKEN}).token == TOKEN
    assert Security.from_config({"server_token_env": "MINE"}, {"MINE": TOKEN}).token == TOKEN
    assert Security.from_config({}, {}).token == ""
    for config, environment, word in (
        ({"server_token_env": "MINE"}, {"RIGGER_MP_TOKEN": TOKEN}, "MINE"),
        ({"server_token_file": str(tmp_path / "none")}, {}, "cannot be read"),
        ({}, {"RIGGER_MP_TOKEN": "short"}, "at least 16"),
    ):
        with pytest.raises(ConfigError, match=word):
            Security.from_config(config, environment)
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        Security.from_config({"server_token_file": str(file)}, {})


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    original = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    security = Security(token=TOKEN)
    assert security.accepts(TOKEN)
    for wrong in ("", "c", TOKEN[:-1], TOKEN + "!", "\ud800"):
        assert not security.accepts(wrong)
    assert {len(part) for pair in compared for part in pair} == {32}
    assert len(compared) == 6
    assert not Security().accepts("")


def test_before_authentication_little_is_answered(token: str) -> None:
    with served() as rigger, Wire(port_of(rigger)) as wire:
        assert wire.ask(event_name="hello")["authenticate"] is True
        assert wire.ask(event_name="ping") == {"message": "PONG"}
        for line in (
            {"hook_name": "sum", "data": {"a": 1, "b": 2}},
            {"event_name": "status"},
            {"event_name": "task_check", "tid": "1"},
            {"event_name": "task_delete", "tid": "1"},
            {"event_name": "shutdown"},
        ):
            assert wire.ask(**line)["error"]["type"] == "AuthenticationError"
        assert wire.ask(hook_name="x" * 5000)["error"]["type"] == "LimitError"
        assert wire.ask(event_name="auth", token=token, id=1) == {"id": 1, "message": "OK"}
        assert wire.ask(hook_name="sum", data={"a": 1, "b": 2}, results=["sum"])["output"] == {"sum": 3}
        assert rigger.stats()["events"]["accepted"] == 1


def test_long_lines_may_follow_the_token_at_once(token: str) -> None:
    with served() as rigger, Wire(port_of(rigger)) as wire:
        wire.say(event_name="auth", token=token)
        wire.say(hook_name="sum", data={"a": "x" * 200_000, "b": "y"}, wait_for_task=True)
        assert [wire.hear()["message"] for _ in range(2)] == ["OK", "OK"]


def test_a_wrong_token_is_refused_and_the_connection_closed(token: str) -> None:
    with served() as rigger:
        with Wire(port_of(rigger)) as wire:
            assert wire.ask(event_name="auth", token=token[:-1])["error"]["type"] == "AuthenticationError"
            assert wire.is_ended()
        for wrong in (None, "wrong"):
            with (
                RiggerClient("127.0.0.1", port_of(rigger), token=wrong, retry_for=30) as client,
                pytest.raises(AuthenticationError),
            ):
                client.fire_hook("sum", a=1, b=2)
        with RiggerClient("127.0.0.1", port_of(rigger), token=token) as client:
            assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}


@pytest.mark.parametrize("said", [b"", b'{"event_name": "ping"}\n', b'{"event_name": "au'])
def test_who_does_not_authenticate_in_time_is_closed(token: str, said: bytes) -> None:
    with served(server_auth_timeout=0.3) as rigger, Wire(port_of(rigger)) as wire:
        start = time.monotonic()
        wire.send(said)
        while (reply := wire.hear())["message"] == "PONG":
            pass
        assert "server_auth_timeout" in reply["error"]["message"]
        assert wire.is_ended()
        assert time.monotonic() - start < 10


def test_the_default_time_to_authenticate_is_two_seconds(token: str) -> None:
    with served() as rigger, Wire(port_of(rigger)) as wire:
        assert wire.ask(event_name="hello")["limits"]["auth_timeout"] == 2.0


# -- TLS ------------------------------------------------------------------------------------------------------


@needs_openssl
def test_tls_and_token_together_may_be_bound_anywhere(certificates: Path, token: str) -> None:
    with served(server_address="0.0.0.0", **tls_keys(certificates)) as rigger:
        trusting = client_context(certificates / "ca.pem")
        with RiggerClient("localhost", port_of(rigger), token=token, tls=trusting) as client:
            assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}
            futures = [client.submit("large", grab_result=["text"], size=100_000) for _ in range(50)]
            assert all(len(future.result(20)["text"]) == 100_000 for future in futures)

        async def main() -> Any:
            async with AsyncRiggerClient("127.0.0.1", port_of(rigger), token=token, tls=trusting) as client:
                return await client.fire_hook("sum", grab_result=["sum"], a=1, b=2)

        assert asyncio.run(main()) == {"sum": 3}
        with (
            RiggerClient("localhost", port_of(rigger), token=token, tls=client_context(), retry_for=30) as client,
            pytest.raises(AuthenticationError, match="not trusted"),
        ):
            client.fire_hook("sum", a=1, b=2)


@needs_openssl
def test_tls_is_at_least_1_2(certificates: Path) -> None:
    context = Security.from_config(tls_keys(certificates), {}).tls
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(certificates / "ca.pem").minimum_version == ssl.TLSVersion.TLSv1_2


@needs_openssl
def test_client_certificates_may_be_asked_for(certificates: Path) -> None:
    with served(**tls_keys(certificates), server_tls_client_ca=str(certificates / "ca.pem")) as rigger:
        known = client_context(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
        with RiggerClient("127.0.0.1", port_of(rigger), tls=known) as client:
            assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}
        unknown = client_context(certificates / "ca.pem")
        with (
            RiggerClient("127.0.0.1", port_of(rigger), tls=unknown, retry_for=0) as client,
            pytest.raises(ConnectionLostError),
        ):
            client.fire_hook("sum", a=1, b=2)


@needs_openssl
def test_plain_lines_and_silence_on_a_tls_port_are_closed_in_time(certificates: Path) -> None:
    with served(**tls_keys(certificates), server_auth_timeout=0.5) as rigger:
        for said in (b'{"event_name": "ping"}\n', b""):
            with socket.create_connection(("127.0.0.1", port_of(rigger)), TIMEOUT) as plain:
                plain.sendall(said)
                start = time.monotonic()
                try:
                    while plain.recv(1000):
                        pass
                except ConnectionError:
                    pass
                assert time.monotonic() - start < 10
        with RiggerClient("127.0.0.1", port_of(rigger), tls=client_context(certificates / "ca.pem")) as client:
            assert client.ready


@needs_openssl
def test_a_tls_client_on_a_plain_port_gets_an_error(certificates: Path) -> None:
    with (
        served() as rigger,
        RiggerClient(
            "127.0.0.1", port_of(rigger), tls=client_context(certificates / "ca.pem"), retry_for=0
        ) as client,
        pytest.raises(ConnectionLostError),
    ):
        client.fire_hook("sum", a=1, b=2)


def test_tls_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    for config, word in (
        ({"server_tls_cert": str(tmp_path / "none.pem")}, "none.pem"),
        ({"server_tls_cert": str(tmp_path / "junk.pem")}, "junk.pem"),
        ({"server_tls_key": "key.pem"}, "server_tls_cert"),
    ):
        with pytest.raises(ConfigError, match=word):
            Security.from_config(config, {})


# -- shutdown -------------------------------------------------------------------------------------------------


def own_address() -> str | None:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                return str(address.address)
    return None


@pytest.mark.skipif(own_address() is None, reason="this machine has no address but loopback")
def test_shutdown_from_elsewhere_needs_a_token() -> None:
    rigger = QuietRigger(server_config(server_address="0.0.0.0", server_insecure=True), plugins=PLUGINS)
    with rigger:
        with RiggerClient(own_address() or "", port_of(rigger)) as client:
            assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}
            with pytest.raises(AuthenticationError, match="shutdown"):
                client.terminate()
            assert client.ready
        with RiggerClient("127.0.0.1", port_of(rigger), retry_for=0) as client:
            client.terminate()


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = f"cos\nsystem\n(S'touch {proof}'\ntR.".encode()
    with served() as rigger, Wire(port_of(rigger)) as wire:
        for line in evil.splitlines():
            assert wire.ask_raw(line)["error"]["type"] == "ProtocolError"
        data = {"a": evil.decode(), "b": ""}
        assert wire.ask(hook_name="sum", data=data, results=["sum"])["output"] == {"sum": evil.decode()}
    assert not proof.exists()
