# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Bounds what one request to graphite-web may cost, and what one client may hold.

local_settings.py has the bounds, in the setting ``LIMITS``; the role describes them with its variable ``graphite_web_limits``. What exceeds
one is refused: by its text, before anything is done, if possible; otherwise during the work.

For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which overwrites
manual changes.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import ipaddress
import re
import resource
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager

import regex
from django.conf import settings
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from graphite.errors import InputParameterError
from graphite.render.attime import parseTimeOffset
from graphite.util import timebounds

DAY = 86400
# Seconds in which a target's text is read, and seconds of processor time in which all regular expressions of a request are matched. No
# other thread of the process reads a target meanwhile, or none runs at all.
PARSE_SECONDS = 2
PATTERN_SECONDS = 0.5
# How often a regular expression may repeat a part by counted repetitions, such as 100 times by (.{10}){10}. The library writes them out.
REPETITIONS = 10000
# A call that is the value of a named argument, or the target of a template, is read twice for each level.
REREAD_DEPTH = 4
# Seconds after which a request that goes on is interrupted again.
REPEAT = 0.1
# What costs more than a moment: how paths begin. A login costs a tenth of a second of processor time.
EXPENSIVE = re.compile(r"/(render|metrics|tags|browser/search|events|composer/mygraph|dashboard/email|(account|dashboard|admin)/login)")
# A client may hold this many times as many threads as are free, so that there is always one for the next client.
SHARE = 3
GENERATORS = ("time", "timeFunction", "sin", "sinFunction", "randomWalk", "randomWalkFunction", "identity")
# Functions of graphite-web's modules that match regular expressions of the client.
MODULES_WITH_PATTERNS = ("graphite.render.functions", "graphite.browser.views", "graphite.tags.base", "graphite.tags.localdatabase")

# Has another name since Python 3.11.
parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_current = threading.local()


class Refused(InputParameterError):  # noqa: N818  # it is no error of this program
    """A request exceeds a bound. graphite-web answers errors of this kind with their text."""

    def __str__(self):
        return str(self.args[0])


class Budget:
    """What a request has used up."""

    def __init__(self, limits: dict):
        self.limits = limits
        self.refusal: tuple[int, str] | None = None
        self.series = self.points = 0
        self.pattern_seconds = PATTERN_SECONDS

    def refuse(self, reason: str, name: str = "", status: int = 400) -> Refused:
        """Return the error that ends the request. Whatever becomes of it, the reason is the answer."""
        hint = f" (graphite_web_limits: {name})" if name else ""
        self.refusal = self.refusal or (status, f"{reason}{hint}.")
        return Refused(self.refusal[1])

    def refuse_time(self) -> None:
        self.refuse(f"The request takes more than {self.limits['seconds']} s", "", 503)

    def check(self, name: str, number: float, what: str) -> None:
        if number > self.limits[name]:
            raise self.refuse(f"{what}; at most {self.limits[name]} are allowed", name)

    def add(self, series: int, points: float) -> None:
        """Count series that are read or made."""
        self.series += series
        self.points += points
        self.check("series", self.series, "The request needs too many series")
        self.check("points", self.points, f"The request needs too many points, of {self.series} series")

    def check_text(self, text: str) -> None:
        """Refuse a target that takes long to read."""
        self.check("target_length", len(text), f"A target has {len(text)} characters")
        depth, rereads = nesting(text)
        self.check("depth", depth, f"A target has functions within functions, {depth} deep")
        if rereads > REREAD_DEPTH:
            raise self.refuse(f"A target has templates or named arguments with functions, {rereads} deep; at most {REREAD_DEPTH} are read")
        self.check_alternatives(text)

    def check_alternatives(self, pattern: str) -> None:
        number = alternatives(pattern)
        self.check("alternatives", number, f"A pattern has braces that stand for {number} names")

    @contextmanager
    def matching(self):
        """Run the matching of a regular expression, with the seconds of processor time that are left for it."""
        began = time.thread_time()
        try:
            yield max(self.pattern_seconds, 0.001)
        except TimeoutError:
            raise self.refuse(
                f"The regular expressions of the request take more than {PATTERN_SECONDS} s; write them without repetitions in repetitions"
            ) from None
        finally:
            self.pattern_seconds -= time.thread_time() - began


def current() -> Budget:
    """Return the budget of the request that the thread works at."""
    return getattr(_current, "budget", None) or Budget(settings.LIMITS)


def nesting(text: str) -> tuple[int, int]:
    """Return how deep the calls in a target are, and how many of them around one place are read again from there."""
    depth = rereads = 0
    stack: list[bool] = []
    start = 0  # of the text since the last bracket or comma
    for found in re.finditer(r"""[(),]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", text, re.DOTALL):
        if found[0] == "(":
            before = text[start : found.start()]
            stack.append("=" in before or before.strip().endswith("template"))
            depth, rereads = max(depth, len(stack)), max(rereads, sum(stack))
        elif found[0] == ")" and stack:
            stack.pop()
        if found[0] in "(),":
            start = found.end()
    return depth, rereads


def alternatives(pattern: str) -> int:
    """Return the largest number of texts for which the braces of a part of a pattern stand, or more."""
    largest = product = 1
    stack: list[int] = []
    for character in pattern:
        if character == "{":
            stack.append(1)
        elif stack and character == ",":
            stack[-1] += 1
        elif stack and character == "}":
            product *= stack.pop()
            largest = max(largest, product)
        elif not stack and character in "., ()\"'":
            product = 1
    return largest


def repetitions(parsed) -> int:
    """Return how often a part of a regular expression is repeated at most, by counted repetitions."""
    if isinstance(parsed, parser.SubPattern):
        return max((_repetitions(*item) for item in parsed), default=1)
    return max(map(repetitions, parsed), default=1) if isinstance(parsed, (list, tuple)) else 1


def _repetitions(operation, argument) -> int:
    if str(operation).endswith("_REPEAT"):
        low, high, inner = argument
        return max(low if high is parser.MAXREPEAT else high, 1) * repetitions(inner)
    return repetitions(argument)


class Patterns:
    """The module ``re``, as far as graphite-web uses it for what clients send: with bounds for length and time."""

    def __getattr__(self, name):
        return getattr(re, name)

    def compile(self, pattern, flags=0):
        return Pattern(pattern, flags)

    def match(self, pattern, text, flags=0):
        return Pattern(pattern, flags).match(text)

    def search(self, pattern, text, flags=0):
        return Pattern(pattern, flags).search(text)

    def sub(self, pattern, replacement, text, count=0, flags=0):
        if callable(replacement):
            return re.sub(pattern, replacement, text, count=count, flags=flags)
        return Pattern(pattern, flags).sub(replacement, text)


class Pattern:
    """A regular expression of a client."""

    def __init__(self, pattern: str, flags: int = 0):
        budget = current()
        budget.check("pattern_length", len(pattern), f"A regular expression has {len(pattern)} characters")
        try:
            if repetitions(parser.parse(pattern, flags)) > REPETITIONS:
                raise budget.refuse(f"A regular expression has counted repetitions in others, of more than {REPETITIONS} together")
            self._compiled = regex.compile(pattern, flags)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise budget.refuse(f"A regular expression is not valid: {error}") from None

    def match(self, text):
        with current().matching() as seconds:
            return self._compiled.match(text, timeout=seconds)

    def search(self, text):
        with current().matching() as seconds:
            return self._compiled.search(text, timeout=seconds)

    def sub(self, replacement: str, text: str) -> str:
        """Replace all that matches. The names of series stay shorter than targets, also if one replacement is within another."""
        budget = current()
        parts, end, length = [], 0, len(text)
        with budget.matching() as seconds:
            for found in self._compiled.finditer(text, timeout=seconds):
                new = found.expand(replacement)
                length += len(new)
                budget.check("target_length", length, "The name of a series would be too long")
                parts += [text[end : found.start()], new]
                end = found.end()
        return "".join([*parts, text[end:]])


class Watch:
    """Interrupts threads whose time is up. The exception is raised in their Python code; what runs in C ends first."""

    def __init__(self):
        self._condition = threading.Condition()
        self._watched: dict[int, tuple[float, object]] = {}
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float, refuse):
        """Call ``refuse`` and interrupt this thread after some seconds, and from then on; return what held for it before."""
        thread, when = threading.get_ident(), time.monotonic() + seconds
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="graphite_limits", daemon=True)
                self._thread.start()
            outer = self._watched.get(thread)
            if outer is None or when < outer[0]:
                self._watched[thread] = (when, refuse)
                self._condition.notify()
        return outer

    def end(self, outer=None) -> None:
        """Go back to what held before, or to nothing."""
        thread = threading.get_ident()
        with self._condition:
            if outer is None:
                self._watched.pop(thread, None)
                _raise_in(thread, None)
            else:
                self._watched[thread] = outer

    def _run(self) -> None:
        with self._condition:
            while True:
                now = time.monotonic()
                for thread, (when, refuse) in list(self._watched.items()):
                    if when <= now:
                        refuse()
                        _raise_in(thread, Interrupted)
                        self._watched[thread] = (now + REPEAT, refuse)
                first = min((when for when, _refuse in self._watched.values()), default=None)
                self._condition.wait(None if first is None else max(first - time.monotonic(), 0))


class Interrupted(Refused):
    """The time of a request is up. The budget has the reason."""

    def __init__(self):
        super().__init__((current().refusal or (0, "The time of the request is up."))[1])


def _raise_in(thread: int, error) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))


class Gate:
    """Shares the threads of a process among clients, and how many of them run at a time.

    One client runs as many as ``running``, all of them twice as many. A client with none that runs never waits.
    """

    def __init__(self, threads: int, running: int):
        self._threads = threads
        self._runs = running
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque] = {}

    def enter(self, client: str) -> bool:
        """Return whether the client may have one more thread."""
        with self._lock:
            held = self._held.get(client, 0)
            free = self._threads - sum(self._held.values())
            if held and held >= SHARE * (free - 1):
                return False
            self._held[client] = held + 1
            return True

    def leave(self, client: str) -> None:
        with self._lock:
            _decrease(self._held, client)

    @contextmanager
    def running(self, client: str, seconds: float):
        """Run a block when it is the client's turn; yield whether it has come within some seconds."""
        turn = threading.Event()
        with self._lock:
            if self._may_run(client) and not self._waiting.get(client):
                self._start(client, turn)
            else:
                self._waiting.setdefault(client, deque()).append(turn)
        try:
            yield turn.wait(seconds)
        finally:
            with self._lock:
                if turn.is_set():
                    _decrease(self._running, client)
                else:
                    self._waiting[client].remove(turn)
                self._next()

    def _may_run(self, client: str) -> bool:
        runs = self._running.get(client, 0)
        return not runs or (runs < self._runs and sum(self._running.values()) < 2 * self._runs)

    def _start(self, client: str, turn: threading.Event) -> None:
        self._running[client] = self._running.get(client, 0) + 1
        turn.set()

    def _next(self) -> None:
        # Those that have waited for one more go to the end, so that all clients have their turns.
        for client in list(self._waiting):
            queue = self._waiting.pop(client)
            while queue and self._may_run(client):
                self._start(client, queue.popleft())
            if queue:
                self._waiting[client] = queue


def _decrease(counts: dict, name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


class Limits:
    """Django middleware, the first of all: what follows costs no more than ``LIMITS`` allow."""

    def __init__(self, get_response):
        self.get_response = get_response
        self._limits = settings.LIMITS
        self._gate = Gate(self._limits["threads"] + self._limits["waiting"], self._limits["threads"])
        self._watch = Watch()
        _bound_memory(self._limits["memory"], self._limits["threads"] + self._limits["waiting"])
        _bound_graphite(self._watch)
        connection_created.connect(_bound_database)

    def __call__(self, request):
        began = time.monotonic()
        # mod_wsgi's own word for the site that answers graphite-web on other hosts, which bound their clients.
        if request.META.get("mod_wsgi.process_group") == "graphite-store":
            return self._answer(request, began, is_store=True)
        client = _client(request.META.get("REMOTE_ADDR", ""))
        if not self._gate.enter(client):
            return _busy("This client has too many requests at a time")
        try:
            response = self._admit(request, client, began)
        except BaseException:
            self._gate.leave(client)
            raise
        # A client that reads slowly holds the thread until then.
        response._resource_closers.append(functools.partial(self._gate.leave, client))
        return response

    def process_exception(self, _request, error):
        """Answer an error that a bound has caused, without a report of it."""
        if isinstance(error, MemoryError):
            error = current().refuse("The request needs too much memory", "memory")
        return _text(*current().refusal) if isinstance(error, Refused) else None

    def _admit(self, request, client: str, began: float):
        has_password = request.META.get("HTTP_AUTHORIZATION", "").lower().startswith("basic")
        if not has_password and not EXPENSIVE.match(request.path_info[len(settings.URL_PREFIX) :]):
            return self._answer(request, began)
        _is_readable(request)  # may come slowly, and the turn is to be a short one
        with self._gate.running(client, self._limits["seconds"] / 2) as is_in_time:
            if not is_in_time:
                return _busy("This client has too many requests that take long")
            return self._answer(request, began)

    def _answer(self, request, began: float, is_store: bool = False):
        budget = _current.budget = Budget(self._limits)
        response = None
        try:
            try:
                if not is_store:
                    _check_request(request, budget)
                self._watch.begin(began + self._limits["seconds"] - time.monotonic(), budget.refuse_time)
                response = self.get_response(request)
            finally:
                self._watch.end()
        except Refused:
            self._watch.end()  # an interruption may have come in its stead
        finally:
            _current.budget = None
        return _text(*budget.refusal) if budget.refusal else response


def _client(text: str) -> str:
    """Return who asks, by the address. A host with IPv6 has as many addresses as it likes, all in one network of 64 bits."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if address.version == 4:
        return text
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _is_readable(request) -> bool:
    try:
        request.body, request.GET, request.POST  # noqa: B018  # the fields of a form cannot be read before the body
    except Exception:  # of whatever there is to read
        return False
    return True


def _check_request(request, budget: Budget) -> None:
    if not _is_readable(request):
        return  # to graphite_guard.py, which refuses the request
    for parameters in (request.GET, request.POST):
        for name in ("target", "target[]", "query", "expr", "metric"):
            values = parameters.getlist(name)
            budget.check("targets", len(values), f"The request has {len(values)} values of '{name}'")
            for value in values:
                if name.startswith("target"):
                    budget.check_text(value)
                else:
                    budget.check("target_length", len(value), f"'{name}' has {len(value)} characters")
                    budget.check_alternatives(value)


def _text(status: int, reason: str) -> HttpResponse:
    return HttpResponse(f"{reason}\n", status=status, content_type="text/plain; charset=utf-8")


def _busy(reason: str) -> HttpResponse:
    response = _text(429, f"{reason}; try again.")
    response.headers["Retry-After"] = "1"
    return response


def _bound_memory(mebibytes: int, threads: int) -> None:
    """Let what exceeds the memory of a process fail there, before the host ends any process. The stacks of the threads count as well."""
    stack, _hard = resource.getrlimit(resource.RLIMIT_STACK)
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    size = mebibytes * 2**20 + threads * (8 * 2**20 if stack == resource.RLIM_INFINITY else stack)
    if hard == resource.RLIM_INFINITY or size < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def _bound_database(connection, **_options) -> None:
    """Bound what the database does for one request; it runs in C, or elsewhere, where no exception comes."""
    seconds = settings.LIMITS["seconds"]
    if connection.vendor == "sqlite":
        # Django's own function, which the index of tags uses, has no bound.
        connection.connection.create_function("REGEXP", 2, _sqlite_regexp)
        connection.connection.set_progress_handler(lambda: current().refusal is not None, 10000)
    elif connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout TO %s", [seconds * 1000])


def _sqlite_regexp(pattern, text):
    return None if pattern is None or text is None else bool(Pattern(str(pattern)).search(str(text)))


def _bound_graphite(watch: Watch) -> None:
    """Put the bounds into graphite-web, where the work is done."""
    evaluator, functions, grammar, finders, node = map(
        importlib.import_module,
        ("graphite.render.evaluator", "graphite.render.functions", "graphite.render.grammar", "graphite.finders.utils", "graphite.node"),
    )
    for name in MODULES_WITH_PATTERNS:
        importlib.import_module(name).re = Patterns()

    def parse(original, self, text):
        budget = current()
        budget.check_text(text)
        outer = watch.begin(PARSE_SECONDS, lambda: budget.refuse(f"A target takes more than {PARSE_SECONDS} s to be read"))
        try:
            return original(self, text)
        finally:
            watch.end(outer)

    def find(original, self, pattern, *arguments, **options):
        current().check_alternatives(pattern)
        original(self, pattern, *arguments, **options)

    def fetch(original, self, start, end, now=None, requestContext=None):  # noqa: N803  # as graphite-web names it
        budget = (requestContext or {}).get("limits") or current()
        budget.add(1, 0)
        result = original(self, start, end, now=now, requestContext=requestContext)
        if result:
            start, end, step = result[0]
            budget.add(0, (end - start) / step)
        return result

    def prefetch(original, context, expressions):
        budget = current()
        context["limits"] = budget
        start, end, _now = timebounds(context)
        budget.check("days", (end - start) / DAY, f"The request, with its functions, needs {(end - start) // DAY} days")
        return original(context, expressions)

    def summarize(original, series, function, interval, start=None, end=None):
        start, end = series.start if start is None else start, series.end if end is None else end
        _check_step(interval)
        current().add(0, (end - start) / interval)
        return original(series, function, interval, start, end)

    _wrap(grammar.ThreadSafeGrammar, "parseString", parse)
    _wrap(finders.FindQuery, "__init__", find)
    _wrap(node.LeafNode, "fetch", fetch)
    _wrap(evaluator, "prefetchData", prefetch)
    _wrap(functions, "_summarizeValues", summarize)
    for name, function in list(functions.SeriesFunctions.items()):
        if name in GENERATORS:
            functions.SeriesFunctions[name] = _bounded_generator(function)
        elif name == "hitcount":
            functions.SeriesFunctions[name] = _bounded_hitcount(function)
    importlib.import_module("graphite.functions").loadFunctions(force=True)


def _wrap(owner, name: str, wrapper) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(lambda *arguments, **options: wrapper(original, *arguments, **options)))


def _bounded_generator(function):
    @functools.wraps(function)
    def bounded(context, *arguments, **options):
        start, end, _now = timebounds(context)
        step = options.get("step", (arguments[-1:] or [60])[0])
        step = step if isinstance(step, (int, float)) else 60
        _check_step(step)
        current().add(1, (end - start) / step)
        return function(context, *arguments, **options)

    return bounded


def _bounded_hitcount(function):
    @functools.wraps(function)
    def bounded(context, series, intervalString, *arguments, **options):  # noqa: N803  # as graphite-web names it
        interval = parseTimeOffset(intervalString).total_seconds()
        _check_step(interval)
        current().add(0, sum((one.end - one.start + DAY) / interval for one in series))
        return function(context, series, intervalString, *arguments, **options)

    return bounded


def _check_step(seconds: float) -> None:
    if not seconds >= 1:
        raise current().refuse(f"An interval of {seconds} s makes points without end; give one of 1 s or more")
