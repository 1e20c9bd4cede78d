"""The echo server of rsock by TLS, or its forwarder, with its defaults.

`rsock_tls [TARGET] FOLDER`: the folder has the certificate; with a target, TLS ends here and clear
text goes on to it. Must never set another option, because the figures are of what a user gets.
"""

import sys
from pathlib import Path

from rsock import TLS, Echo, Forward, Server

if __name__ == "__main__":
    *target, name = sys.argv[1:]
    folder = Path(name)
    tls = TLS(folder / "cert.pem", folder / "key.pem")
    service = Forward("127.0.0.1", int(target[0])) if target else Echo()
    with Server(service=service, tls=tls) as server:
        print(server.port, flush=True)
        sys.stdin.read()
