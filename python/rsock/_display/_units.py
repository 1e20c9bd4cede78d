"""Numbers with their units: counts, bytes and seconds, as a person reads them.

Everything here returns a string. Nothing may raise for a number that rsock can report.
"""

__all__ = ["count", "seconds", "size"]


def count(number: int, noun: str) -> str:
    """`1 message`, `1,024 messages`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """`512 B`, `1.5 KiB`, `12.0 GiB`: exact below 1 KiB, one decimal above."""
    if number < 1024:
        return f"{number:,} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        # A value that would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:,.1f} PiB"


def seconds(number: float) -> str:
    """`35 µs`, `1.2 ms`, `1.25 s`, `5 min 03 s`, `2 h 05 min`: at most two units."""
    if number < 0.001:
        return f"{number * 1e6:.0f} µs"
    if number < 1:
        return f"{number * 1e3:.1f} ms"
    if number < 60:
        return f"{number:.2f} s"
    minutes, rest = divmod(int(number), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"
