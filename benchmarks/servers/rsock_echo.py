"""The echo server of rsock with its defaults: `Server()` with its default service, Echo.

A line on its standard input starts a busy Python thread beside it (`inside/spinner.py`). Must never
set an option, because the figures are of what a user gets.
"""

from inside.spinner import obey

from rsock import Server

if __name__ == "__main__":
    with Server() as server:
        print(server.port, flush=True)
        obey()
