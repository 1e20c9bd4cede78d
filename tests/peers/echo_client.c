/* A plain TCP client: sends its standard input, half-closes, writes what comes back.
 *
 *     echo_client HOST PORT < input > output
 *
 * Sends and receives at the same time, so no amount of input can make both sides wait for
 * each other. Exit code 0 when the server closed in good order, 1 on any error.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
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

static int dial(const char *host, const char *port)
{
    struct addrinfo hints, *found, *one;
    int fd = -1;

    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        fprintf(stderr, "echo_client: cannot resolve %s %s\n", host, port);
        exit(1);
    }
    for (one = found; one != NULL; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd < 0)
            continue;
        if (connect(fd, one->ai_addr, one->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        die("connect");
    return fd;
}

static void write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            die("write");
        }
        data += n;
        size -= (size_t)n;
    }
}

int main(int argc, char **argv)
{
    static char out[65536], in[65536];
    size_t held = 0, sent = 0;
    int fd, sending = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: echo_client HOST PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    fd = dial(argv[1], argv[2]);
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        die("fcntl");

    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};

        if (sending && sent == held) {
            ssize_t n = read(STDIN_FILENO, out, sizeof out);
            if (n < 0)
                die("read");
            held = (size_t)n;
            sent = 0;
            if (n == 0) {
                sending = 0;
                if (shutdown(fd, SHUT_WR) < 0)
                    die("shutdown");
            }
        }
        if (sending)
            ready.events |= POLLOUT;
        if (poll(&ready, 1, 10000) <= 0) {
            fprintf(stderr, "echo_client: nothing happened for ten seconds\n");
            return 1;
        }
        if (ready.revents & POLLOUT) {
            ssize_t n = send(fd, out + sent, held - sent, 0);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                die("send");
            if (n > 0)
                sent += (size_t)n;
        }
        if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(fd, in, sizeof in, 0);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                die("recv");
            if (n > 0)
                write_all(STDOUT_FILENO, in, (size_t)n);
            if (n == 0) {
                if (sending) {
                    fprintf(stderr, "echo_client: the server closed before the end\n");
                    return 1;
                }
                close(fd);
                return 0;
            }
        }
    }
}
