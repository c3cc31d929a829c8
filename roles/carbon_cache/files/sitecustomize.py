# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Lets carbon store every point that it can: between those that it cannot, and when it ends.

A point that carbon cannot store is left out, and no other. The point is logged, and counted in carbon.agents.*.invalidPoints.

Carbon alone decodes a line where it catches no errors, so that a byte that is not UTF-8 or an infinite time ends the connection, as
does a line that is too long. The lines after it are then lost. Of a datagram, everything after 8192 bytes is lost. An infinite value
is stored, and graphite-web answers with invalid JSON. A time that is too large for a whisper file loses the other points of its series
that wait to be written. An object that carbon does not expect in a pickle ends the connection as well.

At its stop, carbon alone drops what has arrived at its ports and connections and is not read yet. Its writer may be asleep, and ends
without writing what arrives meanwhile. Here, carbon ends its own side of each connection, and reads until the sender ends the other one. A
sender that does not look, such as carbon-c-relay, is disconnected with a reset, because its next write would succeed otherwise.

Python loads this file at the start of carbon-cache, whose unit has its directory in PYTHONPATH. Carbon starts without it as well.

Source: protocols.py, instrumentation.py and writer.py of carbon 1.1.4 to 1.1.10. Installed by the role
metricstack.graphite.carbon_cache, which overwrites manual changes.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time

from twisted.plugins.carbon_cache_plugin import CarbonCacheServiceMaker

# As Twisted's, in bytes.
LONGEST_LINE = 16384
# Twisted cuts at 8192 bytes.
LARGEST_DATAGRAM = 65536
LONGEST_SHOWN = 200
# In seconds. At its stop, carbon reads until nothing has arrived for QUIET, and for no longer than LONGEST_STOP.
QUIET = 0.25
LONGEST_STOP = 5
MOST_LOGGED_IN_A_MINUTE = 10


class Refusals:
    """Counts what is refused, and logs so much of it that a sender of nothing else does not fill the journal."""

    def __init__(self, log, increment):
        self._log, self._increment = log, increment
        self._minute = -math.inf
        self._logged = 0

    def add(self, sender, reason, refused):
        self._increment("invalidPoints")
        if time.monotonic() - self._minute >= 60:
            self._minute = time.monotonic()
            self._logged = 0
        self._logged += 1
        if self._logged <= MOST_LOGGED_IN_A_MINUTE:
            shown = repr(refused[:LONGEST_SHOWN]) + ("..." if len(refused) > LONGEST_SHOWN else "")
            self._log(f"Not stored: {shown} from {sender}: {reason}")
        elif self._logged == MOST_LOGGED_IN_A_MINUTE + 1:
            self._log("More is not stored and not logged for a minute; carbon.agents.*.invalidPoints counts it")


def _representation(item):
    try:
        return repr(item)
    except ValueError:  # Python does not write numbers of more than 4300 digits
        return "an item with a number that is too long"


def _guard():
    # Carbon chooses Twisted's reactor before these may be imported.
    from carbon import instrumentation, log, service  # noqa: F401  # the last loads the others in an order that works
    from carbon.protocols import MetricDatagramReceiver, MetricLineReceiver, MetricPickleReceiver, MetricReceiver

    refusals = Refusals(log.listener, instrumentation.increment)
    take, lose_connection = MetricReceiver.metricReceived, MetricReceiver.connectionLost
    record, record_one, counts = instrumentation.recordMetrics, instrumentation.cache_record, instrumentation.stats

    def metric_received(receiver, name, point):
        when, value = point
        if math.isinf(value):
            refusals.add(receiver.peerName, "the value is infinite", f"{name} {value} {when}")
        # What is between -2 and -1 means now. Carbon leaves out what is not a number, by which collectd says that it has no value.
        elif -2 < when < 1 << 32 or math.isnan(value):
            take(receiver, name, point)
        else:
            refusals.add(receiver.peerName, "the time is no Unix time in seconds", f"{name} {value} {when}")

    def line_received(receiver, line):
        if not line.strip():
            return
        reason = f"the line is longer than {LONGEST_LINE} bytes" if len(line) > LONGEST_LINE else ""
        if not reason:
            try:
                name, value, when = line.decode().split()
                point = float(when), float(value)
            except UnicodeDecodeError:
                reason = "the line is not UTF-8"
            except ValueError:
                reason = "the line is not a name, a number and a Unix time in seconds"
        if reason:
            refusals.add(receiver.peerName, reason, line)
        else:
            receiver.metricReceived(name, point)

    def data_received(receiver, data):
        *lines, unfinished = (receiver.unfinished + data).split(b"\n")
        # As much of a line that is too long as it takes to refuse it at its end.
        receiver.unfinished = unfinished[: LONGEST_LINE + 1]
        for line in lines:
            receiver.lineReceived(line)

    def connection_lost(receiver, reason):
        if receiver.unfinished.strip():
            refusals.add(receiver.peerName, "the connection ended within the line", receiver.unfinished)
        lose_connection(receiver, reason)

    def start_protocol(receiver):
        receiver.transport.maxPacketSize = LARGEST_DATAGRAM

    def datagram_received(receiver, data, sender):
        receiver.peerName = f"{sender[0]}:{sender[1]}"
        for line in data.split(b"\n"):
            line_received(receiver, line)

    def string_received(receiver, data):
        try:
            items = list(receiver.unpickler.loads(data))
        except Exception as error:  # what a pickle asks for may raise anything
            refusals.add(receiver.peerName, f"no list can be read from the pickle: {error}", data)
            return
        for item in items:
            try:
                name, (when, value) = item
                if isinstance(name, bytes):
                    name = name.decode()
                if not isinstance(name, str):
                    raise TypeError
                point = float(when), float(value)
            except (OverflowError, TypeError, ValueError):
                refusals.add(receiver.peerName, "the item is not a name with a Unix time in seconds and a number", _representation(item))
            else:
                receiver.metricReceived(name, point)

    def length_limit_exceeded(receiver, length):
        reason = f"a pickle of {length} bytes; PICKLE_RECEIVER_MAX_LENGTH is {receiver.MAX_LENGTH}, and lines have a port of their own"
        refusals.add(receiver.peerName, reason, b"")
        receiver.transport.loseConnection()

    def record_metrics():
        invalid = counts.get("invalidPoints", 0)
        record()
        record_one("invalidPoints", invalid)

    replacements = (
        *_for_the_stop(),
        (MetricReceiver, "metricReceived", metric_received),
        (MetricLineReceiver, "dataReceived", data_received),
        (MetricLineReceiver, "lineReceived", line_received),
        (MetricLineReceiver, "connectionLost", connection_lost),
        (MetricDatagramReceiver, "startProtocol", start_protocol),
        (MetricDatagramReceiver, "datagramReceived", datagram_received),
        (MetricPickleReceiver, "stringReceived", string_received),
        (MetricPickleReceiver, "lengthLimitExceeded", length_limit_exceeded),
        (instrumentation, "recordMetrics", record_metrics),
    )
    for owner, name, _replacement in replacements:
        getattr(owner, name)
    MetricLineReceiver.unfinished = b""
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)


def _for_the_stop():
    """Return what is replaced so that nothing is lost that has arrived."""
    from carbon import instrumentation, log, protocols, state, writer
    from carbon.cache import MetricCache
    from twisted.internet import defer, error, reactor, task
    from twisted.python.failure import Failure

    stop_service, write_forever, counts = protocols.CarbonService.stopService, writer.writeForever, instrumentation.stats

    def stop(service):
        # What the kernel has taken: connections, each with its first lines, or datagrams.
        service._port.doRead()
        stop_service(service)
        receivers = [receiver for receiver in state.connectedMetricReceiverProtocols if hasattr(receiver.transport, "loseWriteConnection")]
        for receiver in receivers:
            receiver.transport.loseWriteConnection()
        return _until_quiet(receivers) if receivers else None

    @defer.inlineCallbacks
    def _until_quiet(receivers):
        received, quiet = None, 0.0
        end = time.monotonic() + LONGEST_STOP
        while quiet < QUIET and time.monotonic() < end and state.connectedMetricReceiverProtocols.intersection(receivers):
            yield task.deferLater(reactor, QUIET / 5, lambda: None)
            # Receivers are paused while the cache is full, and go on when the writer has made room.
            if state.metricReceiversPaused:
                end = time.monotonic() + LONGEST_STOP
            quiet = 0.0 if received != counts.get("metricsReceived") else quiet + QUIET / 5
            received = counts.get("metricsReceived")
        for receiver in state.connectedMetricReceiverProtocols.intersection(receivers):
            _reset(receiver)

    def _reset(receiver):
        connection, data = receiver.transport.getHandle(), []
        receiver.transport.stopReading()
        # Until nothing is left, and no longer: what arrives between the last read and the reset is lost.
        with contextlib.suppress(OSError):
            while data[-1:] != [b""]:
                data.append(connection.recv(1 << 20))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        receiver.dataReceived(b"".join(data))
        receiver.transport.connectionLost(Failure(error.ConnectionAborted()))

    def write():
        write_forever()
        cache, left = MetricCache(), None
        # An error ends the writer's loop after it has taken one series from the cache.
        while cache and len(cache) != left:
            left = len(cache)
            try:
                writer.writeCachedDataPoints()
            except Exception:
                log.err()

    return (protocols.CarbonService, "stopService", stop), (writer, "writeForever", write)


def _guarded(make_service):
    def make(maker, options):
        from twisted.python import log

        try:
            _guard()
        except (AttributeError, ImportError) as error:
            log.msg(f"This carbon is not the one that sitecustomize.py knows, and runs without it: {error}")
        return make_service(maker, options)

    return make


CarbonCacheServiceMaker.makeService = _guarded(CarbonCacheServiceMaker.makeService)
