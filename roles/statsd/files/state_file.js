// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// What one StatsD leaves to the next: a file in the directory that systemd gives it (StateDirectory=, systemd.exec(5)), or nothing where
// there is no such directory. A file that is not what is expected is put aside, and StatsD starts without it.
//
//   timestamp, interval   of the last flush, in seconds and milliseconds; it was sent when StatsD stopped, before its time
//   counters, timers, timer_counters, sets, gauges
//                         what that flush was made of: objects with the values by name
//   idle_gauges           name, value, and the time in milliseconds until which the value is kept, of each
//   unsent                for each backend the flushes that carbon has not taken, as Latin-1
'use strict';

const fs = require('fs');
const path = require('path');
const util = require('util');

const VERSION = 1;
// A string has a limit as well (512 MiB in Node.js 12).
const LARGEST_FILE = 400 << 20;
const FILE = process.env.STATE_DIRECTORY ? path.join(process.env.STATE_DIRECTORY.split(':')[0], 'held.json') : '';

function check(condition, what) {
  if (!condition) {
    throw new Error(what);
  }
}

function isName(name) {
  return typeof name === 'string' && name !== '' && !(name in Object.prototype) && !/[\x00-\x1f:|]/.test(name);
}

function isNumbers(values) {
  return Array.isArray(values) && values.every(Number.isFinite);
}

function isTexts(values) {
  return Array.isArray(values) && values.every((value) => typeof value === 'string');
}

// What is infinite has become null, and is left out, as it is when it is flushed.
function checkedObject(state, key, isValue) {
  const object = state[key];
  check(object !== null && typeof object === 'object' && !Array.isArray(object), `${key} is no object`);
  const names = Object.keys(object).filter((name) => object[name] !== null);
  for (const name of names) {
    check(isName(name), `${key} has the name ${JSON.stringify(name.slice(0, 80))}`);
    check(isValue(object[name]), `${key} has a wrong value of ${name.slice(0, 80)}`);
  }
  return new Map(names.map((name) => [name, object[name]]));
}

function checkedState(text) {
  const state = JSON.parse(text);
  check(state !== null && typeof state === 'object', 'it is no object');
  check(state.version === VERSION, 'it is of another version');
  check(Number.isFinite(state.timestamp) && Number.isFinite(state.interval), 'it has no time');
  check(Array.isArray(state.idle_gauges), 'idle_gauges is no list');
  for (const idle of state.idle_gauges) {
    check(Array.isArray(idle) && idle.length === 3 && isName(idle[0]) && isNumbers(idle.slice(1)), 'idle_gauges has a wrong item');
  }
  const checked = {
    timestamp: state.timestamp,
    interval: state.interval,
    counters: checkedObject(state, 'counters', Number.isFinite),
    timers: checkedObject(state, 'timers', isNumbers),
    timerCounters: checkedObject(state, 'timer_counters', Number.isFinite),
    sets: checkedObject(state, 'sets', isTexts),
    gauges: checkedObject(state, 'gauges', Number.isFinite),
    idleGauges: state.idle_gauges,
    unsent: checkedObject(state, 'unsent', isTexts),
  };
  check([...checked.timers.keys()].every((name) => checked.timerCounters.has(name)), 'timer_counters lacks a timer');
  return checked;
}

// Neither follows a link nor waits for a pipe.
function contents(file) {
  const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  try {
    const status = fs.fstatSync(descriptor);
    check(status.isFile(), 'it is no regular file');
    check(status.size <= LARGEST_FILE, 'it is too large');
    return fs.readFileSync(descriptor, 'utf8');
  } finally {
    fs.closeSync(descriptor);
  }
}

// Returns undefined if there is none.
function readState() {
  if (!FILE) {
    return undefined;
  }
  try {
    return checkedState(contents(FILE));
  } catch (error) {
    if (error.code !== 'ENOENT') {
      util.log(`What the last StatsD held cannot be read from ${FILE}: ${error.message}`);
      attempt('put aside', () => fs.renameSync(FILE, `${FILE}.broken`));
    }
    return undefined;
  }
}

// Returns whether the state is on disk.
function writeState(state) {
  return FILE !== '' && attempt('written', () => {
    const temporary = `${FILE}.new`;
    fs.writeFileSync(temporary, JSON.stringify({ version: VERSION, ...state }), { mode: 0o600 });
    fs.renameSync(temporary, FILE);
  });
}

function removeState() {
  attempt('removed', () => fs.unlinkSync(FILE));
}

function attempt(what, action) {
  try {
    action();
    return true;
  } catch (error) {
    util.log(`${FILE} cannot be ${what}: ${error.message}`);
    return false;
  }
}

module.exports = { readState, removeState, writeState };
