/* A simple echo server: one client at a time, one message at a time.
 *
 *     echo_server [PORT]
 *
 * An outer loop accepts the clients, an inner loop reads the messages of one client. A message is
 * the result of one read, up to 99 bytes, treated as a C string: it ends at the first NUL, and a
 * newline at its end is removed. "exit" ends the connection; everything else is sent back. A result
 * of 0 bytes means that the client has closed its connection.
 *
 * examples/echo_like_c.py does exactly the same, which a test checks. With PORT 0, or without PORT,
 * the system chooses the port.
 */
#define _POSIX_C_SOURCE 200809L

#include "listening.h"

#include <signal.h>

static void serve(int client)
{
    char message[100];
    ssize_t got;

    while ((got = read(client, message, sizeof message - 1)) > 0) {
        size_t length, sent = 0;

        message[got] = '\0';
        length = strlen(message);
        if (length > 0 && message[length - 1] == '\n')
            message[--length] = '\0';
        if (strcmp(message, "exit") == 0) {
            puts("the client asked to close");
            return;
        }
        while (sent < length) {
            ssize_t n = write(client, message + sent, length - sent);
            if (n < 0)
                return; /* The client no longer reads. */
            sent += (size_t)n;
        }
    }
    puts("the client left");
}

int main(int argc, char **argv)
{
    int listener = listening(argc, argv, 5);

    /* A client that closes before the answer is sent must not end the server. */
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            die("accept");
        serve(client);
        close(client);
    }
}
