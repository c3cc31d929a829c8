// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// Loaded by node --require before StatsD, whose files stay as they are published. StatsD keeps metrics in plain objects, so
// that a metric named "constructor" finds a function where it expects a number, and the process ends; so does a TCP
// connection that is reset. Both are caught at the one interface through which every server hands packets to StatsD
// (docs/server_interface.md of StatsD 0.9.0: start(config, callback)).
'use strict';

const dgram = require('dgram');
const Module = require('module');
const net = require('net');
const util = require('util');

const RECEIVE_BUFFER_BYTES = Number(process.env.STATSD_RECEIVE_BUFFER_BYTES || 0);

// StatsD 0.9.0 logs with util.log, which Node.js 23 has removed.
if (typeof util.log !== 'function') {
  util.log = (...message) => console.log('%s - %s', new Date().toISOString(), util.format(...message));
}

// As StatsD does it when keyNameSanitize is on; off, the name stays as it is. Both are looked at.
function sanitized(name) {
  return name.replace(/\s+/g, '_').replace(/\//g, '-').replace(/[^a-zA-Z_\-0-9.;=]/g, '');
}

function isSafe(line) {
  const name = line.split(':', 1)[0].split('|#', 1)[0];
  return !(name in Object.prototype || sanitized(name) in Object.prototype);
}

// A line that StatsD itself calls bad, so that it is logged and counted (statsd.bad_lines_seen) as any other.
function disarmed(line) {
  return 'refused_name:' + JSON.stringify(line.slice(0, 80)).replace(/[|:]/g, '_') + '|refused';
}

function guarded(handlePacket) {
  return (packet, sender) => {
    const text = packet.toString();
    const lines = text.split('\n');
    const safe = lines.every(isSafe);
    handlePacket(safe ? packet : lines.map((line) => (isSafe(line) ? line : disarmed(line))).join('\n'), sender);
  };
}

function askForReceiveBuffer(socket) {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
  } catch (error) {
    util.log('Cannot set the receive buffer: ' + error.message);
  }
  // The kernel reports twice the size, for its own bookkeeping.
  const got = socket.getRecvBufferSize() / 2;
  util.log(`UDP receive buffer: ${got} bytes` + (got < RECEIVE_BUFFER_BYTES ? `, ${RECEIVE_BUFFER_BYTES} wanted; raise net.core.rmem_max` : ''));
}

function guardedServer(server) {
  return Object.create(server, {
    start: {
      value(config, handlePacket) {
        const started = server.start.call(this, config, guarded(handlePacket));
        if (this.server instanceof net.Server) {
          this.server.on('connection', (stream) => {
            stream.on('error', (error) => util.log('Connection lost: ' + error.message));
          });
        } else if (this.server instanceof dgram.Socket && RECEIVE_BUFFER_BYTES > 0) {
          this.server.once('listening', () => askForReceiveBuffer(this.server));
        }
        return started;
      },
    },
  });
}

const load = Module._load;
Module._load = function (request, parent, isMain) {
  const loaded = load.call(this, request, parent, isMain);
  const isServer = parent === process.mainModule && !request.startsWith('./lib/') && loaded && typeof loaded.start === 'function';
  return isServer ? guardedServer(loaded) : loaded;
};
