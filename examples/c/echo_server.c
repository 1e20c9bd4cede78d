/* An echo server as one writes the first: one client at a time, a message at a time.
 *
 *     echo_server [PORT]
 *
 * An outer loop over the clients, an inner one over the messages of one. A message is what one
 * read gives, up to 99 bytes, taken as a C string: it ends at the first NUL, and a newline at its
 * end is removed. "exit" ends the connection; everything else is sent back. 0 bytes mean that the
 * client has left.
 *
 * examples/echo_like_c.py does exactly the same, and a test holds the two to it. PORT 0, or none,
 * is one of the system's choosing.
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
                return; /* It reads no more; that is its own affair. */
            sent += (size_t)n;
        }
    }
    puts("the client left");
}

int main(int argc, char **argv)
{
    int listener = listening(argc, argv, 5);

    /* A client that leaves before it is answered must not end the server. */
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            die("accept");
        serve(client);
        close(client);
    }
}
