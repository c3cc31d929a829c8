// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
'use strict';

const dgram = require('dgram');
const { within } = require('./within');

// In milliseconds. Senders of streams may go on.
const LONGEST_READING = 2000;

// A socket that is connected to its own address takes from no other, and keeps what has arrived before. From here on, senders are refused,
// instead of what they send being lost when the socket is closed. A socket that systemd keeps is the next StatsD's.
function refusePackets(socket) {
  return within(LONGEST_READING, (done) => {
    const { address, port } = socket.address();
    socket.connect(port, address, done);
  });
}

// What receives metrics, and how it ends: whatever is in the buffers of the kernel by then is read.
class Arrivals {
  constructor(keptSockets) {
    this.keptSockets = keptSockets;
    this.number = 0; // changes whenever something has arrived
    this.servers = [];
    this.streams = new Set();
  }

  async readTheRest() {
    const own = this.servers.filter((server) => server instanceof dgram.Socket && !this.keptSockets.has(server));
    await Promise.all(own.map(refusePackets));
    await within(LONGEST_READING, (done) => {
      let seen = -1;
      const look = () => {
        if (seen === this.number) {
          done();
        } else {
          seen = this.number;
          setImmediate(look); // after the next look at all sockets
        }
      };
      setImmediate(look);
    });
    this.servers.forEach((server) => server.close());
    this.streams.forEach((stream) => stream.destroy());
  }
}

module.exports = { Arrivals };
