// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers
//
// Tells lines that StatsD 0.9.0 understands as their senders mean them from those that would end the process, store infinity, be
// counted as something else, or be stored in the series of another metric. The latter are refused, with the reason.
//
// Sources: docs/metric_types.md and stats.js of StatsD 0.9.0; for tags and the fields behind them, DogStatsD's datagram format
// 1.3; for what a path may be, carbon/util.py and carbon/storage.py of carbon 1.1.10.
'use strict';

// Of a file's name, without ".wsp"; and of a path, with room for the directory, StatsD's prefixes and suffixes. Carbon hangs up on a
// line of more than 16384 characters, and with it on all lines that follow. The columns for keys and values in graphite-web's database
// have 191 characters, and the name of the series, with prefix and suffix, is such a value.
const LONGEST_NODE = 251;
const LONGEST_KEY = 3500;
const LONGEST_TAG = 191;
const LONGEST_TAGGED_NAME = 150;

// Most packets are plain, and their lines no longer than a node may be; the others are looked at piece by piece. A name with a dot is
// that of no property of all objects, such as "constructor".
const PLAIN_LINE =
  `(?:[\\w-]+(?:\\.[\\w-]+)+|(?!(?:${Object.getOwnPropertyNames(Object.prototype).join('|')}):)[\\w-]+):` +
  '(?:\\d+(?:\\.\\d+)?\\|(?:ms|[cg])|[+-]\\d+(?:\\.\\d+)?\\|c|[a-zA-Z0-9][^|:\\r\\n]*\\|s)' +
  '(?:\\|@(?:0?\\.\\d*[1-9]0*|1(?:\\.0+)?))?';
const PLAIN_PACKET = new RegExp(`^${PLAIN_LINE}(?:\\n${PLAIN_LINE})*\\n?$`);

const NUMBER = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/;
const TYPES = ['c', 'g', 'ms', 's'];
// Where the sender runs, for servers that make tags of it.
const ORIGIN = /^(?:c|e|card):/;

// No Error, whose trace would cost more than the line.
class Refused {
  constructor(what, message) {
    this.what = what;
    this.message = message;
  }
}

// As StatsD does it when keyNameSanitize is on, and its backend for Graphite otherwise.
function sanitized(name) {
  return name.replace(/\s+/g, '_').replace(/\//g, '-').replace(/[^a-zA-Z_\-0-9.;=]/g, '');
}

function shown(text) {
  return JSON.stringify(text.length > 80 ? text.slice(0, 80) + '…' : text);
}

function checkAscii(what, text) {
  if (/[^\x00-\x7f]/.test(text)) {
    throw new Refused(what, `${shown(text)} is not ASCII; StatsD drops the other characters, so that different names become one`);
  }
}

function checkName(name, isSanitized) {
  if (isSanitized) {
    checkAscii('name', name);
  }
  if (/[#[][^#[]*=/.test(name)) {
    throw new Refused('tags', `${shown(name)} has tags that Graphite does not know; write KEY:VALUE behind |#`);
  }
  if (name.includes('|')) {
    throw new Refused('name', `${shown(name)} is no name`);
  }
  const plain = sanitized(name);
  const nodes = (isSanitized ? plain : name).split('.');
  if (nodes.includes('')) {
    throw new Refused('name', `${shown(name)} has an empty part; it would be stored with another metric`);
  }
  if (name in Object.prototype || plain in Object.prototype) {
    throw new Refused('name', `${shown(name)} is the name of a property of every object in JavaScript, and would end StatsD`);
  }
  if (name.length > LONGEST_KEY || nodes.some((node) => node.length > LONGEST_NODE)) {
    throw new Refused('name', `${shown(name)} is too long for the name of a file`);
  }
}

// Returns ";key=value" for each tag, sorted, so that one series has one name.
function graphiteTags(tags) {
  const values = new Map();
  for (const tag of tags) {
    checkAscii('tags', tag);
    const [, key, value] = /^([^=]*)=(.*)$/s.exec(sanitized(tag)) || [];
    if (!key || !value || key === 'name' || value.includes(';')) {
      throw new Refused('tags', `${shown(tag)} is not a tag of Graphite; write KEY:VALUE, with a key other than "name"`);
    }
    if (key.length > LONGEST_TAG || value.length > LONGEST_TAG) {
      throw new Refused('tags', `${shown(tag)} is longer than graphite-web's database takes`);
    }
    if (values.has(key) && values.get(key) !== value) {
      throw new Refused('tags', `${shown(key)} is the key of two tags; Graphite would keep one of them`);
    }
    values.set(key, value);
  }
  return [...values].map(([key, value]) => `;${key}=${value}`).sort().join('');
}

// Returns the decimal notation: StatsD reads the digits before "e" and no more.
function sampleRate(text) {
  const rate = /^[\d.]/.test(text) && NUMBER.test(text) ? Number(text) : NaN;
  if (!(rate > 0 && rate <= 1)) {
    throw new Refused('rate', `${shown(text)} is not a sample rate; it is a number above 0 and up to 1`);
  }
  const decimal = /e/i.test(text) ? rate.toFixed(100) : text;
  if (!Number.isFinite(1 / Number(decimal))) {
    throw new Refused('rate', `${shown(text)} is too small for a sample rate`);
  }
  return decimal;
}

function setMember(value) {
  if (value === '') {
    throw new Refused('value', 'a set has no member without a name');
  }
  return value === '__proto__' ? '__proto__ ' : value; // the store is a plain object
}

function number(value, type) {
  const trimmed = value.trim();
  if (!NUMBER.test(trimmed) || !Number.isFinite(Number(trimmed))) {
    throw new Refused('value', `${shown(value)} is not a number`);
  }
  if (type === 'ms' && Number(trimmed) < 0) {
    throw new Refused('value', `${shown(value)} is negative; a timer is not`);
  }
  return trimmed;
}

// A line may have several values, as in "a:1|c:2|c|@0.5:3|ms". Returns a value, a type and "|@rate" or "" for each.
function valuesOf(text) {
  const parts = text.split('|');
  const values = [];
  let next = parts[0];
  let index = 1;
  while (next !== undefined) {
    const value = next;
    if (value.includes(':') || index === parts.length) {
      throw new Refused('type', `${shown(value)} has no type`);
    }
    let type;
    let rate = '';
    [type, next] = halves(parts[index++]);
    if (!TYPES.includes(type)) {
      throw new Refused('type', `${shown(type)} is none of c, g, ms and s`);
    }
    while (next === undefined && index < parts.length) {
      let field = parts[index++];
      if (ORIGIN.test(field)) {
        continue;
      }
      [field, next] = halves(field);
      if (/^T\d+$/.test(field)) {
        throw new Refused('field', 'a timestamp of DogStatsD; StatsD stores what it receives under the time of its flush');
      }
      if (!field.startsWith('@') || rate !== '') {
        throw new Refused('field', `${shown(field)} is a field that StatsD does not know`);
      }
      rate = '|@' + sampleRate(field.slice(1));
    }
    values.push([type === 's' ? setMember(value) : number(value, type), type, rate]);
    // It would make the counts of the other lines infinite as well.
    if (type === 'c' && rate !== '' && !Number.isFinite(Number(value) * (1 / Number(rate.slice(2))))) {
      throw new Refused('rate', `${shown(value + rate)} stands for more than a number can be`);
    }
  }
  return values;
}

// Splits at the first colon.
function halves(text) {
  const colon = text.indexOf(':');
  return colon < 0 ? [text.trim()] : [text.slice(0, colon).trim(), text.slice(colon + 1)];
}

// Returns the line as StatsD understands it. Throws Refused.
function canonicalLine(line, { namesAreSanitized, sanitizesNames, tagsEnabled, beforeDelta }) {
  const text = line.replace(/\r$/, '');
  if (text === '') {
    return '';
  }
  // Without what differs from one to the next: each reason is logged once.
  if (/^(?:_e\{|_sc\|)/.test(text)) {
    throw new Refused('name', `${text.startsWith('_e') ? 'an event' : 'a service check'} of DogStatsD is no metric`);
  }
  const colon = text.indexOf(':');
  if (colon < 0) {
    throw new Refused('value', `${shown(text)} has no value`);
  }
  // Telegraf's tags, "NAME,KEY=VALUE", are Graphite's with a comma.
  const [name, ...ownTags] = text.slice(0, colon).split(/;|,(?=[^,;=]+=)/);
  // Fields may follow the tags as well as precede them.
  const [values, ...others] = text.slice(colon + 1).split('|#');
  const [dogTags, ...fields] = others.join('|#').split('|');
  const tags = [...ownTags, ...dogTags.split(',').filter(Boolean).map((tag) => tag.replace(':', '='))];
  checkName(name, namesAreSanitized);
  if (tags.length > 0 && !tagsEnabled) {
    throw new Refused('tags', `${shown(text)} has tags, and tags are off; graphite-web would not find the series`);
  }
  const key = (sanitizesNames ? sanitized(name) : name) + graphiteTags(tags);
  if (key.length > LONGEST_KEY || (tags.length > 0 && name.length > LONGEST_TAGGED_NAME)) {
    throw new Refused('tags', `${shown(text)} is too long for a series with tags`);
  }
  const canonical = valuesOf([values, ...fields].join('|'));
  if (canonical.some(([value, type]) => type === 'g' && /^[+-]/.test(value))) {
    beforeDelta(key);
  }
  return `${key}:${canonical.map(([value, type, rate]) => `${value}|${type}${rate}`).join(':')}`;
}

function isPlain(text) {
  // The limit is far above a packet's, and keeps what a stream brings at once from exhausting the stack of the expression.
  if (text.length > 65536 || !PLAIN_PACKET.test(text)) {
    return false;
  }
  let begin = 0;
  while (text.length - begin > LONGEST_NODE) {
    const end = text.indexOf('\n', begin);
    if (end < 0 || end - begin > LONGEST_NODE) {
      return false;
    }
    begin = end + 1;
  }
  return true;
}

// Returns the text of a packet with each line as StatsD understands it: the text itself, if that is so already.
//
//   refusal(error)      returns what takes the place of a line; error.what names the part that is wrong
//   namesAreSanitized   whether StatsD or a backend removes characters of names
//   sanitizesNames      whether to remove them here, so that names that a backend makes equal are counted together
//   tagsEnabled         whether lines with tags are taken
//   beforeDelta(key)    is called before a gauge is changed by a delta
function canonicalText(text, refusal, options) {
  if (isPlain(text)) {
    return text;
  }
  const lines = text.split('\n').map((line) => {
    if (isPlain(line)) {
      return line;
    }
    try {
      return canonicalLine(line, options);
    } catch (error) {
      if (error instanceof Refused) {
        return refusal(error);
      }
      throw error;
    }
  });
  return lines.join('\n');
}

module.exports = { canonicalText, sanitized };
