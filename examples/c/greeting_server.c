/* A server that greets each client and closes.
 *
 *     greeting_server [PORT]
 *
 * What it sends is the array with the NUL that ends the string: 15 bytes, where the text has 14.
 * The client, in C or in Python, has to know. PORT 0, or none, is one of the system's choosing.
 */
#define _POSIX_C_SOURCE 200809L

#include "listening.h"

int main(int argc, char **argv)
{
    static const char message[] = "Hello, Client!";
    int listener = listening(argc, argv, 5);

    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            die("accept");
        /* So few bytes always fit into the send buffer of a new connection. */
        if (send(client, message, sizeof message, MSG_NOSIGNAL) < 0)
            perror("send");
        close(client);
    }
}
