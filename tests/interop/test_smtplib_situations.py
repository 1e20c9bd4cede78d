"""smtplib against servers that a Script plays: what a client meets besides good servers."""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Iterator

import pytest
from support import SOON

from rsock import Captured, Script, Server

GREETED = Script().send(b"220 mail.test ready\r\n")
EHLO = GREETED.expect(b"ehlo me\r\n", ignore_case=True).send(b"250-mail.test\r\n250 SIZE 999\r\n")
MAIL = EHLO.expect_pattern(rb"(?i:mail from):<a@test>[^\r]*\r\n").send(b"250 ok\r\n")
RCPT = Script().expect_pattern(rb"(?i:rcpt to):<(?P<to>[^>]+)>\r\n")
DATA = MAIL.repeat(1, RCPT.send(b"250 ok\r\n")).expect(b"data\r\n").send(b"354 go on\r\n")


@contextlib.contextmanager
def client_of(script: Script, timeout: float = SOON) -> Iterator[tuple[Server, smtplib.SMTP]]:
    with Server(service=script, on_error="raise", drain=0) as server:
        with contextlib.closing(smtplib.SMTP(timeout=timeout, local_hostname="me")) as client:
            client.connect(*server.address)
            yield server, client


def test_a_message_is_delivered() -> None:
    body = DATA.until(b"\r\n.\r\n", name="text").send(b"250 queued for ", Captured("to"), b"\r\n")
    with client_of(body.expect(b"quit\r\n").send(b"221 bye\r\n")) as (server, client):
        assert client.sendmail("a@test", ["b@test"], "text") == {}
        assert client.quit() == (221, b"bye")
        [result] = server.script_results
        assert result.captures == {"to": b"b@test", "text": b"text"}


def test_a_server_that_is_busy_says_so_in_its_greeting() -> None:
    with Server(service=Script().send(b"421 too busy\r\n"), on_error="raise") as server:
        with pytest.raises(smtplib.SMTPConnectError) as caught:
            smtplib.SMTP(server.host, server.port, timeout=SOON)
        assert (caught.value.smtp_code, caught.value.smtp_error) == (421, b"too busy")


def test_a_greeting_that_does_not_come_is_a_time_out() -> None:
    with Server(service=Script().expect_end(), on_error="raise") as server:
        with pytest.raises((TimeoutError, smtplib.SMTPServerDisconnected)):
            smtplib.SMTP(server.host, server.port, timeout=0.1)
        server.ledger.wait(closed=1)


def test_a_greeting_that_is_slow_is_waited_for() -> None:
    slow = Script().send(b"220-be patient\r\n220 ready\r\n", size=8, delay=0.02)
    with client_of(slow.expect(b"quit\r\n").send(b"221 bye\r\n")) as (_, client):
        assert client.quit()[0] == 221


def test_an_answer_of_several_lines_is_one_answer() -> None:
    lines = b"250-mail.test\r\n250-SIZE 999\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
    script = GREETED.expect(b"ehlo me\r\n").send(lines, size=5)
    with client_of(script) as (_, client):
        assert client.ehlo()[0] == 250
        assert client.esmtp_features == {"size": "999", "auth": " PLAIN", "8bitmime": ""}


def test_a_server_that_does_not_know_ehlo_is_greeted_the_old_way() -> None:
    old = GREETED.expect(b"ehlo me\r\n").send(b"502 unknown\r\n")
    with client_of(old.expect(b"helo me\r\n").send(b"250 hello\r\n")) as (_, client):
        client.ehlo_or_helo_if_needed()
        assert not client.does_esmtp


def test_recipients_are_refused_one_by_one() -> None:
    one = RCPT.send(b"550 ", Captured("to"), b" is unknown\r\n")
    both = MAIL.repeat(2, one).expect(b"rset\r\n").send(b"250 ok\r\n")
    with client_of(both) as (_, client):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            client.sendmail("a@test", ["b@test", "c@test"], "text")
        refused = {name: (550, f"{name} is unknown".encode()) for name in ("b@test", "c@test")}
        assert caught.value.recipients == refused


def test_a_sender_that_is_refused_is_named() -> None:
    refused = EHLO.until(b"\r\n").send(b"451 try later\r\n").expect(b"rset\r\n").send(b"250 ok\r\n")
    with client_of(refused) as (_, client):
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail("a@test", "b@test", "text")
        assert (caught.value.smtp_code, caught.value.sender) == (451, "a@test")


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_ends_in_the_data_is_an_error(end: str) -> None:
    begun = DATA.expect(b"text")
    with client_of(begun.close() if end == "close" else begun.reset()) as (_, client):
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
            client.sendmail("a@test", "b@test", "text" * 100_000)


def test_data_that_is_refused_afterwards_is_an_error() -> None:
    refused = DATA.until(b"\r\n.\r\n").send(b"554 no thanks\r\n")
    with client_of(refused.expect(b"rset\r\n").send(b"250 ok\r\n")) as (_, client):
        with pytest.raises(smtplib.SMTPDataError, match="no thanks"):
            client.sendmail("a@test", "b@test", "text")


def test_a_line_that_does_not_end_is_given_up() -> None:
    with client_of(GREETED.expect(b"noop\r\n").send(b"250 " + b"x" * 10_000)) as (_, client):
        with pytest.raises(smtplib.SMTPResponseException, match="too long"):
            client.noop()


def test_encryption_that_is_not_offered_is_not_used() -> None:
    with client_of(EHLO.expect_end()) as (server, client):
        with pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS"):
            client.starttls()
        client.close()
        server.ledger.wait(closed=1)


def test_encryption_that_is_offered_and_refused_is_an_error() -> None:
    offer = GREETED.expect(b"ehlo me\r\n").send(b"250-mail.test\r\n250 STARTTLS\r\n")
    with client_of(offer.expect(b"STARTTLS\r\n").send(b"454 not now\r\n")) as (_, client):
        with pytest.raises(smtplib.SMTPResponseException, match="not now"):
            client.starttls()


def test_a_farewell_that_is_not_answered_is_an_error() -> None:
    with client_of(GREETED.expect(b"quit\r\n")) as (_, client):
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.quit()


def test_a_password_that_is_refused_is_an_error() -> None:
    offer = GREETED.expect(b"ehlo me\r\n").send(b"250-mail.test\r\n250 AUTH PLAIN\r\n")
    login = offer.expect_pattern(rb"AUTH PLAIN (?P<secret>\S+)\r\n").send(b"535 wrong\r\n")
    with client_of(login) as (server, client):
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("me", "secret")
        assert server.script_results[0].captures["secret"] == b"AG1lAHNlY3JldA=="


def test_an_answer_without_a_code_is_an_error() -> None:
    with client_of(GREETED.expect(b"noop\r\n").send(b"what?\r\n")) as (_, client):
        assert client.noop()[0] == -1
