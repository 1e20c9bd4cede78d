"""The text form of a fault: `latency:0.2±0.05,up`.

It owns how parameters and their values are written, and read again. It must never know one kind of
fault from another: each class lists its parts.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

__all__ = [
    "After",
    "Bytes",
    "Flag",
    "Part",
    "Spread",
    "Value",
    "Word",
    "byte_rate",
    "count",
    "rate",
    "read",
    "seconds",
    "size",
    "written",
]

# The exponent is short: a number with a long one would take forever to compute.
_NUMBER: Final = re.compile(r"-?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?")
# Units as fractions.
_Units = Mapping[str, tuple[int, int]]
_SECONDS: Final[_Units] = {
    "us": (1, 1_000_000),
    "µs": (1, 1_000_000),
    "ms": (1, 1_000),
    "s": (1, 1),
    "min": (60, 1),
    "h": (3_600, 1),
}
# The first of several names is the one that is written.
_BYTES: Final[_Units] = {
    "GiB": (2**30, 1),
    "MiB": (2**20, 1),
    "KiB": (2**10, 1),
    "GB": (10**9, 1),
    "MB": (10**6, 1),
    "KB": (10**3, 1),
    "kB": (10**3, 1),
    "B": (1, 1),
}
_BITS: Final[_Units] = {
    "Gbit": (10**9, 8),
    "Mbit": (10**6, 8),
    "kbit": (10**3, 8),
    "bit": (1, 8),
}
_PERCENT: Final[_Units] = {"%": (1, 100)}
# What data has as it is; all else is escaped as in a URL (RFC 3986, section 2.1).
_PLAIN: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:!*()$@+?<>"
)


class _Wrong(Exception):
    """A text that cannot be read; says what it must be."""


# How values are written and read.


class Form:
    """One kind of value: seconds, bytes, a rate.

    wanted: what it is called, with an example.
    write: returns a value as text.
    units: the factor of each unit; a number without a unit is taken as it is.
    per: what can follow the unit behind a slash.
    whole: whether the value is a whole number.
    """

    def __init__(
        self,
        wanted: str,
        write: Callable[[Any], str],
        units: _Units,
        *,
        per: str = "",
        whole: bool = False,
    ) -> None:
        self.wanted = wanted
        self.write = write
        self._units = units
        self._per = per
        self._whole = whole

    def read(self, text: str) -> float:
        """Return the number that a text is."""
        return self.scaled(*self.split(text), text)

    def split(self, text: str) -> tuple[str, str]:
        """Return the number and the unit of a text, both as text."""
        found = _NUMBER.match(text)
        if found is None:
            raise _Wrong(f"must be {self.wanted}, not {text!r}")
        return found[0], text[found.end() :].strip()

    def scaled(self, number: str, unit: str, text: str) -> float:
        """Return the number of units; `text` is what was written."""
        # Programs that never read a text do not load the module.
        from fractions import Fraction

        plain = unit.removesuffix(f"/{self._per}") if self._per else unit
        factor = self._units.get(plain, (1, 1) if not plain else None)
        if factor is None:
            units = f"; units are {', '.join(self._units)}" if self._units else ""
            raise _Wrong(f"must be {self.wanted}, not {text!r}{units}")
        # Exact, so that 0.3ms is 0.0003.
        value = Fraction(number) * Fraction(*factor)
        if value.denominator == 1:
            return value.numerator
        if self._whole:
            raise _Wrong(f"must be {self.wanted}, a whole number, not {text!r}")
        return float(value)


def _default(fault: Any, name: str) -> object:
    """The default of a field."""
    return fault.__dataclass_fields__[name].default


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _size(value: float, least: str = "") -> str:
    """A number of bytes in the largest unit that divides it, or in the unit `least`."""
    if value and value == int(value):
        for unit, (factor, _) in _BYTES.items():
            if factor > 1 and value % factor == 0:
                return f"{int(value) // factor}{unit}"
    return f"{_number(value)}{least}"


seconds: Final = Form("a number of seconds such as 0.2 or 200ms", _number, _SECONDS)
size: Final = Form("a number of bytes such as 100 or 64KiB", _size, _BYTES, whole=True)
byte_rate: Final = Form(
    "bytes per second such as 1MiB/s or 10Mbit/s",
    lambda value: f"{_size(value, 'B')}/s",
    {**_BYTES, **_BITS},
    per="s",
)
rate: Final = Form("a rate such as 0.01 or 1%", _number, _PERCENT)
count: Final = Form("a number such as 3", _number, {}, whole=True)


# The parts of a text.


class Part:
    """One part of the text of a fault; has one or two of its fields."""

    fields: tuple[str, ...]

    def words(self) -> Iterable[str]:
        """Return the words that it is written as, if it has such."""
        return ()

    def keys(self) -> Iterable[str]:
        """Return the names that it is written behind, as in `name=value`."""
        return ()

    # Whether it is written without a name.
    bare = False

    def write(self, fault: Any) -> str | None:
        """Return the part for a fault; None if the fault has the defaults."""
        raise NotImplementedError

    def read(self, text: str) -> dict[str, Any]:
        """Return the fields that a text without a name gives."""
        raise NotImplementedError

    def read_named(self, name: str, text: str) -> dict[str, Any]:  # noqa: ARG002
        """Return the fields that the text behind a name gives."""
        return self.read(text)


class Value(Part):
    """One value; with a `key` it is written behind that name."""

    def __init__(self, name: str, form: Form, key: str = "") -> None:
        self.fields = (name,)
        self._name = name
        self._form = form
        self._key = key
        self.bare = not key

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return tuple(dict.fromkeys((self._key or self._name, self._name)))

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        value = getattr(fault, self._name)
        if value == _default(fault, self._name):
            return None
        text = self._form.write(value)
        return f"{self._key}={text}" if self._key else text

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        return {self._name: self._form.read(text)}


class Spread(Part):
    """A value and how much it varies: `0.2±0.05`, or `0.2+-0.05` in ASCII."""

    bare = True

    def __init__(self, name: str, spread: str, form: Form) -> None:
        self.fields = (name, spread)
        self._form = form

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return self.fields

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        value, spread = (getattr(fault, name) for name in self.fields)
        texts = [self._form.write(value), self._form.write(spread)]
        if not spread:
            return texts[0]
        if texts[0][-1].isdigit() and not texts[1][-1].isdigit():
            # Not as 1500±1KiB, which is not read.
            texts = [_number(value), _number(spread)]
        return "±".join(texts)

    def read_named(self, name: str, text: str) -> dict[str, Any]:
        """Return what the text behind a name gives."""
        return {name: self._form.read(text)} if name == self.fields[1] else self.read(text)

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        first, sign, second = text.replace("+-", "±").partition("±")
        if not sign:
            return {self.fields[0]: self._form.read(first)}
        numbers = [self._form.split(part.strip()) for part in (first, second)]
        units = [unit for _, unit in numbers]
        if not units[0] and units[1]:
            # 200±50ms: 200 of what?
            raise _Wrong(f"{text!r}: give both numbers a unit, or none")
        value, spread = (self._form.scaled(number, unit, text) for number, unit in numbers)
        return {self.fields[0]: value, self.fields[1]: spread}


class Word(Part):
    """One of several words, such as `up`."""

    def __init__(self, name: str, *words: str) -> None:
        self.fields = (name,)
        self._name = name
        self._words = words

    def words(self) -> Iterable[str]:
        """Return its words."""
        return self._words

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return self.fields

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        value = getattr(fault, self._name)
        return None if value == _default(fault, self._name) else str(value)

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        if text not in self._words:
            raise _Wrong(f"must be {' or '.join(self._words)}, not {text!r}")
        return {self._name: text}


class Flag(Part):
    """A field that is True where its name is there."""

    def __init__(self, name: str) -> None:
        self.fields = (name,)
        self._name = name

    def words(self) -> Iterable[str]:
        """Return its words."""
        return self.fields

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        return self._name if getattr(fault, self._name) else None

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        return {text: True}


class After(Part):
    """`after=64KiB` or `after=5s`: bytes or seconds, by their unit."""

    fields = ("after_bytes", "after_seconds")
    bare = True

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return ("after", *self.fields)

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        after_bytes, after_seconds = (getattr(fault, name) for name in self.fields)
        if after_bytes is not None:
            return f"after={_size(after_bytes, 'B')}"
        return f"after={_number(after_seconds)}s"

    def read_named(self, name: str, text: str) -> dict[str, Any]:
        """Return what the text behind a name gives."""
        if name in self.fields:
            return {name: (size if name == "after_bytes" else seconds).read(text)}
        return self.read(text)

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        _, unit = seconds.split(text)
        if unit in _SECONDS:
            return {"after_seconds": seconds.read(text)}
        if not unit:
            raise _Wrong(f"must have a unit: {text}B for bytes, or {text}s for seconds")
        if unit not in _BYTES:
            raise _Wrong(f"must be bytes such as 64KiB or seconds such as 5s, not {text!r}")
        return {"after_bytes": size.read(text)}


class Bytes(Part):
    """A number of random bytes, `100`; or given ones, `data=HTTP/1.1%20500`."""

    bare = True

    def __init__(self, name: str) -> None:
        self.fields = (name,)
        self._name = name

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return self.fields

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        value = getattr(fault, self._name)
        if isinstance(value, int):
            return _size(value)
        return f"{self._name}={''.join(chr(n) if n in _PLAIN else f'%{n:02X}' for n in value)}"

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        return {self._name: size.read(text)}

    def read_named(self, name: str, text: str) -> dict[str, Any]:
        """Return what the text behind a name gives."""
        if re.search("%(?![0-9A-Fa-f]{2})", text):
            raise _Wrong(f"a % begins an escape such as %2C, which {text!r:.80} has otherwise")
        escaped = text.encode(errors="surrogateescape")
        unescaped = re.sub(b"%(..)", lambda found: bytes([int(found[1], 16)]), escaped)
        return {name: unescaped}


class _Connections(Part):
    """`connections=3` for the next three; `id=1+4-6` for those with these numbers."""

    fields = ("connections",)

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return ("connections", "id")

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        value: int | Collection[int] | None = fault.connections
        if value is None:
            return None
        if isinstance(value, int):
            return f"connections={value}"
        runs: list[list[int]] = []
        for number in sorted(value):
            if runs and runs[-1][1] == number - 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        return "id=" + "+".join(
            f"{first}" if first == last else f"{first}-{last}" for first, last in runs
        )

    def read_named(self, name: str, text: str) -> dict[str, Any]:
        """Return what the text behind a name gives."""
        if name != "id":
            return {"connections": count.read(text)}
        numbers: set[int] = set()
        for run in text.split("+"):
            found = re.fullmatch(r"(\d{1,20})(?:-(\d{1,20}))?", run.strip())
            if found is None:
                raise _Wrong(f"must be numbers of connections such as 3 or 1+4-6, not {text!r}")
            first, last = int(found[1]), int(found[2] or found[1])
            if not 1 <= first <= last <= first + 100_000:
                raise _Wrong(f"must be numbers from 1, at most 100000, not {run.strip()!r}")
            numbers.update(range(first, last + 1))
        return {"connections": frozenset(numbers)}


class _When(Part):
    """`when=2..5` or `when=2..`: a window of time, in seconds."""

    fields = ("when",)

    def keys(self) -> Iterable[str]:
        """Return its names."""
        return self.fields

    def write(self, fault: Any) -> str | None:
        """Return it for a fault."""
        window: tuple[float, float | None] | None = fault.when
        if window is None:
            return None
        start, end = window
        return f"when={_number(start)}..{'' if end is None else _number(end)}"

    def read(self, text: str) -> dict[str, Any]:
        """Return what a text gives."""
        start, dots, end = text.partition("..")
        if not dots:
            raise _Wrong(f"must be a window of seconds such as 2..5 or 2.., not {text!r}")
        until = seconds.read(end.strip()) if end else None
        return {"when": (seconds.read(start.strip()) if start else 0, until)}


# What every fault has that can be given a scope.
SCOPE: Final[tuple[Part, ...]] = (
    Word("direction", "down", "up", "both"),
    Value("probability", rate, "probability"),
    _Connections(),
    _When(),
)


# The whole text.


def written(name: str, fault: object, parts: Sequence[Part]) -> str:
    """Return the text of a fault."""
    texts = [text for part in parts if (text := part.write(fault)) is not None]
    return f"{name}:{','.join(texts)}" if texts else name


def read(text: str, parts: Sequence[Part]) -> dict[str, Any]:
    """Return the fields that the text behind the name of a kind gives. Raises ValueError."""
    by_key = {key: part for part in parts for key in part.keys()}  # noqa: SIM118
    by_word = {word: part for part in parts for word in part.words()}
    bare = [part for part in parts if part.bare]
    fields: dict[str, Any] = {}
    for item in map(str.strip, text.split(",")) if text.strip() else ():
        key, sign, value = (word.strip() for word in item.partition("="))
        try:
            if sign:
                if key not in by_key:
                    _unknown(key, by_key, "parameter")
                found = by_key[key].read_named(key, value)
            elif item in by_word:
                found = by_word[item].read(item)
            elif bare and (item[:1].isdigit() or not _close(item, by_word)):
                found = bare.pop(0).read(item)
            else:
                _unknown(item, [*by_word, *(f"{name}=…" for name in by_key)], "part")
        except _Wrong as error:
            raise ValueError(f"{key}: {error}" if sign else str(error)) from None
        twice = fields.keys() & found.keys()
        if twice:
            raise ValueError(f"{min(twice)} is given twice")
        fields |= found
    return fields


def _unknown(word: str, known: Iterable[str], what: str) -> NoReturn:
    names = list(known)
    if not word:
        raise ValueError("a part is missing beside a comma")
    close = _close(word, names)
    if close:
        raise ValueError(f"no {what} {word!r}; did you mean {close!r}?")
    raise ValueError(f"no {what} {word!r}; there {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    return f"are {', '.join(names)}" if names else "is none"


def _close(word: str, known: Iterable[str]) -> str | None:
    """The name that a word is most like."""
    import difflib

    found = difflib.get_close_matches(word.lower(), list(known), n=1)
    return found[0] if found else None
