"""The echo server of rsock, as it comes: `Server()` with its default service, Echo.

Its standard input may ask for a busy Python thread beside it (`inside/spinner.py`). Must never set
an option: what is measured is what a user gets.
"""

from inside.spinner import obey

from rsock import Server

if __name__ == "__main__":
    with Server() as server:
        print(server.port, flush=True)
        obey()
