#!/bin/sh
# Runs a command in a network of its own, whose loopback delays, loses or reorders packets.
#
#     examples/netem.sh delay 50ms loss 5% -- python -m pytest tests
#
# The words before "--" are those of tc-netem(8). Each packet passes the loopback once, so a delay
# applies to each direction, and a round trip takes two. The command reaches nothing outside, and
# nothing outside reaches it. No privilege is needed where users may make namespaces; the command
# then runs as root of its namespace, which is the caller outside.
#
# QDISC=tbf takes another discipline of tc(8). Exit code 77: it cannot be had here, and the command
# was not run.
set -eu

usage="usage: [QDISC=netem] $0 WORDS-OF-THE-DISCIPLINE -- COMMAND [ARGUMENT...]"

if [ "${1-}" != --inside ]; then
    case " $* " in
    *" -- "?*) ;;
    *) echo "$usage" >&2; exit 2 ;;
    esac
    user=
    [ "$(id -u)" = 0 ] || user=--map-root-user
    if ! unshare $user --net true; then
        echo "$0: no network namespaces here" >&2
        exit 77
    fi
    exec unshare $user --net sh "$0" --inside "$@"
fi

shift
words=
while [ "$1" != -- ]; do
    words="$words $1"
    shift
done
shift
[ $# -gt 0 ] || { echo "$usage" >&2; exit 2; }

# Packets of the usual size, each by itself. The kernel otherwise hands 64 KiB through the loopback
# at once, and a loss would take all of it.
ip link set lo up mtu 1500 gso_max_segs 1 2>/dev/null || ip link set lo up mtu 1500
qdisc=${QDISC-netem}
# The words are separate arguments.
# shellcheck disable=SC2086
if ! tc qdisc add dev lo root "$qdisc" $words; then
    echo "$0: tc refuses '$qdisc$words'. An unknown kind is one that the kernel lacks:" \
        "its module is sch_$qdisc (modprobe sch_$qdisc, as root of the machine)" >&2
    exit 77
fi
exec "$@"
