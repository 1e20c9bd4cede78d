"""What a handshake of TLS that failed means, in words. Must never say more than the record does."""

from typing import Final

from .._rsock import Record

__all__ = ["refusal"]

# How the error of a record begins.
_TLS: Final = "TLS: "
_ALERT: Final = "the peer sent the alert "
_UNVERIFIED: Final = "certificate verify failed: "
# The alerts by which a client refuses a certificate (RFC 8446, section 6.2).
_REFUSED: Final = {
    "unknown_ca": "unknown CA",
    "bad_certificate": "bad certificate",
    "certificate_expired": "it has expired",
    "certificate_revoked": "it was revoked",
    "certificate_unknown": "certificate unknown",
    "unsupported_certificate": "unsupported certificate",
}


def refusal(record: Record, has_tls: bool) -> str | None:
    """Return why TLS has ended a connection; None if it has not.

    `has_tls`: whether the server has TLS itself; that of a target of a Forward is another matter.
    """
    error = record.error or ""
    if record.closed_by != "error" or not error.startswith(_TLS) or not has_tls:
        return None
    what = error.removeprefix(_TLS)
    if record.tls is not None:
        # After the handshake; with a target it may be its TLS.
        return None if record.far is not None else f"TLS ended it: {what}"
    if what.startswith(_ALERT):
        alert = what.removeprefix(_ALERT)
        if alert in _REFUSED:
            return f"the client refused the server's certificate: {_REFUSED[alert]}"
        return f"the client ended the handshake of TLS, by the alert {alert}"
    if what.startswith(_UNVERIFIED):
        reason = what.removeprefix(_UNVERIFIED)
        return f"the server refused the client's certificate: {reason}"
    if what == "what the peer sent is not TLS":
        return "the client did not begin TLS, which the server has: what it sent is no handshake"
    return f"the handshake of TLS failed: {what}"
