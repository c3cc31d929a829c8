// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// clients.js PREFIX CLIENT: sends the same metrics as clients.py.
'use strict';

const BATCH = 1000;

Math.random = () => 0.3; // what is sampled at a rate of 0.5 is sent, each time

function repeat(number, call) {
  for (let done = 0; done < number; done++) {
    call();
  }
}

// What these clients call by the same names.
function send(client) {
  client.increment('requests', 5);
  client.decrement('requests', 2);
  client.gauge('queue', 12.5);
  client.gauge('below', 0);
  client.gauge('below', -7);
  [10, 20, 60].forEach((milliseconds) => client.timing('latency', milliseconds));
  ['a', 'b', 'a'].forEach((user) => client.set('users', user));
}

function sendChanges(client) {
  client.gauge('level', 10);
  client.gaugeDelta('level', 5);
  client.gaugeDelta('level', -3);
}

function hotShots(prefix, options) {
  const StatsD = require('hot-shots');
  const client = new StatsD({ prefix, ...options });
  send(client);
  sendChanges(client);
  repeat(10, () => client.increment('sampled', 1, 0.5));
  client.increment('tagged', 4, ['env:prod', 'region:eu']);
  client.close();
  const batch = new StatsD({ prefix, maxBufferSize: 60000, ...options });
  repeat(BATCH, () => batch.increment('batch'));
  batch.close();
}

const clients = {
  'hot-shots': (prefix) => {
    hotShots(prefix, {});
    const StatsD = require('hot-shots');
    const datadog = new StatsD({ prefix, datadog: true, containerID: 'abc', cardinality: 'low' });
    datadog.increment('in_container');
    // StatsD does not know these; they are bad lines.
    datadog.histogram('refused', 1);
    datadog.distribution('refused', 1);
    datadog.event('title', 'text');
    datadog.check('refused', datadog.CHECKS.OK);
    datadog.gauge('refused', 1, { timestamp: new Date() });
    datadog.increment('refused', 1, ['prod']);
    datadog.close();
  },
  'hot-shots-tcp': (prefix) => hotShots(prefix, { protocol: 'tcp', host: '127.0.0.1' }),
  'hot-shots-telegraf': (prefix) => hotShots(prefix, { telegraf: true }),
  'node-statsd': (prefix) => {
    const { StatsD } = require('node-statsd');
    // By default, it looks "localhost" up for each packet, and packets overtake each other.
    const client = new StatsD({ prefix: `${prefix}.`, host: '127.0.0.1' });
    send(client);
    repeat(10, () => client.increment('sampled', 1, 0.5));
    client.increment('tagged', 4, ['env:prod', 'region:eu']);
    client.histogram('refused', 1);
    setTimeout(() => client.close(), 500);
  },
  'statsd-client': (prefix, options = {}) => {
    const Client = require('statsd-client');
    const client = new Client({ prefix, host: '127.0.0.1', ...options });
    send(client);
    sendChanges(client);
    client.increment('tagged', 4, { env: 'prod', region: 'eu' });
    client.histogram('refused', 1);
    client.distribution('refused', 1);
    const batch = new Client({ prefix, host: '127.0.0.1', maxBufferSize: 60000, ...options });
    repeat(BATCH, () => batch.increment('batch'));
    // It sends once a second, and what it is closed with may be lost, or sent twice.
    setTimeout(() => process.exit(), 3000);
  },
  'statsd-client-tcp': (prefix) => clients['statsd-client'](prefix, { tcp: true }),
};

const [prefix, client] = process.argv.slice(2);
clients[client](prefix);
