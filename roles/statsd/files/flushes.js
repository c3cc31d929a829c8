// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// When StatsD flushes, with which time, and what of it outlives a restart.
//
// Of two points in the same step of a whisper file, the later replaces the earlier. Flushes are therefore due at equal distances, also
// across restarts, and each has the time at which it was due: no two have times in the same step, and none has an earlier one than a flush
// before it. A flush that is late keeps its time, for at its own it may be in the step of the next one; how late it is, is its
// timestamp_lag.
//
// The points of a StatsD that stops have the time of the flush that was due next. The next StatsD takes up what these points were made of
// if it is there before that time: its flush at that time has the same points with what was counted since, which replace those of the
// stop, and each step has all that was counted in it. After that time, the points of the stop are what was counted, and the next flush
// is a later step's. Backends other than Graphite's might add both: for them, what was flushed at the stop is not taken up, and the next
// flush is due an interval later.
'use strict';

const { performance } = require('perf_hooks');
const { readState, removeState, writeState } = require('./state_file');

// StatsD's own function, which its timer calls.
const FLUSH = 'flushMetrics';
// Intervals by which the time of a flush may be ahead of the clock: each restart for which an interval is left out makes it one more.
// Beyond, the clock has been set back.
const MOST_AHEAD = 6;
// Milliseconds by which rounding to whole seconds can put the time of a flush after the time at which the flush was due.
const ROUNDING = 500;

function addAll(object, values, add) {
  for (const [name, value] of values) {
    object[name] = name in object ? add(object[name], value) : value;
  }
}

class Flushes {
  constructor() {
    this.flush = undefined;
    this.interval = undefined; // in milliseconds, like the following
    this.anchor = undefined; // one of the times at which flushes are due
    this.due = undefined; // that of the next flush, and by a clock that nobody sets
    this.dueByUptime = undefined;
    this.latest = -Infinity; // that of the latest flush, also of the last StatsD
    this.isStopping = false;
    this.last = undefined; // what the last StatsD has left
    this.takesUp = false; // whether its counts belong to the next flush
    this.held = undefined; // what the last flush was made of
    this.replayed = 0;
    this.Set = undefined; // StatsD's own
  }

  // Until its end, StatsD keeps the first interval that it is given.
  configure(interval, laterValuesReplace) {
    if (this.interval !== undefined) {
      return;
    }
    this.interval = interval;
    this.last = readState();
    if (this.last) {
      const flushed = this.last.timestamp * 1000;
      const left = flushed - Date.now();
      const isContinued = this.last.interval === interval;
      this.takesUp = isContinued && laterValuesReplace && left > 0 && left <= interval + ROUNDING;
      this.anchor = isContinued ? flushed : undefined;
      this.latest = this.takesUp ? flushed - interval : flushed;
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

  // The latest time at or before another at which a flush is due.
  dueBefore(time) {
    return this.anchor + Math.floor((time - this.anchor) / this.interval) * this.interval;
  }

  isAhead(time, now) {
    return time >= now && time - now <= MOST_AHEAD * this.interval;
  }

  // In place of setTimeout. The first flush of a StatsD that continues nothing is due when StatsD plans it. A timer may be early by a
  // millisecond.
  plan(setTimeout, flush, delay) {
    const now = Date.now();
    this.flush = flush;
    if (this.anchor === undefined) {
      this.anchor = now + delay;
      this.latest = Math.max(this.latest, this.anchor - this.interval);
    }
    this.due = this.dueBefore(this.isAhead(this.latest, now) ? this.latest : now) + this.interval;
    this.dueByUptime = performance.now() + this.due - now;
    return this.isStopping ? undefined : setTimeout(flush, this.due - now);
  }

  // If the clock has been set since the flush was planned, the time at which it was due is another now.
  dueByClock() {
    const due = Date.now() - this.lateness();
    return this.isAhead(this.due, due) ? this.due : this.dueBefore(due);
  }

  // Negative before the flush is due.
  lateness() {
    return performance.now() - this.dueByUptime;
  }

  // Of the latest flush, in seconds.
  get timestamp() {
    return Math.round(this.latest / 1000);
  }

  // Before StatsD calculates what is flushed.
  prepare(metrics, ownNames) {
    this.latest = this.dueByClock();
    // StatsD has calculated the time between two flushes.
    if (ownNames.timestamp_lag in metrics.gauges) {
      metrics.gauges[ownNames.timestamp_lag] = Math.max(Math.round(this.lateness() / 1000), 0);
    }
    if (this.last) {
      metrics.counters[ownNames.packets_received] -= this.replayed > 0 ? 1 : 0;
      metrics.counters[ownNames.metrics_received] -= this.replayed;
      if (this.takesUp && this.timestamp === this.last.timestamp) {
        this.takeUp(metrics);
      }
      // From here on, it would be sent again by the next StatsD.
      removeState();
      this.last = undefined;
    }
    if (this.isStopping) {
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
    this.flush();
  }

  // Returns whether the next StatsD will find it.
  handOver(idleGauges, unsent) {
    return writeState({ timestamp: this.timestamp, interval: this.interval, ...this.held, idle_gauges: idleGauges, unsent });
  }
}

module.exports = { FLUSH, Flushes };
