"""The certificate of all servers with TLS: one for the whole run, on disk while it lasts.

Must never be used outside a run: its private key can be read by anyone who can read the folder.
"""

import atexit
import importlib
import tempfile
from functools import cache
from pathlib import Path


@cache
def folder() -> Path:
    """A folder with `cert.pem`, `key.pem`, and both in `both.pem`."""
    scratch = tempfile.TemporaryDirectory(prefix="rsock-bench-")
    atexit.register(scratch.cleanup)
    made = importlib.import_module("rsock").TLS.for_tests()
    path = Path(scratch.name)
    for name, text in (
        ("cert", made.cert_pem),
        ("key", made.key_pem),
        ("both", made.cert_pem + made.key_pem),
    ):
        (path / f"{name}.pem").write_text(text)
    return path
