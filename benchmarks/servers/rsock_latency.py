"""The echo server of rsock with a fault: what it sends goes on a millisecond later.

Must never set another option, so that the difference to `rsock_echo.py` is the fault's.
"""

from inside.spinner import obey

from rsock import Server
from rsock.faults import Latency

if __name__ == "__main__":
    with Server(faults=[Latency(0.001)]) as server:
        print(server.port, flush=True)
        obey()
