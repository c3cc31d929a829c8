#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
#
#   load.sh start THREADS CONNECTIONS SECONDS URL   loads a server with wrk, in a service of its own; prints the time
#   load.sh watch                                   keeps the load alive for ten seconds; prints the state of the service, last at the end
#   load.sh report                                  prints and removes the report of wrk
#
# The load ends by itself: after its time, or when it has not been watched for a while, so that an interrupted playbook leaves no load
# behind.
set -eu
unit=go-benchmark-load.service
watched=/run/go-benchmark.watched
report=/run/go-benchmark.txt

case $1 in
  start)
    systemctl stop $unit 2> /dev/null || true # there need not be one
    touch $watched
    # shellcheck disable=SC2016 # expanded by the shell of the service
    systemd-run --quiet --collect --unit=$unit --property=DynamicUser=true --property=LimitNOFILE=65536 \
      --property=RuntimeMaxSec=$(($4 + 60)) --property=StandardOutput=truncate:$report --property=StandardError=inherit \
      /bin/sh -c '
        watched=$1
        shift
        "$@" &
        load=$!
        while kill -0 $load 2> /dev/null; do
          [ -n "$(find "$watched" -newermt "-20 seconds")" ] || kill $load
          sleep 1
        done
        wait $load' sh $watched wrk --latency --threads "$2" --connections "$3" --duration "$4s" "$5"
    date +%s
    ;;
  watch)
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      touch $watched
      systemctl is-active $unit || break
      sleep 1
    done
    ;;
  report)
    cat $report
    rm -f $report $watched
    ;;
esac
