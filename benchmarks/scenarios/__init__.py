"""The rows of the benchmarks, in the order in which they are run and shown: one file a kind."""

from harness.contest import Row

from rows.client import CLIENT, CLIENT_BUSY, CLIENT_ONE_CORE
from rows.connect import CONNECT
from rows.echo import BULK, ECHO_50, ECHO_500
from rows.forward import FORWARD, FORWARD_BULK
from rows.handler import HANDLER, HANDLER_FEW
from rows.idle import IDLE
from rows.spinning import SPINNING
from rows.start_stop import START_STOP
from rows.udp import UDP

ROWS: tuple[Row, ...] = (
    ECHO_50,
    ECHO_500,
    CONNECT,
    BULK,
    UDP,
    FORWARD,
    FORWARD_BULK,
    IDLE,
    START_STOP,
    CLIENT,
    CLIENT_BUSY,
    CLIENT_ONE_CORE,
    SPINNING,
    HANDLER,
    HANDLER_FEW,
)
