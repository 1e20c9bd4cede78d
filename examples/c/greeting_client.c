/* A client that prints the greeting of a server.
 *
 *     greeting_client HOST PORT
 *
 * HOST is a numeric address such as 127.0.0.1. The client reads to the end of the stream: a stream
 * has no message boundaries, so the greeting may arrive in parts.
 */
#define _POSIX_C_SOURCE 200809L

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

int main(int argc, char **argv)
{
    char message[100];
    size_t held = 0;
    ssize_t got;
    struct sockaddr_in address;
    int server;

    if (argc != 3) {
        fprintf(stderr, "usage: greeting_client HOST PORT\n");
        return 2;
    }
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "greeting_client: %s is no address\n", argv[1]);
        return 2;
    }
    server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0)
        die("socket");
    if (connect(server, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    while (held < sizeof message - 1) {
        got = read(server, message + held, sizeof message - 1 - held);
        if (got < 0)
            die("read");
        if (got == 0)
            break;
        held += (size_t)got;
    }
    message[held] = '\0';
    printf("%s\n", message);
    close(server);
    return 0;
}
