"""SIGHUP: certificates are read again; a terminal that is closed ends the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from support import LOOPBACK, SOON, dial, says_back, wait_until
from support.command_line import COMMAND, PATIENCE, Running, Terminal

from rsock import TLS


def write(folder: Path, tls: TLS) -> bytes:
    """Write a certificate and its key; return the certificate in DER."""
    (folder / "cert.pem").write_text(tls.cert_pem)
    (folder / "key.pem").write_text(tls.key_pem)
    return ssl.PEM_cert_to_DER_cert(tls.cert_pem)


def shown(address: tuple[str, int]) -> bytes | None:
    """The certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with dial(address) as raw, context.wrap_socket(raw) as stream:
        return stream.getpeercert(binary_form=True)


def arguments(folder: Path, *more: str) -> tuple[str, ...]:
    files = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    return ("echo", "0", "--log-level", "info", "--log-format", "text", *files, *more)


def said(command: Running, text: str) -> str:
    """The line of the log that has a text; the lines before it are skipped."""
    assert command.process.stderr is not None
    for raw in command.process.stderr:
        line = raw.decode()
        if text in line:
            return line
    raise AssertionError(f"no {text!r}")


def test_a_signal_has_the_certificate_read_again_and_open_connections_go_on(
    tmp_path: Path,
) -> None:
    first = TLS.for_tests()
    before = write(tmp_path, first)
    context = ssl.create_default_context(cadata=first.ca_pem)
    with Running(*arguments(tmp_path)) as command:
        address = command.address()
        assert shown(address) == before
        with (
            dial(address) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as stream,
        ):
            after = write(tmp_path, TLS.for_tests())
            assert shown(address) == before
            command.signal(signal.SIGHUP)
            said(command, "new connections use the certificate that was read now")
            assert shown(address) == after
            stream.sendall(b"still")
            assert stream.recv(5) == b"still"
        command.signal(signal.SIGTERM)
        assert command.end()[0] == 0


@pytest.mark.parametrize("broken", ["", "no key", "missing", "of another"])
def test_a_broken_file_keeps_the_certificate_and_the_log_says_why(
    tmp_path: Path, broken: str
) -> None:
    before = write(tmp_path, TLS.for_tests())
    with Running(*arguments(tmp_path)) as command:
        address = command.address()
        if broken == "missing":
            (tmp_path / "key.pem").unlink()
            reason = "key.pem: No such file or directory"
        elif broken == "of another":
            (tmp_path / "cert.pem").write_text(TLS.for_tests().cert_pem)
            reason = "not the private key of"
        else:
            (tmp_path / "key.pem").write_text(broken)
            reason = "key.pem"
        command.signal(signal.SIGHUP)
        assert reason in said(command, "the certificate stays as it is")
        assert shown(address) == before
        after = write(tmp_path, TLS.for_tests())
        command.signal(signal.SIGHUP)
        said(command, "was read now")
        assert shown(address) == after
        command.signal(signal.SIGTERM)
        assert command.end()[0] == 0


def test_without_tls_a_signal_changes_nothing(tmp_path: Path) -> None:
    with Running("echo", "0") as command:
        address = command.address()
        with dial(address) as peer:
            command.signal(signal.SIGHUP)
            said(command, "nothing has changed")
            assert says_back(peer)
        command.signal(signal.SIGTERM)
        code, out, err = command.end()
    assert (code, err) == (0, "")
    assert "stopped by SIGTERM" in out


def test_processes_that_are_replaced_read_the_certificate_again(tmp_path: Path) -> None:
    before = write(tmp_path, TLS.for_tests())
    with Running(*arguments(tmp_path, "--processes", "1")) as command:
        address = command.address()
        assert shown(address) == before
        after = write(tmp_path, TLS.for_tests())
        command.signal(signal.SIGHUP)
        said(command, "all processes were replaced")
        wait_until(lambda: shown(address) == after, PATIENCE)
        # A broken file leaves the process that serves.
        (tmp_path / "key.pem").write_text("nothing")
        command.signal(signal.SIGHUP)
        said(command, "those before it serve on")
        assert shown(address) == after
        command.signal(signal.SIGTERM)
        assert command.end()[0] == 0


def test_a_child_that_is_sent_the_signal_serves_on(tmp_path: Path) -> None:
    with Running("echo", "0", "--processes", "1") as command:
        address = command.address()
        pid = command.process.pid
        [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with dial(address) as peer:
            assert says_back(peer)
            os.kill(int(child), signal.SIGHUP)
            assert says_back(peer)
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text().split() == [child]
        command.signal(signal.SIGTERM)
        code, _, err = command.end()
    assert (code, err) == (0, "")


def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    process = subprocess.Popen(
        ["nohup", *COMMAND, "echo", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            found = re.match(rb"listening on [\d.]+:(\d+): ", process.stdout.readline())
            assert found is not None
            process.send_signal(signal.SIGHUP)
            with dial((LOOPBACK, int(found[1]))) as peer:
                assert says_back(peer)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE)
            assert (process.returncode, err.replace(b"nohup: ignoring input\n", b"")) == (0, b"")
        finally:
            process.kill()


@pytest.mark.parametrize("processes", [(), ("--processes", "1")])
def test_a_terminal_that_is_closed_ends_the_command(processes: tuple[str, ...]) -> None:
    with Terminal("echo", "0", *processes) as terminal:
        found = terminal.until(r"127\.0\.0\.1:(\d+)")
        address = (LOOPBACK, int(found[1]))
        with dial(address) as peer:
            assert says_back(peer)
        terminal.close()
        terminal.wait()
        with pytest.raises(ConnectionRefusedError):
            dial(address)


def test_a_manager_is_told_of_the_reload(tmp_path: Path) -> None:
    write(tmp_path, TLS.for_tests())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SOON)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(
            [*COMMAND, *arguments(tmp_path)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert manager.recv(1_000).startswith(b"READY=1\n")
            for content in (None, "broken"):
                if content is not None:
                    (tmp_path / "key.pem").write_text(content)
                process.send_signal(signal.SIGHUP)
                assert manager.recv(1_000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(1_000) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert manager.recv(1_000) == b"STOPPING=1"
            assert process.wait(SOON) == 0
        finally:
            process.kill()
            process.wait()
