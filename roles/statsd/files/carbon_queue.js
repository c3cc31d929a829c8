// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// Hands what StatsD's backend for Graphite flushes to carbon. A flush that carbon does not take is kept, and sent again before the next
// one, so that of two values for one time the later is stored. A flush is taken when carbon has closed its connection in order after the
// connection was ended here, which it does at the end of what it has read; until then, the data may be in the buffers of the kernel only.
// A carbon that stops closes its connections as well, whether it has read everything or not. Therefore, connections are ended after a
// pause in which carbon has the time to read: what it closes before is sent again. All of that is the same over TLS.
//
// Sources: backends/graphite.js of StatsD 0.9.0; for connections, carbon/protocols.py of carbon 1.1.10.
'use strict';

const { EventEmitter } = require('events');
const fs = require('fs');
const net = require('net');
const tls = require('tls');
const util = require('util');

// Without any progress, in milliseconds.
const LONGEST_SILENCE = 5000;
const LONGEST_PAUSE = 1000;
// Bytes of one connection, unless a single flush is larger.
const LARGEST_DELIVERY = 4 << 20;
// The backend's statistics, the last four lines of a flush, are shorter.
const LONGEST_STATISTICS = 4096;
const STATISTIC_IN_TEXT = /(\.graphiteStats\.(\w+)\S* )(\d+) \d+/g;
const STATISTIC_IN_PICKLE = /(\.graphiteStats\.(\w+)[^']*'\n\(L)\d+(L\nS')(\d+)/g;

function unixTime() {
  return Math.round(Date.now() / 1000);
}

// A pickle begins with its length, in four bytes; no line begins with a control character.
function isPickle(flush) {
  return flush[0] < 0x20;
}

// Over TLS, to a destination with a name, if there is an authority: the path of a file, which may change at any time.
function connect(port, host, serverName, authority) {
  if (!serverName || !authority) {
    return net.createConnection(port, host);
  }
  const checkServerIdentity = (_host, certificate) => tls.checkServerIdentity(serverName, certificate);
  return tls.connect({ port, host, ca: fs.readFileSync(authority), checkServerIdentity, minVersion: 'TLSv1.2' });
}

// Returns a promise of the time at which the data was sent that has been read.
function deliver(data, { port = 2003, host, server_name: serverName }, authority, pause) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host, serverName, authority);
    let isEnded = false;
    let isRead = false;
    let sent;
    socket.setTimeout(LONGEST_SILENCE, () => socket.destroy(new Error(`no answer for ${LONGEST_SILENCE / 1000} s`)));
    socket.on('error', reject);
    socket.on('end', () => {
      isRead = isEnded;
    });
    // Of what has happened before, the promise knows.
    socket.on('close', () => (isRead ? resolve(sent) : reject(new Error('the connection was closed early'))));
    // Over TLS, nothing is sent before the other side is verified.
    socket.on(socket.encrypted ? 'secureConnect' : 'connect', () => {
      sent = unixTime();
      socket.write(data, () => pause().then(() => {
        isEnded = true;
        socket.end();
      }));
    });
    socket.resume();
  });
}

class CarbonQueue {
  constructor() {
    this.flushes = []; // buffers, the oldest first
    this.bytes = 0;
    this.limit = Infinity;
    this.ports = {};
    this.host = undefined;
    this.tls = {};
    this.alternatives = [];
    this.usedAlternative = 0; // 0 is none, 1 the first
    this.sending = null; // a promise
    this.latest = undefined;
    this.longestPause = 0;
    this.ending = new Promise((resolve) => {
      this.end = resolve;
    });
    this.isRefused = false;
    this.isDropping = false;
    this.dropped = 0;
    this.lastDropped = 0;
    this.lastFlush = unixTime();
    this.lastException = 0;
  }

  get length() {
    return this.flushes.length;
  }

  configure(config) {
    const { graphiteHost, graphitePort = 2003, graphitePicklePort = 2004, graphiteAlternatives = [], graphiteTls = {} } = config;
    const { graphiteMaxUnsentBytes = 64 << 20, flushInterval = 10000 } = config;
    this.longestPause = Math.min(LONGEST_PAUSE, flushInterval / 10);
    this.host = graphiteHost;
    this.ports = { text: graphitePort, pickle: graphitePicklePort };
    this.alternatives = graphiteAlternatives;
    this.tls = graphiteTls;
    this.limit = graphiteMaxUnsentBytes;
  }

  // Where a flush can be sent, the destination that has taken the last one first. Pickles have one destination.
  destinations(flush) {
    if (isPickle(flush)) {
      return [{ host: this.host, port: this.ports.pickle }];
    }
    const all = [{ host: this.host, port: this.ports.text, server_name: this.tls.server_name }, ...this.alternatives];
    return all.map((_destination, place) => all[(place + this.usedAlternative) % all.length]);
  }

  async deliverToAny(flushes) {
    const destinations = this.destinations(flushes[0]);
    for (const [place, destination] of destinations.entries()) {
      try {
        const sent = await deliver(Buffer.concat(flushes), destination, this.tls.authority, () => this.pause());
        this.usedAlternative = (this.usedAlternative + place) % destinations.length;
        return sent;
      } catch (error) {
        if (place === destinations.length - 1) {
          throw error;
        }
      }
    }
  }

  // What the backend takes for the result of net.createConnection. It waits for the connection, writes a flush to it, and ends it.
  connection(port, host, timestamp) {
    const connection = new EventEmitter();
    const written = [];
    connection.write = (data) => written.push(Buffer.from(data));
    connection.end = () => {
      this.latest = this.withStatistics(Buffer.concat(written), timestamp);
      this.host = host;
      this.ports[isPickle(this.latest) ? 'pickle' : 'text'] = port;
      this.add(this.latest);
      this.trim(1);
      this.send();
    };
    process.nextTick(() => connection.emit('connect'));
    return connection;
  }

  // The backend takes each flush for sent, and gives its statistics the time of the clock.
  withStatistics(flush, timestamp) {
    const begin = Math.max(flush.length - LONGEST_STATISTICS, 0);
    const known = { last_flush: this.lastFlush, last_exception: this.lastException };
    const value = (name, given) => (name in known ? known[name] : given);
    const given = flush.toString('latin1', begin);
    const end = isPickle(flush)
      ? given.replace(STATISTIC_IN_PICKLE, (_match, before, name, between, number) => before + timestamp + between + value(name, number))
      : given.replace(STATISTIC_IN_TEXT, (_match, before, name, number) => `${before}${value(name, number)} ${timestamp}`);
    const changed = Buffer.concat([flush.slice(0, begin), Buffer.from(end, 'latin1')]);
    if (isPickle(changed)) {
      changed.writeUInt32BE(changed.length - 4, 0);
    }
    return changed;
  }

  add(flush) {
    this.flushes.push(flush);
    this.bytes += flush.length;
  }

  remove(flush) {
    // It may have been dropped while it was sent.
    if (this.flushes[0] === flush) {
      this.flushes.shift();
      this.bytes -= flush.length;
    }
  }

  // Drops the oldest flushes beyond the limit, but for a number of the latest.
  trim(kept) {
    while (this.bytes > this.limit && this.flushes.length > kept) {
      if (!this.isDropping) {
        util.log(`More than ${this.limit} bytes wait for carbon (graphiteMaxUnsentBytes); the oldest flushes are dropped`);
        this.isDropping = true;
      }
      this.dropped += 1;
      this.lastDropped = unixTime();
      this.remove(this.flushes[0]);
    }
  }

  // Returns a promise of the end of the attempt, after which what carbon has not taken is still there.
  send() {
    if (!this.sending) {
      this.sending = this.sendAll().then(() => {
        this.sending = null;
      });
    }
    return this.sending;
  }

  // The oldest flushes that fit into one connection.
  oldest() {
    const [first, ...others] = this.flushes;
    let bytes = first.length;
    const end = others.findIndex((flush) => isPickle(flush) !== isPickle(first) || (bytes += flush.length) > LARGEST_DELIVERY);
    return this.flushes.slice(0, end < 0 ? undefined : end + 1);
  }

  pause() {
    return Promise.race([new Promise((resolve) => setTimeout(resolve, this.longestPause)), this.ending]);
  }

  async sendAll() {
    while (this.flushes.length > 0) {
      const sent = this.oldest();
      try {
        this.lastFlush = await this.deliverToAny(sent);
      } catch (error) {
        this.lastException = unixTime();
        if (!this.isRefused) {
          this.isRefused = true;
          util.log(`Carbon at ${this.host} does not take a flush, which is kept and sent again: ${error.message || error.code}`);
        }
        this.trim(0);
        return;
      }
      sent.forEach((flush) => this.remove(flush));
    }
    if (this.isRefused) {
      this.isRefused = this.isDropping = false;
      util.log(`Carbon at ${this.host} has taken all flushes that were kept`);
    }
  }
}

// One queue for each backend, by its name.
class CarbonQueues {
  constructor() {
    this.queues = new Map();
    this.config = {};
  }

  configure(config) {
    this.config = config;
    this.queues.forEach((queue) => queue.configure(config));
  }

  add(name, unsent) {
    const queue = new CarbonQueue();
    queue.configure(this.config);
    unsent.forEach((flush) => queue.add(Buffer.from(flush, 'latin1')));
    this.queues.set(name, queue);
    return queue;
  }

  // Sends without pauses.
  end() {
    this.queues.forEach((queue) => queue.end());
    return Promise.all([...this.queues.values()].map((queue) => queue.send()));
  }

  // For the next StatsD, as JSON can have it. The latest flush is among it, in case that carbon has stopped at the same time.
  unsent() {
    const texts = (queue) => (queue.length > 0 ? queue.flushes : [queue.latest]).filter(Boolean).map((flush) => flush.toString('latin1'));
    return Object.fromEntries([...this.queues].map(([name, queue]) => [name, texts(queue)]));
  }

  all(key) {
    return [...this.queues.values()].map((queue) => queue[key]);
  }

  sum(key) {
    return this.all(key).reduce((total, value) => total + value, 0);
  }

  // Returns a function that writes what is true in place of what the backend for Graphite knows, which takes each flush for sent.
  trueStatistics(write) {
    const known = { last_flush: Math.min(...this.all('lastFlush')), last_exception: Math.max(...this.all('lastException')) };
    return (error, name, statistic, value) => {
      write(error, name, statistic, name === 'graphite' && this.queues.size > 0 && statistic in known ? known[statistic] : value);
    };
  }

  writeStatistics(write) {
    if (this.queues.size > 0) {
      write(null, 'graphite', 'unsent_flushes', this.sum('length'));
      write(null, 'graphite', 'unsent_bytes', this.sum('bytes'));
      write(null, 'graphite', 'dropped_flushes', this.sum('dropped'));
      write(null, 'graphite', 'last_dropped', Math.max(...this.all('lastDropped')));
    }
  }
}

module.exports = { CarbonQueues };
