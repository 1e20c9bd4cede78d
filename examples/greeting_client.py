"""A client that prints the greeting of a server written in C or in Python.

Run `python examples/greeting_client.py 127.0.0.1 8080`. It takes the steps of a client one by one:
create, connect, receive, close.
"""

import argparse

from rsock import Client

arguments = argparse.ArgumentParser()
arguments.add_argument("host")
arguments.add_argument("port", type=int)
given = arguments.parse_args()

client = Client(timeout=10.0)
client.connect((given.host, given.port))
greeting = b""
while part := client.recv(100):  # A stream has no message boundaries: it may arrive in parts.
    greeting += part
client.close()
print(greeting.partition(b"\0")[0].decode())  # The C server sends the final NUL too.
