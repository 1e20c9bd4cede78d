/* A server that greets each client and closes.
 *
 *     greeting_server [PORT]
 *
 * It sends the whole array, including the NUL at the end of the string: 15 bytes for a text of 14.
 * The client, in C or in Python, must expect this. With PORT 0, or without PORT, the system chooses
 * the port.
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
        /* The message always fits into the send buffer of a new connection. */
        if (send(client, message, sizeof message, MSG_NOSIGNAL) < 0)
            perror("send");
        close(client);
    }
}
