// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
'use strict';

const { sanitized } = require('./metric_lines');

const MOST_IDLE_GAUGES = 100000;

// With deleteGauges, StatsD forgets a gauge after the flush that sends it, and would take a later delta for the value. Here, the values
// of idle gauges are kept for a while, the oldest first.
class IdleGauges {
  constructor(lifetime) {
    this.lifetime = lifetime; // in milliseconds
    this.namesAreSanitized = true;
    this.idle = new Map();
    this.known = {}; // StatsD's own, as soon as it is seen
  }

  // StatsD adds the next delta to what it knows.
  restore(name) {
    const key = this.namesAreSanitized ? sanitized(name) : name;
    const kept = this.idle.get(key);
    if (kept !== undefined && !(key in this.known)) {
      this.known[key] = kept.value;
    }
  }

  remember(flushed) {
    const now = Date.now();
    for (const key in flushed) {
      this.idle.delete(key);
      this.idle.set(key, { value: flushed[key], until: now + this.lifetime });
    }
    this.forgetExpired(now);
  }

  forgetExpired(now) {
    for (const [key, { until }] of this.idle) {
      if (until > now && this.idle.size <= MOST_IDLE_GAUGES) {
        break;
      }
      this.idle.delete(key);
    }
  }

  // A list of names, values and times, and back.
  kept() {
    return [...this.idle].map(([key, { value, until }]) => [key, value, until]);
  }

  keep(list) {
    for (const [key, value, until] of list) {
      this.idle.set(key, { value, until: Math.min(until, Date.now() + this.lifetime) });
    }
    this.forgetExpired(Date.now());
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

module.exports = { IdleGauges };
