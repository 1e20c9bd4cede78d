"""Options from the environment and from a file: which source counts, and what is wrong with one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from support import dial, says_back
from support.command_here import called
from support.command_line import Running, run

from rsock import Limits, SocketOptions
from rsock._cli import _arguments, _fields, _layers
from rsock._cli._errors import Failure, UsageError
from rsock._cli._namespace import Arguments

FILE = """
drain = 5
[limit]
idle = 30
connections = 10
[serve]
service = "Echo"
listen = ["127.0.0.1:0"]
drain = 6
fault = ["latency:0.1", "slice:5"]
[forward]
timeout = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rsock.toml"
    path.write_text(FILE)
    return path


def parsed(*argv: str, **environment: str) -> Arguments:
    """The arguments of a command line, in an environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("RSOCK_"):
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        return _arguments.parse(argv)


def values(*argv: str, **environment: str) -> dict[str, object]:
    return vars(parsed(*argv, **environment))


def test_every_option_of_every_command_has_a_variable_and_a_key() -> None:
    parsers = _layers.all_options(list(_arguments.COMMANDS), "rsock._cli")
    for name, parser in parsers.items():
        keys = _layers.options(parser)
        for action in parser._actions:
            words = [word for word in action.option_strings if word.startswith("--")]
            if words and not words[0].startswith("--help") and words != ["--config"]:
                assert words[0][2:] in keys, f"{name} {words}"
    assert _layers.named("limit-half-close") == "RSOCK_LIMIT_HALF_CLOSE"


def test_the_command_line_counts_more_than_the_environment_and_that_more_than_the_file(
    file: Path,
) -> None:
    config = ("serve", "--config", str(file))
    assert values(*config)["drain"] == 6
    assert values(*config, RSOCK_DRAIN="7")["drain"] == 7
    assert values(*config, "--drain", "8", RSOCK_DRAIN="7")["drain"] == 8
    assert values("serve", "Echo")["drain"] == 1


def test_a_table_of_a_command_counts_more_than_the_options_of_all(file: Path) -> None:
    forward = values("forward", "0", "127.0.0.1:1", "--config", str(file))
    assert (forward["drain"], forward["timeout"]) == (5, 3)
    assert "service" not in forward


def test_a_nested_table_is_a_prefix(file: Path) -> None:
    arguments = parsed("serve", "--config", str(file))
    assert _fields.given(arguments, Limits) == Limits(idle=30, connections=10)


def test_arguments_of_the_file_are_left_out_on_the_command_line(file: Path) -> None:
    given = values("serve", "--config", str(file))
    assert given["service"] == "Echo"
    assert given["listen"] == [("127.0.0.1", 0, None)]
    assert values("serve", "Discard", "1", f"--config={file}")["listen"] == [("127.0.0.1", 1, None)]
    with pytest.raises(UsageError, match="SERVICE"):
        parsed("serve")


def test_a_list_of_the_command_line_replaces_that_of_the_file(file: Path) -> None:
    both = values("serve", "--config", str(file))["faults"]
    assert [str(each) for each in both] == ["latency:0.1", "slice:5"]  # type: ignore[attr-defined]
    one = values("serve", "--config", str(file), "--fault", "slice:9")["faults"]
    assert [str(each) for each in one] == ["slice:9"]  # type: ignore[attr-defined]
    several = values("serve", "Echo", RSOCK_FAULT="slice:1 slice:2")["faults"]
    assert [str(each) for each in several] == ["slice:1", "slice:2"]  # type: ignore[attr-defined]


def test_a_variable_can_name_the_file_and_give_what_the_command_line_must_have(file: Path) -> None:
    assert values("serve", RSOCK_CONFIG=str(file))["service"] == "Echo"
    given = values("serve", RSOCK_SERVICE="Echo", RSOCK_LISTEN="8080 '[::1]:80'")
    assert given["listen"] == [("127.0.0.1", 8080, None), ("::1", 80, None)]


def test_switches_are_on_or_off(tmp_path: Path) -> None:
    for text, on in (("on", True), ("1", True), ("false", False), ("no", False)):
        assert values("echo", RSOCK_PLAIN=text)["plain"] is on
    path = tmp_path / "a.toml"
    path.write_text("json = true\n[socket]\nnodelay = false\n")
    assert values("echo", "--config", str(path))["json"] is True
    assert values("echo", "--config", str(path), RSOCK_JSON="off")["json"] is False
    arguments = parsed("echo", "--config", str(path))
    assert _fields.given(arguments, SocketOptions) == SocketOptions(nodelay=False)


def test_a_form_of_the_command_line_replaces_the_other_one_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("json = true\n")
    given = values("echo", "--plain", "--config", str(path))
    assert (given["plain"], given["json"]) == (True, False)


def test_an_option_that_may_stand_alone_is_true_or_has_a_value(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text, value in (("true", ""), ("false", None), ('"web"', "web")):
        path.write_text(f"systemd = {text}\n")
        assert values("echo", "--config", str(path))["systemd"] == value


def test_variables_of_others_are_left_alone() -> None:
    # As Kubernetes sets them for a service that is called rsock.
    values("echo", RSOCK_PORT="tcp://10.0.0.1:80", RSOCK_SERVICE_HOST="10.0.0.1", RSOCK_FUZZ="x")


WRONG = {
    "not-toml": ("drain = \n", ":1: Invalid value"),
    "key-unknown": ("drain = 1\nlimit.conections = 5\n", ":2: limit.conections: no option of any"),
    "key-meant": ("[limit]\nconections = 5\n", "did you mean limit-connections?"),
    "key-of-another-command": (
        "[echo]\n\nservice = 'Echo'\n",
        ":3: echo.service: no option of echo",
    ),
    "out-of-range": ("[limit]\nconnections = 0\n", ":2: limit.connections: Limits(connections=0)"),
    "no-number": ("drain = 'soon'\n", ":1: drain: must be a number of seconds from 0, not 'soon'"),
    "no-list": ("[serve]\nlisten = {a = 1}\n", ":2: serve.listen.a: no option of serve"),
    "no-text": ("drain = 1979-05-27\n", ":1: drain: must be a text, a number or a boolean"),
    "no-switch": ("plain = 'maybe'\n", ":1: plain: must be on or off, not 'maybe'"),
    "no-choice": ("log-format = 'xml'\n", ":1: log-format: invalid choice: 'xml'"),
    "no-address": ("[echo]\nlisten = ['1:2:3']\n", ":2: echo.listen: "),
    "no-fault": ("fault = 'lateness:1'\n", ":1: fault: "),
    "two-forms": ("plain = true\njson = true\n", "not allowed with"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_reported_with_path_line_key_and_reason(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, expected = WRONG[name]
    path = tmp_path / "a.toml"
    path.write_text(text)
    code, out, err = called(capsys, "config", "check", str(path))
    assert (code, out) == (1, "")
    assert err.startswith(f"rsock: {path}:")
    assert expected in err
    with pytest.raises(UsageError) as raised:
        parsed("echo", "--config", str(path))
    assert expected in str(raised.value)


def test_a_check_reports_all_problems_in_the_order_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("drain = 'x'\nnothing = 1\n[forward]\ntimeout = 'y'\n")
    code, _, err = run("config", "check", str(path))
    lines = err.removeprefix("rsock: ").splitlines()
    assert code == 1
    assert [line.split(":")[1] for line in lines] == ["1", "2", "4"]


def test_a_check_of_a_right_file_says_so(file: Path) -> None:
    assert run("config", "check", str(file)) == (0, f"{file}: 8 options, nothing wrong\n", "")


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file"):
        parsed("echo", "--config", str(tmp_path / "none"))
    path = tmp_path / "binary"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8 at byte 5"):
        parsed("echo", "--config", str(path))


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(UsageError, match=r"^RSOCK_DRAIN: must be a number of seconds"):
        parsed("echo", RSOCK_DRAIN="soon")


def test_a_server_runs_with_the_options_of_a_file(file: Path) -> None:
    with Running("serve", "--config", str(file), "--json") as command:
        started = json.loads(command.line())
        assert started["faults"] == ["latency:0.1", "slice:5"]
        with dial(tuple(started["address"])) as peer:
            assert says_back(peer)
        command.signal(signal.SIGTERM)
        assert command.end()[0] == 0
