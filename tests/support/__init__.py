"""What the tests share: waiting with a deadline, plain peers, fresh interpreters.

Re-exports the names that most tests use, so that a test imports from `support` alone;
`support.command_line`, `pages`, `project`, `roles` and `wire` are imported by name. Must never
define anything itself.
"""

from support.errors import error_number, partial
from support.exchange import (
    Stream,
    all_say_back,
    arrived,
    ended,
    exchange,
    payload,
    read_exactly,
    read_to_end,
    says_back,
    send_until_stuck,
    unread,
    was_reset,
)
from support.interrupts import Signal
from support.peers import (
    LOOPBACK,
    closed_port,
    dial,
    dial_narrow,
    dial_path,
    full_listener,
    has_ended,
    has_ipv6,
    leave_stale,
    listener,
    refused,
    reserved_port,
    reset,
)
from support.processes import Script, compiled, output_of, run_script
from support.resources import Held, drop, fds, given_back, held, rss, threads
from support.waiting import (
    AT_ONCE,
    LATE,
    SOON,
    Arrivals,
    Background,
    all_sleeping,
    sleeping,
    wait_until,
)

__all__ = [
    "AT_ONCE",
    "LATE",
    "LOOPBACK",
    "SOON",
    "Arrivals",
    "Background",
    "Held",
    "Script",
    "Signal",
    "Stream",
    "all_say_back",
    "all_sleeping",
    "arrived",
    "closed_port",
    "compiled",
    "dial",
    "dial_narrow",
    "dial_path",
    "drop",
    "ended",
    "error_number",
    "exchange",
    "fds",
    "full_listener",
    "given_back",
    "has_ended",
    "has_ipv6",
    "held",
    "leave_stale",
    "listener",
    "output_of",
    "partial",
    "payload",
    "read_exactly",
    "read_to_end",
    "refused",
    "reserved_port",
    "reset",
    "rss",
    "run_script",
    "says_back",
    "send_until_stuck",
    "sleeping",
    "threads",
    "unread",
    "wait_until",
    "was_reset",
]
