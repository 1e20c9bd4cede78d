"""Faults from their text form. It owns the list of their names, and must not know their parts."""

from typing import Final

from .._fault import Fault
from ._accepting import AcceptDelay, Full, NeverAccept, Refuse
from ._datagrams import Drop, Duplicate, Reorder
from ._streams import CloseAfter, Garbage, Reset, Slice, SlowClose, SlowReader, Truncate
from ._traffic import Bandwidth, Blackhole, Corrupt, Latency

__all__ = ["EXAMPLES", "KINDS", "parse"]

# In the order of the documentation.
KINDS: Final[dict[str, type[Fault]]] = {
    kind._name: kind
    for kind in (
        Latency,
        Bandwidth,
        Slice,
        CloseAfter,
        Reset,
        Blackhole,
        SlowClose,
        SlowReader,
        Corrupt,
        Garbage,
        Truncate,
        Refuse,
        Full,
        NeverAccept,
        AcceptDelay,
        Drop,
        Duplicate,
        Reorder,
    )
}
# One text of each kind.
EXAMPLES: Final = (
    "latency:0.2±0.05",
    "bandwidth:1MiB/s",
    "slice:100±20,delay=0.01",
    "close:after=5s",
    "reset:after=64KiB",
    "blackhole:after=2,for=1",
    "slowclose:0.5",
    "slowreader:10KiB/s",
    "corrupt:0.001",
    "garbage:100",
    "truncate:1KiB",
    "refuse",
    "full",
    "neveraccept",
    "acceptdelay:0.5",
    "drop:0.1",
    "duplicate:0.1",
    "reorder:0.1,window=3",
)


def parse(text: str) -> Fault:
    """Return the fault of a text such as `"latency:0.2±0.05,up"`: what `str(fault)` has written.

    A text is the name of a kind, a colon, and parts between commas: parameters, then what the fault
    concerns. Times are in seconds or have a unit (`us`, `ms`, `s`, `min`, `h`), sizes in bytes or
    with a unit (`KiB`, `MiB`, `GiB` of 1024, `KB`, `MB`, `GB` of 1000), rates of bytes with or
    without a `/s`, or in bits (`Mbit/s`); rates from 0 to 1 or in percent. `+-` is the same as `±`.
    One text is one fault.

    Raises TypeError for what is no str, and ValueError for a text that names no fault, with what
    was probably meant.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str such as 'latency:0.2', not {type(text).__name__}")
    name, _, rest = (part.strip() for part in text.partition(":"))
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError(f"fault {text!r}: no kind {name!r}; {_meant(name)}")
    try:
        return kind._read(rest)
    except (TypeError, ValueError) as error:
        several = "; one text is one fault" if ";" in text else ""
        raise ValueError(f"fault {text!r}: {error}{several}") from None


def _meant(name: str) -> str:
    import difflib

    names = {kind.__name__.lower(): name for name, kind in KINDS.items()}
    names |= {name: name for name in KINDS}
    word = name.lower().replace("-", "").replace("_", "")
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {names[close[0]]!r}?"
    return f"there are {', '.join(KINDS)}"
