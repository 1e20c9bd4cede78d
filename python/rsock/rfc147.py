"""Socket numbers as RFC 147 (J. M. Winett, "The Definition of a Socket", 1971) defines them.

Before addresses and ports, a socket was a number of 32 bits, unique in the whole network: 8 bits of
home (the host), 16 bits of user, and 8 bits of tag, of which 7 are the plug and the last one is the
polarity. Even numbers receive, odd ones send, so that a connection of today, which does both, has a
pair of them. A socket that is used again for the same purpose should have the same number.

    home: 8 bits | user: 16 bits | plug: 7 bits | polarity: 1 bit

A `Record` has its pair: `record.rfc147`. Home is the last octet of the local address, user its
port, plug the record's id modulo 128. This file owns the numbers, and must never open a socket.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

__all__ = ["SocketNumber", "SocketPair", "pair"]

_MOST: Final = {"home": 0xFF, "user": 0xFFFF, "plug": 0x7F, "polarity": 1}
_MOST_NUMBER: Final = 0xFFFF_FFFF


def _check(name: str, value: int, most: int) -> None:
    # A bool is an int to Python, but a host that is True is a mistake.
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}: {value!r}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} {value}: must be from 0 to {most}")


@dataclass(frozen=True, slots=True, order=True)
class SocketNumber:
    """One socket of RFC 147, in its four parts; `pack()` gives the number.

    home: the host, 0 to 255.
    user: its owner on that host, 0 to 65 535.
    plug: which of the user's sockets, 0 to 127.
    polarity: 0 receives, 1 sends.

    Sorts as the numbers do. Raises TypeError for a part that is not an int, ValueError for one out
    of range, naming part and value.
    """

    home: int
    user: int
    plug: int
    polarity: int

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            _check(name, getattr(self, name), most)

    def pack(self) -> int:
        """The number, from 0 to 2**32 - 1; `int()` gives the same."""
        return self.home << 24 | self.user << 8 | self.tag

    @classmethod
    def unpack(cls, number: int) -> Self:
        """The parts of a number.

        Raises TypeError for a value that is not an int, ValueError for one that does not fit in 32
        bits.
        """
        _check("number", number, _MOST_NUMBER)
        return cls(number >> 24, number >> 8 & 0xFFFF, number >> 1 & 0x7F, number & 1)

    def __int__(self) -> int:
        return self.pack()

    @property
    def tag(self) -> int:
        """The last 8 bits: plug and polarity."""
        return self.plug << 1 | self.polarity

    @property
    def receives(self) -> bool:
        """Whether it is a receiving socket: its number is even."""
        return self.polarity == 0

    @property
    def sends(self) -> bool:
        """Whether it is a sending socket: its number is odd."""
        return self.polarity == 1

    @property
    def partner(self) -> Self:
        """The socket of the other polarity, with the same other parts."""
        return replace(self, polarity=1 - self.polarity)


class SocketPair(NamedTuple):
    """The two sockets of one end of a connection: an ordinary named tuple."""

    receives: SocketNumber
    sends: SocketNumber


def pair(host: str, port: int, number: int) -> SocketPair:
    """The two sockets of one end of a connection.

    `host` is the numeric address of that end, whose last octet is the home; `port` is the user;
    `number` distinguishes the connection from others of the port, and its last 7 bits are the plug.
    The same arguments give the same pair. Raises ValueError for a host that is not numeric and a
    port out of range.
    """
    import ipaddress  # Imported here, so that `import rsock` does not load it.

    home = ipaddress.ip_address(host).packed[-1]
    receives = SocketNumber(home, port, number % (_MOST["plug"] + 1), 0)
    return SocketPair(receives, receives.partner)
