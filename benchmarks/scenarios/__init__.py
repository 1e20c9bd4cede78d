"""The scenarios of the benchmarks, in the order of running and showing: one file a kind."""

from harness.contest import Scenario

from scenarios.client import CLIENT, CLIENT_BUSY, CLIENT_ONE_CORE
from scenarios.connect import CONNECT
from scenarios.echo import BULK, ECHO_50, ECHO_500
from scenarios.fixture import FIXTURE
from scenarios.forward import FORWARD, FORWARD_BULK
from scenarios.handler import HANDLER, HANDLER_FEW, HANDLER_MESSAGES
from scenarios.idle import IDLE
from scenarios.latency import LATENCY
from scenarios.spinning import SPINNING
from scenarios.start_stop import START_STOP
from scenarios.tls import TLS_BULK, TLS_ECHO, TLS_HANDSHAKE, TLS_IDLE
from scenarios.udp import UDP

SCENARIOS: tuple[Scenario, ...] = (
    ECHO_50,
    ECHO_500,
    CONNECT,
    BULK,
    UDP,
    FORWARD,
    FORWARD_BULK,
    IDLE,
    START_STOP,
    FIXTURE,
    CLIENT,
    CLIENT_BUSY,
    CLIENT_ONE_CORE,
    LATENCY,
    SPINNING,
    HANDLER,
    HANDLER_FEW,
    HANDLER_MESSAGES,
    TLS_HANDSHAKE,
    TLS_ECHO,
    TLS_BULK,
    TLS_IDLE,
)
