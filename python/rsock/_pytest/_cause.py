"""The line that tells why a test failed, as far as its servers know.

It is derived from the exception of the test and from what the servers saw: the most specific
account first, such as a client that diverged from a script, and the bare facts of the last
connection at the end. Must never claim what it cannot know: a line that guesses says "may".
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .._types import FaultEvent
from ._failure import Compared, Kind, awaited, compared, kind_of, target_of, verified
from ._handshake import refusal
from ._scene import Place, Raised, Scene, Talk, shorter
from ._text import one_line, shown

__all__ = ["cause"]

# What the line begins with.
_KINDS: Final[dict[Kind, str]] = {
    "refused": "refused",
    "reset": "reset",
    "timeout": "time-out",
    "ended": "short read",
    "tls": "TLS",
    "wrong": "wrong bytes",
}
# The first line of the report about a client that differs from a recording.
_RECORDED: Final = re.compile(
    r"connection \d+: (?P<file>.*?),(?: line (?P<line>\d+))? "
    r"(?:\(its|behind the end of its) connection \d+\)?: (?P<what>.*)"
)
# What faults do, by the kind of failure that it causes.
_HARM: Final[dict[Kind, tuple[str, ...]]] = {
    "reset": ("reset",),
    "ended": ("closed", "truncated", "reset", "dropped"),
    "timeout": ("held", "dropped", "truncated", "delayed", "slowed", "closed"),
    "wrong": ("corrupted", "garbled", "truncated", "dropped", "duplicated", "reordered", "closed"),
}
# What a fault has done, the gravest first.
_DONE: Final = {
    "reset": "reset it",
    "closed": "closed it",
    "truncated": "cut it off",
    "garbled": "replaced bytes of it",
    "corrupted": "changed bytes of it",
    "held": "held back what was sent",
    "dropped": "dropped what was sent",
    "duplicated": "sent something twice",
    "reordered": "changed the order",
    "delayed": "delayed what was sent",
    "slowed": "slowed down what was sent",
    "sliced": "cut what was sent into parts",
}


def cause(error: BaseException | None, scenes: Sequence[Scene]) -> str:
    """Return one line on why a test failed with `error`: its kind, and what led to it."""
    kind, pair = kind_of(error), compared(error)
    if kind == "wrong" and pair is not None and pair.is_short:
        kind = "ended"
    line = _cause(error, kind, pair, scenes)
    says = verified(error)
    if kind == "tls" and says and says.lower() not in line.lower():
        line += f" ({one_line(says)})"
    if kind == "other" or (kind == "wrong" and pair is None):
        return line
    between = (
        ", " if line.startswith(("connection ", *(f"{one.name}, " for one in scenes))) else ": "
    )
    return f"{_KINDS[kind]}{between}{line}"


def _cause(
    error: BaseException | None, kind: Kind, pair: Compared | None, scenes: Sequence[Scene]
) -> str:
    several = len(scenes) > 1
    first = (_by_tls,) if kind == "tls" else ()
    others = (_diverged, _raised, _refused, _by_fault, _by_tls, _waited, _by_limit, _by_error)
    for rule in (*first, *others):
        for scene in scenes:
            line = rule(scene, kind)
            if line is not None:
                return _named(line, scene, several)
    if kind == "refused":
        return _refused_elsewhere(target_of(error), scenes)
    if pair is not None:
        for scene, talk in _last_first(scenes):
            line = _compared(pair, talk)
            if line is not None:
                return _named(line, scene, several)
    wanted = awaited(error)
    waited = "" if wanted is None else f"the test waited for {wanted}, and "
    if wanted is not None:
        # The client has not timed out.
        kind = "other"
    talk_of = next(_last_first(scenes), None)
    if talk_of is None:
        return f"{waited}{_no_connection(scenes, kind)}"
    scene, talk = talk_of
    line = _named(f"connection {talk.number}: {_facts(talk, kind)}", scene, several)
    came = f"{scene.accepted:,} connection{'' if scene.accepted == 1 else 's'} came"
    return f"{waited}{came}; {line}" if waited else line


def _named(line: str, scene: Scene, several: bool) -> str:
    return f"{scene.name}, {line}" if several else line


def _last_first(scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Talk]]:
    """All connections: first those that went wrong or are in the middle, each the newest first."""
    talks = [(scene, talk) for scene in scenes for talk in scene.talks]
    talks.sort(key=lambda each: each[1].record.opened_at, reverse=True)
    talks.sort(key=lambda each: each[1].record.closed_by == "peer")
    yield from talks


# --- what a server has an account of -------------------------------------------------------


def _diverged(scene: Scene, _kind: Kind) -> str | None:
    """A client that did something else than its script."""
    # Attempts that the recording does not have follow from what an earlier one did.
    talks = [*reversed(scene.talks)]
    talks.sort(key=lambda talk: talk.is_unrecorded)
    for talk in talks:
        result = talk.script
        if result is None or result.error is None:
            continue
        if _is_tls_in_clear(scene, talk):
            return _tls_in_clear(talk)
        head, *rest = result.error.splitlines()
        if head.startswith("connection "):
            return _not_recorded(talk, head, rest)
        place, _, what = head.partition(": ")
        details = dict(line.strip().partition(" ")[::2] for line in rest)
        expected, received = details.get("expected"), details.get("received")
        if expected is not None:
            _, _, why = what.rpartition(": ")
            then = _why(why)
            only = "only " if then and received != "nothing" else ""
            text = f"the script expected {expected} and received {only}{received}{then}"
        else:
            step, _, why = what.rpartition(": ")
            had = "" if received in (None, "nothing") else f" and had {received}"
            then = _why(why) or f", then {one_line(why)}"
            text = f"the script was at `{one_line(step)}`{had}{then}"
        return f"connection {talk.number}: {text}, at {place}"
    return None


def _not_recorded(talk: Talk, head: str, rest: list[str]) -> str:
    """A client that did something else than in its recording."""
    found = _RECORDED.fullmatch(head)
    if found is None:
        # There is no connection for it.
        _, _, what = head.partition(": ")
        return f"connection {talk.number}: {one_line(what)}"
    details = dict(line.strip().partition(" ")[::2] for line in rest)
    text = one_line(found["what"])
    expected, received = details.get("expected"), details.get("received")
    if expected is not None:
        text += f": recorded is {expected}, and received was {received}"
    line = f", line {found['line']}" if found["line"] else ""
    return f"connection {talk.number}: {text}, at {shorter(found['file'])}{line}"


def _why(why: str) -> str:
    """The end of a report of a script, as the end of a sentence; "" for bytes that differ."""
    if why.startswith("the connection ended before"):
        return ", then the connection ended"
    if why.startswith("the peer finished"):
        return ", then the client finished (FIN)"
    if why.startswith("not met within"):
        return f", {one_line(why)}"
    return ""


def _raised(scene: Scene, _kind: Kind) -> str | None:
    """What a handler raised."""
    for raised in reversed(scene.raised):
        error = raised.error
        text = one_line(_text(error))
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return f"{_of(raised)}the handler raised {text}{_at(raised.place)}"
    return None


def _by_tls(scene: Scene, kind: Kind) -> str | None:
    """A handshake that failed."""
    for talk in reversed(scene.talks):
        text = refusal(talk.record, scene.server.tls is not None)
        if text is not None:
            return f"connection {talk.number}: {text}"
    if kind == "tls":
        for talk in reversed(scene.talks):
            if _is_tls_in_clear(scene, talk):
                return _tls_in_clear(talk)
    return None


def _is_tls_in_clear(scene: Scene, talk: Talk) -> bool:
    """Whether a client began TLS with a server that has none, nor has a target that may have it."""
    is_clear = scene.server.tls is None and talk.record.far is None
    # A record of a handshake, of any version (RFC 8446, section 5.1).
    return is_clear and talk.inward.startswith(b"\x16\x03")


def _tls_in_clear(talk: Talk) -> str:
    return (
        f"connection {talk.number}: the client began a handshake of TLS, and the server is without "
        f"TLS: tls=True gives it a certificate"
    )


def _waited(scene: Scene, _kind: Kind) -> str | None:
    """A read of a handler that ended in the middle of a message."""
    for raised in reversed(scene.waited):
        error = raised.error
        had = len(getattr(error, "partial", b""))
        wanted = _wanted(_text(error))
        # The note tells which.
        left = not any("server was stopped" in str(note) for note in _notes(error))
        then = "the client closed" if left else "the server was stopped"
        return (
            f"{_of(raised)}the handler waited for {wanted} and had {had:,}, then {then}"
            f"{_at(raised.place)}"
        )
    return None


def _wanted(text: str) -> str:
    """`the stream ended after 5 bytes of 10`, of a message that ends with its delimiter, …"""
    _, of, count = text.rpartition(" of ")
    if of and count.isdigit():
        return f"{int(count):,} bytes"
    if text.endswith(" of a line"):
        return "the end of a line"
    return "the end of a message" if "delimiter" in text else "more bytes"


def _by_fault(scene: Scene, kind: Kind) -> str | None:
    """A fault that does what the test failed with."""
    harm = _HARM.get(kind, ())
    for action in harm:
        for talk in reversed(scene.talks):
            for event in talk.faults:
                if event.action == action:
                    return f"connection {talk.number}: {_struck(event)}"
    if kind == "timeout":
        for fault, _, _ in scene.faults:
            name = str(fault).partition(":")[0]
            if name in ("full", "neveraccept", "never-accept", "acceptdelay", "accept-delay"):
                return f"the fault {fault} keeps clients from being accepted"
    return None


def _struck(event: FaultEvent) -> str:
    way = "the client" if event.direction == "up" else "the server"
    where = f"after {event.offset:,} bytes from {way}" if event.offset else f"from {way}"
    if event.action in ("reset", "closed", "truncated") and not event.offset:
        where = "before a byte"
    return f"the fault {event.fault} {_DONE.get(event.action, event.action)} {where}"


def _by_limit(scene: Scene, kind: Kind) -> str | None:
    """A limit of the server."""
    for talk in reversed(scene.talks):
        record = talk.record
        if record.closed_by == "limit":
            if record.limit == "line" and record.error:
                # That of a handler's call, which knows nothing of `Limits`.
                return f"connection {talk.number}: {_end(talk)}"
            value = getattr(scene.server.limits, record.limit or "", None)
            limit = record.limit if value is None else f"{record.limit}={value}"
            return f"connection {talk.number}: the server's Limits({limit}) ended it"
    if scene.refused and kind in ("reset", "ended", "timeout"):
        reason, number = max(scene.refused_by.items(), key=lambda item: item[1])
        count = f"{number:,} connection{'' if number == 1 else 's'}"
        if reason in ("allow", "deny"):
            return f"the server reset {count} because of its {reason}=…"
        limit = f"{reason}={getattr(scene.server.limits, reason, '…')}"
        return f"the server reset {count} at its Limits({limit})"
    return None


def _by_error(scene: Scene, _kind: Kind) -> str | None:
    """An error of the server's side, such as of a target that cannot be reached."""
    for talk in reversed(scene.talks):
        record = talk.record
        if record.closed_by == "error" and record.error:
            return f"connection {talk.number}: the server's side failed: {one_line(record.error)}"
    return None


# --- a connect that was refused ------------------------------------------------------------


def _refused(scene: Scene, kind: Kind) -> str | None:
    if kind != "refused":
        return None
    for fault, _, _ in scene.faults:
        if str(fault).startswith("refuse"):
            return f"the fault {fault} refused the connect to {scene.address}"
    return None


def _refused_elsewhere(target: tuple[str, int] | None, scenes: Sequence[Scene]) -> str:
    for scene in scenes:
        if scene.state == "stopped" and (target is None or target[1] == scene.port):
            return f"the connect was refused: {scene.name} ({scene.address}) had been stopped"
    where = ", ".join(f"{scene.name} listens on {scene.address}" for scene in scenes)
    if target is not None:
        host, port = target
        return f"the connect was refused: nothing listens on {one_line(host)}:{port}; {where}"
    return f"a connect was refused that was not to a server of this test: {where}"


def _no_connection(scenes: Sequence[Scene], kind: Kind) -> str:
    waiting = sum(scene.waiting for scene in scenes)
    if waiting:
        count = f"{waiting:,} client{'' if waiting == 1 else 's'}"
        return f"{count} connected and waited in the queue: no accept() took the connection"
    where = " and ".join(f"{scene.name} ({scene.address})" for scene in scenes)
    what = "the client timed out, and " if kind == "timeout" else ""
    return f"{what}no client has connected to {where}"


# --- wrong bytes ---------------------------------------------------------------------------


def _compared(pair: Compared, talk: Talk) -> str | None:
    """Where an assertion on bytes and the bytes of a connection meet."""
    sent = talk.outward
    got, wanted = pair.left, pair.right
    if talk.is_tls:
        return None
    if got not in sent and wanted in sent and wanted:
        if got and sent.find(wanted) >= 0 and not wanted.startswith(got):
            return (
                f"connection {talk.number}: the server sent {shown(wanted)}, as the test expects; "
                f"the client made {shown(got)} of it"
            )
    elif got not in sent:
        return None
    head = f"connection {talk.number}: "
    if wanted.startswith(got) and got != wanted:
        had = f"the client has {len(got):,} of the {len(wanted):,} bytes that the test expects: "
        if wanted in sent:
            return (
                f"{head}{had}the server sent all of them, in {talk.sends:,} parts, and one recv() "
                f"returns what has arrived"
            )
        return f"{head}{had}the server sent only {len(sent):,}: {shown(sent)}{_after(talk)}"
    if not got:
        return None
    at = next(
        (at for at, (one, other) in enumerate(zip(got, wanted, strict=False)) if one != other),
        min(len(got), len(wanted)),
    )
    return (
        f"{head}the server sent {shown(got)}, and the test expects {shown(wanted)}: they differ "
        f"at byte {at}"
    )


def _after(talk: Talk) -> str:
    closed = talk.record.closed_by
    if closed in (None, "peer", "stop"):
        return ""
    return f", then {_end(talk)}"


# --- the bare facts ------------------------------------------------------------------------


def _facts(talk: Talk, kind: Kind) -> str:
    """What a connection has come to."""
    record = talk.record
    noun = "bytes of TLS" if talk.is_tls else "bytes"
    sent = f"{record.bytes_out:,} {noun}"
    if kind == "reset" and record.closed_by == "reset":
        return f"the client itself reset it, after {record.bytes_in:,} bytes"
    if kind in ("reset", "ended") and record.closed_by not in (None, "peer"):
        if kind == "reset":
            return f"{_end(talk, was_reset=True)}, after {sent} to the client{_bytes(talk)}"
        return f"the server sent {sent}{_bytes(talk)}, then {_end(talk)}"
    if kind == "timeout":
        return f"{_silence(talk)}{_waits(talk)}"
    text = f"{record.bytes_in:,} {noun} from the client, {sent} to it"
    end = "it is still open" if record.closed_by is None else _end(talk)
    return f"{text}, and {end}{_waits(talk)}{_disturbed(talk)}"


def _disturbed(talk: Talk) -> str:
    """The gravest of what faults did to a connection: a client may have an error of its own."""
    events = [event for event in talk.faults if event.action in _DONE]
    if not events or talk.record.closed_by == "fault":
        # `_end` has named the fault that ended it.
        return ""
    return f"; {_struck(min(events, key=lambda event: [*_DONE].index(event.action)))}"


def _silence(talk: Talk) -> str:
    """What was not sent."""
    record, last = talk.record, talk.last
    if last is None:
        if record.bytes_in or record.bytes_out:
            noun = "bytes of TLS" if talk.is_tls else "bytes"
            return f"{record.bytes_in:,} {noun} came and {record.bytes_out:,} were sent"
        return "neither side sent a byte, and each may wait for the other"
    if last.direction == "in":
        before = f" after {record.bytes_out:,} bytes" if record.bytes_out else ""
        data = talk.inward[-last.size :] if not last.truncated else last.data
        return f"the client sent {shown(data, last.size)}, and the server sent nothing back{before}"
    after = "" if record.closed_by in (None, "peer") else f", then {_end(talk)}"
    return (
        f"the server sent {shown(last.data, last.size)} last ({record.bytes_out:,} bytes in all)"
        f"{after}, and the client waited for more"
    )


def _waits(talk: Talk) -> str:
    if talk.script is not None and talk.script.position is not None:
        return f": the {_dialogue(talk)} waits at {one_line(talk.script.position)}"
    place = talk.handler
    return "" if place is None else f": the handler is in `{place.code}` ({place})"


def _dialogue(talk: Talk) -> str:
    return "recording" if talk.is_replay else "script"


def _bytes(talk: Talk) -> str:
    return f" ({shown(talk.outward, talk.record.bytes_out)})" if talk.outward else ""


def _end(talk: Talk, was_reset: bool = False) -> str:
    """How a connection ended, from the server's side."""
    record = talk.record
    by = record.closed_by
    if by == "limit" and record.limit == "line" and record.error:
        _, _, why = one_line(record.error).partition(": ")
        return f"a limit of the handler's read ended it: {why}"
    if by == "local":
        return "the handler reset it (abort)" if was_reset else "the handler returned or closed it"
    if by == "service":
        script = talk.script
        if script is not None and script.done:
            verb = "reset" if was_reset else "closed"
            return (
                f"the {_dialogue(talk)} {verb} it at its end, step {script.step} of {script.steps}"
            )
        return f"the service {'reset' if was_reset else 'ended'} it"
    ends = {
        "peer": "the client closed it",
        "reset": "the client reset it",
        "stop": "the server was stopped",
        "fault": f"the fault {record.error or record.fault} ended it",
        "detached": "its descriptor was given away",
        "limit": f"Limits.{record.limit} ended it",
        "error": f"an error ended it: {one_line(record.error or '')}",
    }
    return ends.get(by or "", "it is still open")


def _of(raised: Raised) -> str:
    return "" if raised.connection is None else f"connection {raised.connection}: "


def _at(place: Place | None) -> str:
    return "" if place is None else f", in `{place.code}` ({place})"


def _notes(error: BaseException) -> list[object]:
    notes = getattr(error, "__notes__", ())
    return list(notes) if isinstance(notes, list) else []


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "an exception that cannot be shown"
