// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
'use strict';

const net = require('net');

const MOST_KNOWN = 10000;

// The bytes of an address, 4 or 16. A socket for both families gives an IPv4 address as ::ffff:192.0.2.7.
function bytesOf(text) {
  const address = text.replace(/%.*$/, '').replace(/^::ffff:(?=[\d.]+$)/i, '');
  if (net.isIPv4(address)) {
    return address.split('.').map(Number);
  }
  if (!net.isIPv6(address)) {
    return [];
  }
  const [head, tail] = address.split('::').map((part) => part.split(':').filter(Boolean).map((word) => parseInt(word, 16)));
  const words = tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill(0), ...tail];
  return words.map((word) => [word >> 8, word & 255]).reduce((all, pair) => all.concat(pair), []);
}

// net.BlockList does this from Node.js 15 on; the oldest releases have 12.
class Network {
  // As ADDRESS/PREFIX.
  constructor(text) {
    const [address, prefix] = text.split('/');
    this.bytes = bytesOf(address);
    this.prefix = Number(prefix);
  }

  has(bytes) {
    if (bytes.length === 0 || bytes.length !== this.bytes.length) {
      return false;
    }
    const whole = this.prefix >> 3;
    const rest = this.prefix & 7;
    return bytes.every((byte, position) => {
      const mask = position < whole ? 255 : position === whole ? 255 << (8 - rest) & 255 : 0;
      return (byte & mask) === (this.bytes[position] & mask);
    });
  }
}

// Who may send: the networks, and programs on the host over loopback. Everybody, if there are no networks.
class Senders {
  constructor(networks) {
    this.networks = [...networks, '127.0.0.0/8', '::1/128'].map((network) => new Network(network));
    this.areAll = networks.length === 0;
    this.known = new Map();
  }

  allow(address = '') {
    if (this.areAll) {
      return true;
    }
    if (!this.known.has(address)) {
      if (this.known.size >= MOST_KNOWN) {
        this.known.clear();
      }
      const bytes = bytesOf(address);
      this.known.set(address, this.networks.some((network) => network.has(bytes)));
    }
    return this.known.get(address);
  }
}

module.exports = { Senders };
