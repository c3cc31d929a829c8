#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
# stop.sh PROCESS   stops carbon-c-relay without the loss of what senders write meanwhile
#
# When carbon-c-relay has closed its ports, it reads connections for half a second only, and leaves them open until it has delivered what
# waits. Senders that wait for no answer, such as other relays, go on meanwhile, and lose seconds of points. So reset the connections
# within the half second: the relay still reads what has arrived, and senders see an error and keep the rest. Lost is what their kernels
# have taken and not sent yet, 40 ms of points at most, and what the relay does not read in time on a busy host. It needs CAP_NET_ADMIN and
# a kernel with CONFIG_INET_DIAG_DESTROY, which those of Debian and Ubuntu have; without them, nothing is reset.
process=$1

sockets() {
  ss --no-header --listening --tcp --numeric --processes | grep "[(,]pid=$process,"
}

relay_side=$(sockets | awk '{
  everywhere = sub(/^(0\.0\.0\.0|\*|\[::\]):/, "", $4)
  printf "%s%s%s", separator, everywhere ? "sport = :" : "src ", $4
  separator = " or "
}')
kill -TERM "$process"
while sockets > /dev/null; do
  sleep 0.02
done
# The kernel still accepts connections on a port that the relay has closed, as long as one of its threads waits for them.
for state in listening established; do
  [ -z "$relay_side" ] || ss --kill --no-header --tcp state "$state" "( $relay_side )" > /dev/null
done
# systemd would send the signal again, which ends the relay at once.
while kill -0 "$process" 2> /dev/null; do
  sleep 0.1
done
