/* The first steps of both servers: create a socket, bind it, listen. */
#ifndef LISTENING_H
#define LISTENING_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Return a socket that listens on the port of the first argument, and print the port. */
static int listening(int argc, char **argv, int backlog)
{
    int listener, on = 1;
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    /* A program that reads this output through a pipe needs each line as soon as it is printed. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0)
        die("socket");
    /* The port can be bound again while old connections of it are in TIME-WAIT. */
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        die("setsockopt");
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    /* INADDR_ANY would be every address of this machine; the loopback accepts local clients only. */
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(argc > 1 ? (unsigned short)atoi(argv[1]) : 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(listener, backlog) < 0)
        die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("getsockname");
    printf("listening on port %d\n", ntohs(address.sin_port));
    return listener;
}

#endif
