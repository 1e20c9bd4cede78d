"""Replay: the server's side of a recording, with the check of how its dialogues went.

The compiled half reads the file and plays it. Nothing here may touch a socket.
"""

from . import _rsock
from ._script import ScriptMismatch

__all__ = ["Replay"]


class Replay(_rsock.Replay):
    """A service that plays the server's side of a recording, without the server.

    The n-th client gets the n-th connection of the recording; with `connections` "repeat", from the
    first one on again after the last, and with a number, each client gets that connection. The
    client is sent what the server has sent, each piece once the client has sent all that precedes
    it in the recording. FIN and RST are played too.

    What the client sends is compared. With `chunks` "lenient" it is one stream, however it is cut;
    with "exact" the client must send the pieces of the recording, as far as TCP can show. `speed`
    1.0 answers as fast as in the recording, 2.0 twice as fast, and None at once. The client may
    take `timeout` seconds longer than in the recording for what it sends. `ignore` is a regular
    expression of bytes, or a list of them: what they match in what the client has sent in the
    recording may be anything, as what was redacted may.

    A client that diverges is reset, its record is closed by "error" with the report, and `results`
    has a ScriptResult whose `error` is the report. A client for which there is no connection in the
    recording is closed with FIN.

    A recording of UDP is played by `Server(transport="udp")`: each datagram of a client is compared
    with the next one of the recording, and a datagram that is sent again is answered again. `carry`
    is a list of (start, stop) positions: these bytes of a datagram are not compared, and the
    answers have them at the same place. `[(0, 2)]` is the identifier of DNS.

    A recording that is torn is played up to the tear, and the result says so.

    Reads the file. Raises OSError if it cannot be read; ValueError for a file that is no recording,
    naming the line, for a connection that begins TLS, and for an argument that does not fit it;
    TypeError for an argument of the wrong type.
    """

    __module__ = "rsock"

    def check(self) -> None:
        """Raise ScriptMismatch for the first client that diverged; do nothing if none did."""
        for result in self.results:
            if result.error is not None:
                raise ScriptMismatch(result.error, result)
