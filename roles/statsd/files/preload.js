// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// Loaded by node --require before StatsD 0.9.0, whose files stay as they are published. What would end StatsD, or make it store
// something untrue, is stopped at the interfaces between its modules: the servers hand packets to a callback
// (docs/server_interface.md), backends get an event with what is flushed (docs/backend_interface.md), the management server hands
// commands to a callback (lib/mgmt_server.js), and everything is logged by one class (lib/logger.js).
//
//   STATSD_RECEIVE_BUFFER_BYTES   receive buffer of the UDP sockets in bytes; 0, the default, leaves the kernel's
//   STATSD_GAUGE_LIFETIME         seconds for which the value of an idle gauge is the base of deltas; 0 is the default
//   STATSD_TAGS                   1 if carbon and graphite-web know tags; otherwise lines with tags are refused
'use strict';

const dgram = require('dgram');
const Module = require('module');
const net = require('net');
const util = require('util');
const { canonicalText, sanitized } = require('./metric_lines');

const RECEIVE_BUFFER_BYTES = Number(process.env.STATSD_RECEIVE_BUFFER_BYTES || 0);
const GAUGE_LIFETIME = Number(process.env.STATSD_GAUGE_LIFETIME || 0) * 1000;
const TAGS_ENABLED = process.env.STATSD_TAGS === '1';
// StatsD counts it as a bad line, whatever has been refused.
const BAD_LINE = 'refused:|refused';
const LONGEST_LINE = 1 << 16;
const LONGEST_WAIT_FOR_A_LINE = 60 * 1000;
const LARGEST_UNREAD_ANSWER = 16 << 20;
const MOST_REASONS = 100;
const MOST_IDLE_GAUGES = 100000;
// Behind StatsD's own prefix.
const OWN_COUNTERS = ['packets_received', 'metrics_received', 'bad_lines_seen'];

// StatsD 0.9.0 logs with util.log, which Node.js 23 has removed.
if (typeof util.log !== 'function') {
  util.log = (...message) => console.log('%s - %s', new Date().toISOString(), util.format(...message));
}

// A sender of bad lines repeats them: each reason is logged once a day, up to a limit for each kind of reasons.
const logged = new Map();
setInterval(() => logged.clear(), 24 * 3600 * 1000).unref();

function logOnce(kind, reason) {
  if (!logged.has(kind)) {
    logged.set(kind, new Set());
  }
  const reasons = logged.get(kind);
  if (!reasons.has(reason) && reasons.size <= MOST_REASONS) {
    reasons.add(reason);
    util.log(`${kind}: ` + (reasons.size > MOST_REASONS ? `more than ${MOST_REASONS} reasons; no more are logged today` : reason));
  }
}

function refusal(refused) {
  logOnce(`Bad line, refused_${refused.what}`, refused.message);
  return BAD_LINE;
}

// With deleteGauges, StatsD forgets a gauge after the flush that sends it, and would take a later delta for the value. Here, the values
// of idle gauges are kept for a while, the oldest first.
class IdleGauges {
  constructor() {
    this.idle = new Map();
    this.known = {}; // StatsD's own
  }

  // StatsD adds the next delta to what it knows.
  restore(name) {
    const key = settings.keyNameSanitize ? sanitized(name) : name;
    const kept = this.idle.get(key);
    if (kept !== undefined && !(key in this.known)) {
      this.known[key] = kept.value;
    }
  }

  remember(flushed) {
    const now = Date.now();
    this.known = flushed;
    for (const key in flushed) {
      this.idle.delete(key);
      this.idle.set(key, { value: flushed[key], until: now + GAUGE_LIFETIME });
    }
    for (const [key, { until }] of this.idle) {
      if (until > now && this.idle.size <= MOST_IDLE_GAUGES) {
        break;
      }
      this.idle.delete(key);
    }
  }

  // As lib/mgmt_console.js of StatsD deletes gauges: by their names, or by "FOLDER.*".
  forget(patterns) {
    for (const pattern of patterns) {
      this.idle.delete(pattern);
      if (pattern.endsWith('.*')) {
        for (const key of this.idle.keys()) {
          if (key.startsWith(pattern.slice(0, -1))) {
            this.idle.delete(key);
          }
        }
      }
    }
  }
}

const gauges = new IdleGauges();

// What the guard needs to know of StatsD's configuration, with StatsD's own defaults.
const settings = { keyNameSanitize: true, ownCounters: [] };
const lineOptions = {
  namesAreSanitized: true,
  sanitizesNames: false,
  tagsEnabled: TAGS_ENABLED,
  beforeDelta: (name) => gauges.restore(name),
};

function isOfGraphite(backend) {
  return /(^|\/)graphite(\.js)?$/.test(backend);
}

function configure(config) {
  const { keyNameSanitize = true, prefixStats = 'statsd' } = config;
  const backends = config.backends || ['./backends/graphite'];
  settings.keyNameSanitize = keyNameSanitize;
  settings.ownCounters = OWN_COUNTERS.map((word) => `${prefixStats}.${word}`);
  // Where StatsD does not do it at its ports, its backend for Graphite does.
  lineOptions.namesAreSanitized = keyNameSanitize || backends.some(isOfGraphite);
  lineOptions.sanitizesNames = !keyNameSanitize && backends.length > 0 && backends.every(isOfGraphite);
}

// Backends that repeat packets need buffers, and StatsD would decode them once more.
let packetsAreRepeated = false;

function guarded(handlePacket) {
  return (packet, sender) => {
    const text = packet.toString();
    const canonical = canonicalText(text, refusal, lineOptions);
    if (!packetsAreRepeated) {
      handlePacket(canonical, sender);
    } else {
      handlePacket(Buffer.isBuffer(packet) && canonical === text ? packet : Buffer.from(canonical), sender);
    }
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

// StatsD keeps the beginning of a line until its end arrives, and decodes what arrives as seven bits.
function guardStream(stream, handlePacket) {
  let unfinished = 0;
  const refuse = (reason) => {
    logOnce('Bad line, refused_line', reason);
    handlePacket(Buffer.from(BAD_LINE), { address: stream.remoteAddress, port: stream.remotePort, size: 0 });
  };
  stream.setEncoding('utf8');
  stream.on('data', (text) => {
    const newline = text.lastIndexOf('\n');
    unfinished = newline < 0 ? unfinished + text.length : text.length - newline - 1;
    if (unfinished > LONGEST_LINE) {
      unfinished = 0;
      refuse(`a connection is closed that has sent ${LONGEST_LINE} characters without a newline`);
      stream.destroy();
    }
  });
  stream.setTimeout(LONGEST_WAIT_FOR_A_LINE, () => {
    if (unfinished > 0) {
      unfinished = 0;
      refuse(`a connection is closed that has left a line unfinished for ${LONGEST_WAIT_FOR_A_LINE / 1000} s`);
      stream.destroy();
    }
  });
  // Also of a connection that is reset.
  stream.on('close', () => {
    if (unfinished > 0) {
      refuse('a connection ended within a line; end each line with a newline');
    }
  });
  stream.on('error', (error) => util.log('Connection lost: ' + error.message));
}

function guardedServer(server) {
  return Object.create(server, {
    start: {
      value(config, handlePacket) {
        const started = server.start.call(this, config, guarded(handlePacket));
        if (this.server instanceof net.Server) {
          this.server.on('connection', (stream) => guardStream(stream, handlePacket));
        } else if (this.server instanceof dgram.Socket && RECEIVE_BUFFER_BYTES > 0) {
          this.server.once('listening', () => askForReceiveBuffer(this.server));
        }
        return started;
      },
    },
  });
}

// Sums of large values are infinite, and what the management interface has deleted is not a number when it is added to. Graphite
// would keep the former in every archive, and answer queries with invalid JSON.
function deleteNonFinite(values, path = '') {
  for (const name in values) {
    if (typeof values[name] === 'object' && values[name] !== null) {
      deleteNonFinite(values[name], `${path}${name}.`);
    } else if (!Number.isFinite(values[name])) {
      logOnce('Not sent', `${JSON.stringify(path + name)} is ${values[name]}`);
      delete values[name];
    }
  }
}

function deleteNonFiniteCounters(counters, rates) {
  for (const name in counters) {
    if (Number.isNaN(counters[name])) {
      counters[name] = rates[name] = 0; // StatsD goes on to add to those of its own
    } else if (!Number.isFinite(counters[name]) || !Number.isFinite(rates[name])) {
      logOnce('Not sent', `${JSON.stringify(name)} is ${rates[name]} a second`);
      delete counters[name];
    }
  }
}

// StatsD does not delete an idle counter that has one of OWN_COUNTERS anywhere in its name.
function deleteIdleCounters(counters) {
  for (const name in counters) {
    if (counters[name] === 0 && OWN_COUNTERS.some((word) => name.includes(word)) && !settings.ownCounters.includes(name)) {
      delete counters[name];
    }
  }
}

function guardedBackend(backend) {
  return Object.create(backend, {
    init: {
      value(startupTime, config, events, ...others) {
        // Before those of all backends, and once.
        if (events.listenerCount('flush') === 0) {
          events.on('flush', (timestamp, metrics) => {
            deleteNonFiniteCounters(metrics.counters, metrics.counter_rates);
            deleteNonFinite(metrics.gauges);
            deleteNonFinite(metrics.timer_data);
            if (config.deleteCounters) {
              deleteIdleCounters(metrics.counters);
            }
            if (config.deleteGauges) {
              gauges.remember(metrics.gauges);
            }
          });
        }
        const initialized = backend.init(startupTime, config, events, ...others);
        packetsAreRepeated = events.listenerCount('packet') > 0;
        return initialized;
      },
    },
  });
}

// A client that asks again without reading the answers would fill the memory.
function guardedManagement(management) {
  return Object.create(management, {
    start: {
      value(config, handleCommand, handleError) {
        const handle = (command, parameters, stream) => {
          if (command === 'delgauges') {
            gauges.forget(parameters);
          }
          if (stream.writableLength > LARGEST_UNREAD_ANSWER) {
            stream.destroy();
          } else {
            handleCommand(command, parameters, stream);
          }
        };
        return management.start(config, handle, handleError);
      },
    },
  });
}

function observedConfiguration(configuration) {
  return Object.create(configuration, {
    configFile: {
      value(file, handleConfiguration) {
        configuration.configFile(file, (config) => {
          configure(config);
          handleConfiguration(config);
        });
      },
    },
  });
}

// The reason of each bad line has been logged.
function guardedLogger(logger) {
  class Logger extends logger.Logger {
    log(message, ...others) {
      if (!String(message).startsWith('Bad line: ,refused in msg')) {
        super.log(message, ...others);
      }
    }
  }
  return { ...logger, Logger };
}

const load = Module._load;
Module._load = function (request, parent, isMain) {
  const loaded = load.call(this, request, parent, isMain);
  if (parent !== process.mainModule || !loaded || Module.builtinModules.includes(request)) {
    return loaded;
  }
  switch (request) {
    case './lib/config':
      return observedConfiguration(loaded);
    case './lib/mgmt_server':
      return guardedManagement(loaded);
    case './lib/logger':
      return guardedLogger(loaded);
  }
  if (request.startsWith('./lib/')) {
    return loaded;
  }
  if (typeof loaded.start === 'function') {
    return guardedServer(loaded);
  }
  return typeof loaded.init === 'function' ? guardedBackend(loaded) : loaded;
};
