"""What all tests of a run share: one certificate. Must never write a key to a file."""

from typing import Final

import pytest

from .._rsock import TLS

__all__ = ["tls_of"]

_TLS: Final = pytest.StashKey[TLS]()


def tls_of(config: pytest.Config) -> TLS:
    """Return the TLS of the servers of this run; it is made by the first test that asks."""
    tls = config.stash.get(_TLS, None)
    if tls is None:
        tls = config.stash[_TLS] = TLS.for_tests()
    return tls
