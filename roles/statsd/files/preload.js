// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// Loaded by node --require before StatsD 0.9.0, whose files stay as they are published. What would end StatsD, or make it store
// something untrue, is stopped at the interfaces between its modules: the servers hand packets to a callback
// (docs/server_interface.md), backends get an event with what is flushed (docs/backend_interface.md), the management server hands
// commands to a callback (lib/mgmt_server.js), and everything is logged by one class (lib/logger.js). Likewise, StatsD keeps what
// carbon does not take (carbon_queue.js), ends without losing what it holds (arrivals.js, flushes.js, state_file.js), and restarts without
// closing its sockets (kept_sockets.js).
//
//   STATSD_RECEIVE_BUFFER_BYTES   receive buffer of the UDP sockets in bytes; 0, the default, leaves the kernel's
//   STATSD_GAUGE_LIFETIME         seconds for which the value of an idle gauge is the base of deltas; 0 is the default
//   STATSD_ALLOWED_SENDERS        networks as ADDRESS/PREFIX, separated by white space, from which metrics are taken; by default, all
//   STATSD_TAGS                   1 if carbon and graphite-web know tags; otherwise lines with tags are refused
//   STATE_DIRECTORY               where a StatsD that ends leaves to the next what it holds, as systemd sets it; by default, nowhere
//   NOTIFY_SOCKET, LISTEN_FDNAMES by which systemd keeps sockets, as it sets them; by default, none are kept
'use strict';

const dgram = require('dgram');
const Module = require('module');
const net = require('net');
const path = require('path');
const util = require('util');
const { Arrivals } = require('./arrivals');
const { CarbonQueues } = require('./carbon_queue');
const { FLUSH, Flushes } = require('./flushes');
const { IdleGauges } = require('./idle_gauges');
const { KeptSockets } = require('./kept_sockets');
const { canonicalText } = require('./metric_lines');
const { Senders } = require('./senders');
const { within } = require('./within');

const RECEIVE_BUFFER_BYTES = Number(process.env.STATSD_RECEIVE_BUFFER_BYTES || 0);
const GAUGE_LIFETIME = Number(process.env.STATSD_GAUGE_LIFETIME || 0) * 1000;
const ALLOWED_SENDERS = (process.env.STATSD_ALLOWED_SENDERS || '').split(/\s+/).filter(Boolean);
const TAGS_ENABLED = process.env.STATSD_TAGS === '1';
// StatsD counts it as a bad line, whatever has been refused.
const BAD_LINE = 'refused:|refused';
const LONGEST_LINE = 1 << 16;
const LONGEST_WAIT_FOR_A_LINE = 60 * 1000;
const LARGEST_UNREAD_ANSWER = 16 << 20;
const MOST_REASONS = 100;
// At the end, in milliseconds: to send what is flushed, and for each backend that has something to end. With what arrivals.js takes,
// the sum is less than TimeoutStopSec= of the unit.
const LONGEST_SENDING = 10000;
const LONGEST_STOP_OF_A_BACKEND = 1000;
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

const gauges = new IdleGauges(GAUGE_LIFETIME);
const flushes = new Flushes();
const queues = new CarbonQueues();
const keptSockets = new KeptSockets();
const arrivals = new Arrivals(keptSockets);
const senders = new Senders(ALLOWED_SENDERS);

// What the guard needs to know of StatsD's configuration, with StatsD's own defaults.
const settings = { config: {}, ownCounters: [], ownNames: {} };
const lineOptions = {
  namesAreSanitized: true,
  sanitizesNames: false,
  tagsEnabled: TAGS_ENABLED,
  beforeDelta: (name) => gauges.restore(name),
};

function isOfGraphite(backend) {
  return /(^|\/)graphite(\.js)?$/.test(backend);
}

// Graphite keeps the later of two values for one time, the repeater has no values, and others are not known.
function laterValuesReplace(backends) {
  return backends.every((backend) => isOfGraphite(backend) || /(^|\/)repeater(\.js)?$/.test(backend));
}

function configure(config) {
  const { keyNameSanitize = true, prefixStats = 'statsd' } = config;
  const backends = config.backends || ['./backends/graphite'];
  gauges.namesAreSanitized = keyNameSanitize;
  settings.config = config;
  for (const word of [...OWN_COUNTERS, 'timestamp_lag']) {
    settings.ownNames[word] = `${prefixStats}.${word}`;
  }
  settings.ownCounters = OWN_COUNTERS.map((word) => settings.ownNames[word]);
  // Where StatsD does not do it at its ports, its backend for Graphite does.
  lineOptions.namesAreSanitized = keyNameSanitize || backends.some(isOfGraphite);
  lineOptions.sanitizesNames = !keyNameSanitize && backends.length > 0 && backends.every(isOfGraphite);
  flushes.configure(Number(config.flushInterval || 10000), laterValuesReplace(backends));
  gauges.keep(flushes.idleGauges());
  queues.configure(config);
}

// Backends that repeat packets need buffers, and StatsD would decode them once more.
let packetsAreRepeated = false;

// What is to be done before the process exits: functions with a callback.
const endings = [];

function isAllowed(address) {
  const allowed = senders.allow(address);
  if (!allowed) {
    logOnce('Not taken, for it is from no allowed sender', String(address));
  }
  return allowed;
}

function guarded(handlePacket) {
  return (packet, sender) => {
    arrivals.number += 1;
    if (!isAllowed(sender.address)) {
      return;
    }
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
  arrivals.number += 1;
  arrivals.streams.add(stream);
  stream.setEncoding('utf8');
  stream.on('data', (text) => {
    arrivals.number += 1;
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
    arrivals.streams.delete(stream);
    if (unfinished > 0) {
      refuse('a connection ended within a line; end each line with a newline');
    }
  });
  stream.on('error', (error) => util.log('Connection lost: ' + error.message));
}

// The gauges of the last StatsD, as lines: StatsD counts for how long they are idle. It knows none yet that a sign would change, and no
// backend that repeats packets.
function replayGauges(handlePacket) {
  const kept = flushes.gaugesToKeep(settings.config);
  if (kept.length > 0 && flushes.replayed === 0) {
    flushes.replayed = kept.length;
    handlePacket(kept.map(([name, value]) => `${name}:${value}|g`).join('\n'));
  }
}

function guardedServer(server) {
  return Object.create(server, {
    start: {
      value(config, handlePacket) {
        replayGauges(handlePacket);
        const started = server.start.call(this, config, guarded(handlePacket));
        if (this.server && typeof this.server.close === 'function') {
          arrivals.servers.push(this.server);
        }
        if (this.server instanceof net.Server) {
          this.server.on('connection', (stream) => {
            if (isAllowed(stream.remoteAddress)) {
              guardStream(stream, handlePacket);
            } else {
              stream.on('error', () => {}).destroy();
            }
          });
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

// Before what any backend does.
function guardEvents(events) {
  const { emit } = events;
  events.emit = function (event, ...values) {
    if (event === 'flush') {
      values[0] = flushes.timestamp;
    } else if (event === 'status') {
      values[0] = queues.trueStatistics(values[0]);
    }
    return emit.call(this, event, ...values);
  };
  events.on('status', (write) => queues.writeStatistics(write));
  // StatsD flushes once more when it exits.
  endings.push((done) => {
    events.removeAllListeners('flush');
    done();
  });
}

function guardedBackend(backend) {
  return Object.create(backend, {
    init: {
      value(startupTime, config, events, ...others) {
        // Before those of all backends, and once.
        if (events.listenerCount('flush') === 0) {
          guardEvents(events);
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
        if (typeof backend.stop === 'function') {
          endings.push((done) => backend.stop(done));
        }
        return initialized;
      },
    },
  });
}

// The management interface shows StatsD's own objects; before the first flush, nothing else does.
function ownObject(kind, handleCommand) {
  const { inspect } = util;
  let own;
  util.inspect = (object) => {
    own = object;
  };
  handleCommand(kind, [], { write() {} });
  util.inspect = inspect;
  return own;
}

// A client that asks again without reading the answers would fill the memory.
function guardedManagement(management) {
  return Object.create(management, {
    start: {
      value(config, handleCommand, handleError) {
        gauges.known = ownObject('gauges', handleCommand);
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
          keptSockets.closeOthers(config);
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

// What it is called with are StatsD's own objects.
function preparingMetrics(calculation) {
  return Object.create(calculation, {
    process_metrics: {
      value(metrics, ...others) {
        flushes.prepare(metrics, settings.ownNames);
        return calculation.process_metrics(metrics, ...others);
      },
    },
  });
}

// StatsD plans its next flush with it.
const { setTimeout } = global;
global.setTimeout = function (callback, delay, ...values) {
  return callback && callback.name === FLUSH ? flushes.plan(setTimeout, callback, delay) : setTimeout(callback, delay, ...values);
};
Object.defineProperty(global.setTimeout, util.promisify.custom, { value: setTimeout[util.promisify.custom] });

async function end() {
  await arrivals.readTheRest();
  flushes.stop();
  await new Promise(setImmediate); // the backend writes
  await within(LONGEST_SENDING, (done) => queues.end().then(() => done()));
  if (!flushes.handOver(gauges.kept(), queues.unsent()) && queues.sum('length') > 0) {
    util.log(`${queues.sum('length')} flushes that carbon has not taken are lost`);
  }
  for (const ending of endings) {
    await within(LONGEST_STOP_OF_A_BACKEND, ending);
  }
  process.exit();
}

let isEnding = false;

function endOrExit() {
  if (!isEnding) {
    isEnding = true;
    end().catch((error) => {
      util.log('At the end: ' + error.stack);
      process.exit(1);
    });
  }
}

// StatsD sets the title of the process here, and exits at the signal at once.
function endingProcess(management) {
  return Object.create(management, {
    init: {
      value(config) {
        management.set_title(config);
        for (const signal of ['SIGINT', 'SIGTERM']) {
          process.removeListener(signal, endOrExit);
          process.on(signal, endOrExit);
        }
      },
    },
  });
}

const load = Module._load;
Module._load = function (request, parent, isMain) {
  const loaded = load.call(this, request, parent, isMain);
  if (request === 'net' && parent && parent.parent && parent.parent === process.mainModule && isOfGraphite(parent.filename)) {
    // With it, the backend makes its connections.
    const name = path.relative(path.dirname(process.mainModule.filename), parent.filename);
    const queue = queues.add(name, flushes.unsent(name));
    return Object.create(net, { createConnection: { value: (port, host) => queue.connection(port, host, flushes.timestamp) } });
  }
  if (parent && parent.parent === process.mainModule && /(^|\/)servers\/(udp|tcp)\.js$/.test(parent.filename)) {
    return request === 'dgram' || request === 'net' ? keptSockets[request](loaded) : loaded;
  }
  if (parent !== process.mainModule || !loaded || Module.builtinModules.includes(request)) {
    return loaded;
  }
  switch (request) {
    case './lib/config':
      return observedConfiguration(loaded);
    case './lib/mgmt_server':
      return guardedManagement(loaded);
    case './lib/process_metrics':
      return preparingMetrics(loaded);
    case './lib/process_mgmt':
      return endingProcess(loaded);
    case './lib/set':
      flushes.Set = loaded.Set;
      return loaded;
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
