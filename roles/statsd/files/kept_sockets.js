// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// The sockets of StatsD's servers stay open while systemd restarts StatsD: what arrives meanwhile waits in their buffers. systemd keeps a
// duplicate of each (FileDescriptorStoreMax=, systemd.service(5)), hands them to the next process (sd_listen_fds(3)), and closes them when
// the service is stopped. A socket that the next configuration does not have is closed at the start. Without systemd, or if it keeps
// none, each process opens its own.
'use strict';

const { spawnSync } = require('child_process');
const fs = require('fs');
const path = require('path');
const util = require('util');

const FIRST_DESCRIPTOR = 3;
const PYTHON = '/usr/bin/python3';
const PROGRAM = path.join(__dirname, 'keep_socket.py');

// systemd separates names by colons.
function nameOf(type, port, address) {
  return [type, address || '*', port].join(' ').replace(/:/g, '_');
}

// Of a UDP socket, Node.js has no other way to it, and would log that this one is deprecated.
function descriptorOf(server) {
  const { noDeprecation } = process;
  process.noDeprecation = true;
  const { fd } = server._handle;
  process.noDeprecation = noDeprecation;
  return fd;
}

// Returns why systemd does not do it, or nothing.
function tellSystemd(action, name, ...descriptors) {
  const stdio = ['ignore', 'inherit', 'inherit', ...descriptors];
  const { error, signal, status } = spawnSync(PYTHON, [PROGRAM, action, name], { stdio });
  return status === 0 ? '' : error ? error.message : `${PROGRAM} has ended with ${signal || status}`;
}

// As StatsD does.
function serversOf(config) {
  return config.servers || [config];
}

function nameOfServer({ server, address, address_ipv6: isIpv6, port }) {
  const type = /tcp(\.js)?$/.test(server || '') ? 'tcp' : isIpv6 ? 'udp6' : 'udp4';
  return nameOf(type, port || 8125, address);
}

class KeptSockets {
  constructor() {
    const { LISTEN_PID, LISTEN_FDNAMES = '', NOTIFY_SOCKET } = process.env;
    const names = Number(LISTEN_PID) === process.pid ? LISTEN_FDNAMES.split(':').filter(Boolean) : [];
    this.isPossible = Boolean(NOTIFY_SOCKET);
    this.descriptors = new Map(names.map((name, index) => [name, FIRST_DESCRIPTOR + index]));
    this.kept = new Set();
    for (const variable of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) {
      delete process.env[variable];
    }
  }

  // Whether systemd has a duplicate of the server's socket.
  has(server) {
    return this.kept.has(server);
  }

  // Calls open with what opens the server's socket: that of the last StatsD, or else a port and an address. As with an address, the server
  // listens later.
  open(server, type, port, address, open) {
    const name = nameOf(type, port, address);
    const descriptor = this.descriptors.get(name);
    if (descriptor !== undefined) {
      this.descriptors.delete(name);
      this.kept.add(server);
      process.nextTick(() => open({ fd: descriptor }));
      return;
    }
    if (this.isPossible) {
      server.once('listening', () => this.keep(server, name));
    }
    open(port, address);
  }

  // Before any server is started: a socket that is not needed any more may be in the way of one that is.
  closeOthers(config) {
    const names = serversOf(config).map(nameOfServer);
    for (const [name, descriptor] of this.descriptors) {
      if (!names.includes(name)) {
        const reason = tellSystemd('forget', name);
        if (reason) {
          util.log(`systemd does not forget the socket ${name}: ${reason}`);
        }
        fs.closeSync(descriptor);
        this.descriptors.delete(name);
      }
    }
  }

  // Nothing may read the socket meanwhile: the libuv of Node.js 24.21 makes what a program inherits blocking, which then holds for both, and
  // the program undoes it.
  keep(server, name) {
    const reason = tellSystemd('keep', name, descriptorOf(server));
    if (reason) {
      util.log(`systemd does not keep the socket ${name}: ${reason}`);
    } else {
      this.kept.add(server);
    }
  }

  // In place of the modules dgram and net, for StatsD's servers.
  dgram(dgram) {
    return Object.create(dgram, {
      createSocket: {
        value: (type, ...others) => {
          const socket = dgram.createSocket(type, ...others);
          const { bind } = socket;
          socket.bind = (port, address) => this.open(socket, type, port, address, bind.bind(socket));
          return socket;
        },
      },
    });
  }

  net(net) {
    return Object.create(net, {
      createServer: {
        value: (...values) => {
          const server = net.createServer(...values);
          const { listen } = server;
          server.listen = (port, address) => this.open(server, 'tcp', port, address, listen.bind(server));
          return server;
        },
      },
    });
  }
}

module.exports = { KeptSockets };
