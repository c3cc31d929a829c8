// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// When StatsD flushes, and what of it outlives a restart.
//
// Of two points in the same step of a whisper file, the later replaces the earlier. The points of a StatsD that stops therefore have the
// time of the flush that was due next: no other flush has had a time in that step. The next StatsD takes up what these points were
// made of if it is there before that time, flushes at that time, and goes on from there: its points replace those of the stop, and each
// step has all that was counted in it. After that time, the points of the stop are what was counted, and the next flush is a later step's.
// Backends other than Graphite's might add both: for them, what was flushed at the stop is not taken up, and the next flush is due an
// interval later.
//
// A flush that is late has the time at which it was due, for at its own it may be in the step of the next one.
'use strict';

const { readState, removeState, writeState } = require('./state_file');

// StatsD's own function, which its timer calls.
const FLUSH = 'flushMetrics';
// Intervals. Each restart for which an interval is left out makes it one more.
const MOST_AHEAD = 6;

function addAll(object, values, add) {
  for (const [name, value] of values) {
    object[name] = name in object ? add(object[name], value) : value;
  }
}

class Flushes {
  constructor() {
    this.flush = undefined;
    this.interval = undefined; // in milliseconds, like the following
    this.due = undefined;
    this.anchor = undefined;
    this.isStopping = false;
    this.last = undefined; // what the last StatsD has left
    this.takesUp = false; // whether its counts belong to the next flush
    this.held = undefined; // what the last flush was made of
    this.replayed = 0;
    this.Set = undefined; // StatsD's own
  }

  configure(interval, laterValuesReplace) {
    const isReloaded = this.interval !== undefined;
    this.interval = interval;
    if (isReloaded) {
      return;
    }
    this.last = readState();
    const { timestamp, interval: lastInterval } = this.last || {};
    const left = timestamp * 1000 - Date.now();
    if (left > 0 && left <= (laterValuesReplace ? 1 : MOST_AHEAD) * interval && lastInterval === interval) {
      this.takesUp = laterValuesReplace;
      this.anchor = timestamp * 1000 + (laterValuesReplace ? 0 : interval);
    }
  }

  // The gauges that StatsD would still know: with deleteGauges, it forgets those that were not set for gaugesMaxTTL intervals.
  gaugesToKeep({ deleteGauges, gaugesMaxTTL }) {
    const idle = this.last && Date.now() - this.last.timestamp * 1000;
    return this.last && (!deleteGauges || idle < (gaugesMaxTTL - 1) * this.interval) ? [...this.last.gauges] : [];
  }

  idleGauges() {
    return this.last ? this.last.idleGauges : [];
  }

  unsent(backend) {
    return (this.last && this.last.unsent.get(backend)) || [];
  }

  // In place of setTimeout. StatsD's own plan is counted from its start.
  plan(setTimeout, flush, delay) {
    const now = Date.now();
    this.flush = flush;
    if (this.anchor === undefined) {
      this.due = now + delay;
    } else if (this.due === undefined) {
      this.due = this.anchor;
    } else {
      // A timer may be early by a millisecond.
      const flushed = Math.abs(now - this.due) < this.interval / 2 ? Math.max(now, this.due) : now;
      this.due = this.anchor + (Math.floor((flushed - this.anchor) / this.interval) + 1) * this.interval;
    }
    return this.isStopping ? undefined : setTimeout(flush, this.due - now);
  }

  // In seconds. If the clock has been set, the plan means nothing.
  timestamp() {
    const now = Date.now();
    const isPlanned = now - this.due <= this.interval && this.due - now <= MOST_AHEAD * this.interval;
    return Math.round((isPlanned ? this.due : now) / 1000);
  }

  // Before StatsD calculates what is flushed.
  prepare(metrics, ownNames) {
    if (this.last) {
      metrics.counters[ownNames.packets_received] -= this.replayed > 0 ? 1 : 0;
      metrics.counters[ownNames.metrics_received] -= this.replayed;
      if (this.takesUp && this.timestamp() === this.last.timestamp) {
        this.takeUp(metrics);
      }
      // From here on, it would be sent again by the next StatsD.
      removeState();
      this.last = undefined;
    }
    if (this.isStopping) {
      // StatsD has calculated how early the flush is.
      if (ownNames.timestamp_lag in metrics.gauges) {
        metrics.gauges[ownNames.timestamp_lag] = 0;
      }
      // Copies, for StatsD empties its own.
      const { [ownNames.timestamp_lag]: lag, ...gauges } = metrics.gauges;
      const sets = Object.entries(metrics.sets).map(([name, set]) => [name, set.values()]);
      this.held = {
        counters: { ...metrics.counters },
        timers: { ...metrics.timers },
        timer_counters: { ...metrics.timer_counters },
        sets: Object.fromEntries(sets),
        gauges,
      };
    }
  }

  takeUp(metrics) {
    const { counters, timers, timerCounters, sets } = this.last;
    const sum = (one, other) => one + other;
    addAll(metrics.counters, counters, sum);
    addAll(metrics.timers, timers, (one, other) => other.concat(one));
    addAll(metrics.timer_counters, timerCounters, sum);
    for (const [name, members] of sets) {
      metrics.sets[name] = metrics.sets[name] || new this.Set();
      members.forEach((member) => metrics.sets[name].insert(member));
    }
  }

  // Flushes ahead of time. No other flush follows.
  stop() {
    this.isStopping = true;
    this.stopped = this.timestamp();
    this.flush();
  }

  // Returns whether the next StatsD will find it.
  handOver(idleGauges, unsent) {
    return writeState({ timestamp: this.stopped, interval: this.interval, ...this.held, idle_gauges: idleGauges, unsent });
  }
}

module.exports = { FLUSH, Flushes };
