// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
'use strict';

const util = require('util');

// Calls a function with a callback, and ends when the callback is called, or else after some milliseconds. What fails is logged, and delays
// nothing else.
function within(milliseconds, action) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    action((error) => (error ? reject(error) : resolve()));
  }).catch((error) => util.log('At the end: ' + error.message));
}

module.exports = { within };
