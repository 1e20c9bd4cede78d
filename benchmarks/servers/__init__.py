"""One echo server a peer. Each prints its port and ends with its standard input."""
