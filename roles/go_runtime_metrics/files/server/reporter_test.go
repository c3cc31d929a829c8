// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const testInterval = 50 * time.Millisecond

// syncBuffer lets a test read what another goroutine goes on writing.
type syncBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

func (b *syncBuffer) count(s string) int {
	return strings.Count(b.String(), s)
}

// eventually waits no longer than needed, which keeps the tests fast.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

// statsdStub collects the lines it receives, one datagram after another.
type statsdStub struct {
	syncBuffer
	conn    net.PacketConn
	address string
}

func startStatsD(t *testing.T, address string) *statsdStub {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &statsdStub{conn: conn, address: conn.LocalAddr().String()}
	go func() {
		datagram := make([]byte, 65536)
		for {
			n, _, err := conn.ReadFrom(datagram)
			if err != nil {
				return
			}
			s.Write(append(datagram[:n:n], '\n'))
		}
	}()
	return s
}

func (s *statsdStub) lines() []string {
	return strings.Split(strings.TrimSuffix(s.String(), "\n"), "\n")
}

// lastGauge is in the last line of a report.
const lastGauge = ".mem.gc.count:"

func (s *statsdStub) reports() int {
	return s.count(lastGauge)
}

var (
	linePattern   = regexp.MustCompile(`^([\w.-]+)\.((?:cpu|mem)\.[\w.]+):([0-9]+)\|g$`)
	amountPattern = regexp.MustCompile(`^[\w.-]+\.(?:mem\.allocated:\d+\|c|cpu\.(?:gc|total)_seconds:\d+\.\d{9}\|c|mem\.gc\.pause(?::\d+\.\d{6}\|ms)+)$`)
)

// report returns the lines of one report, from 0 on.
func (s *statsdStub) report(n int) []string {
	lines := s.lines()
	for i, line := range lines {
		if n == 0 || !strings.Contains(line, lastGauge) {
			continue
		}
		if n--; n == 0 {
			lines = lines[i+1:]
			break
		}
	}
	for i, line := range lines {
		if strings.Contains(line, lastGauge) {
			return lines[:i+1]
		}
	}
	return nil
}

// checkReport fails the test unless lines hold every gauge exactly once. It
// returns how many of them are 0.
func checkReport(t *testing.T, prefix string, lines []string) (zeros int) {
	t.Helper()
	seen := make(map[string]bool)
	for _, line := range lines {
		if amountPattern.MatchString(line) {
			continue
		}
		match := linePattern.FindStringSubmatch(line)
		if match == nil || match[1] != prefix {
			t.Errorf("bad line %q", line)
			continue
		}
		if seen[match[2]] {
			t.Errorf("%s was reported more than once", match[2])
		}
		seen[match[2]] = true
		if match[3] == "0" {
			zeros++
		}
	}
	for _, g := range newRecorder().take().gauges {
		if !seen[g.name] {
			t.Errorf("%s was not reported", g.name)
		}
	}
	return zeros
}

func unusedUDPAddress(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// startReporter returns what it logs and a function that ends it.
func startReporter(t *testing.T, address string) (logged reporterLog, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := reporter{address: address, prefix: "test", interval: testInterval}
		r.run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return reporterLog("StatsD at " + address + " "), stop
}

// testLog receives the log of all tests, which run in parallel.
var testLog syncBuffer

// reporterLog is the beginning of the lines that one reporter logs.
type reporterLog string

func (l reporterLog) count(what string) (n int) {
	for _, line := range strings.Split(testLog.String(), "\n") {
		if strings.HasPrefix(line, string(l)) && strings.Contains(line, what) {
			n++
		}
	}
	return n
}

func (l reporterLog) check(t *testing.T, unreachable, reachable int) {
	t.Helper()
	if l.count("is unreachable") != unreachable || l.count("is reachable again") != reachable ||
		l.count("") != unreachable+reachable {
		t.Errorf("want %d times unreachable, %d times reachable again, nothing else from %q; logged:\n%s",
			unreachable, reachable, string(l), &testLog)
	}
}

func TestReporterLogsOnceWhenStatsDGoesAndComes(t *testing.T) {
	t.Parallel()
	address := unusedUDPAddress(t)
	logged, stop := startReporter(t, address)
	for round := 1; round <= 2; round++ {
		eventually(t, "unreachable is logged", func() bool { return logged.count("is unreachable") == round })
		time.Sleep(8 * testInterval)
		logged.check(t, round, round-1)

		statsd := startStatsD(t, address)
		eventually(t, "metrics arrive", func() bool { return statsd.reports() >= 2 })
		logged.check(t, round, round)
		checkReport(t, "test", statsd.report(0))
		statsd.conn.Close()
	}
	eventually(t, "unreachable is logged", func() bool { return logged.count("is unreachable") == 3 })
	stop()
	logged.check(t, 3, 2)
}

func TestReporterEndsWithZeros(t *testing.T) {
	t.Parallel()
	statsd := startStatsD(t, "127.0.0.1:0")
	logged, stop := startReporter(t, statsd.address)
	eventually(t, "metrics arrive", func() bool { return statsd.reports() >= 2 })
	stop()
	time.Sleep(2 * testInterval)
	if zeros := checkReport(t, "test", statsd.report(statsd.reports()-1)); zeros != gaugeCount {
		t.Errorf("%d zeros in the last report, want %d", zeros, gaugeCount)
	}
	if n := statsd.count(".mem.sys:0|g"); n != 1 {
		t.Errorf("zeros were sent %d times, want once", n)
	}
	logged.check(t, 0, 0)
}

// useNameServer replaces the system's name servers for one test, which must not
// run in parallel.
func useNameServer(t *testing.T, address string) {
	system := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = system })
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", address)
		},
	}
}

// startNameServer answers every query with the IPv4 addresses that resolve was
// called with, or that the name does not exist while there are none.
func startNameServer(t *testing.T) (address string, resolve func(...string)) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var addresses atomic.Value
	resolve = func(to ...string) { addresses.Store(to) }
	resolve()
	go func() {
		message := make([]byte, 512)
		for {
			n, client, err := conn.ReadFrom(message)
			if err != nil {
				return
			}
			const header, typeAndClass = 12, 4
			question := message[header : header+bytes.IndexByte(message[header:n], 0)+1+typeAndClass]
			isA := binary.BigEndian.Uint16(question[len(question)-typeAndClass:]) == 1

			reply := append([]byte{message[0], message[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
			known := addresses.Load().([]string)
			if len(known) == 0 {
				reply[3] |= 3 // NXDOMAIN
			}
			for i := 0; isA && i < len(known); i++ {
				reply[7]++ // the number of answers: the name asked for, type A, class IN, TTL 0
				reply = append(reply, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, net.IPv4len)
				reply = append(reply, net.ParseIP(known[i]).To4()...)
			}
			conn.WriteTo(reply, client)
		}
	}()
	return conn.LocalAddr().String(), resolve
}

func TestReporterResolvesAnew(t *testing.T) {
	first := startStatsD(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(first.address)
	second := startStatsD(t, net.JoinHostPort("127.0.0.2", port))
	nameServer, resolve := startNameServer(t)
	useNameServer(t, nameServer)

	logged, _ := startReporter(t, net.JoinHostPort("statsd.test.", port))
	eventually(t, "unreachable is logged", func() bool { return logged.count("no such host") == 1 })
	time.Sleep(8 * testInterval)
	logged.check(t, 1, 0)

	resolve("127.0.0.1")
	eventually(t, "metrics arrive", func() bool { return first.reports() >= 2 })
	logged.check(t, 1, 1)

	resolve("127.0.0.2")
	first.conn.Close()
	eventually(t, "metrics arrive at the new address", func() bool { return second.reports() >= 2 })
	logged.check(t, 1, 1)
}

func TestReporterTriesEveryAddress(t *testing.T) {
	statsd := startStatsD(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(statsd.address)
	nameServer, resolve := startNameServer(t)
	useNameServer(t, nameServer)
	for i, addresses := range [][]string{{"127.0.0.1", "127.0.0.2"}, {"127.0.0.2", "127.0.0.1"}} {
		resolve(addresses...)
		logged, stop := startReporter(t, net.JoinHostPort("statsd.test.", port))
		eventually(t, "metrics arrive", func() bool { return statsd.reports() >= 2*i+1 })
		stop() // which sends the second report
		logged.check(t, 0, 0)
	}
}

func TestReporterStopsDuringLookup(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	useNameServer(t, silent.LocalAddr().String())

	logged, stop := startReporter(t, "statsd.test.:8125")
	if _, _, err := silent.ReadFrom(make([]byte, 512)); err != nil { // the lookup has begun
		t.Fatal(err)
	}
	start := time.Now()
	stop()
	if took := time.Since(start); took > lastReportTimeout+time.Second {
		t.Errorf("stopping took %v", took)
	}
	logged.check(t, 0, 0)
}

func TestServeReturnsServerErrors(t *testing.T) {
	t.Parallel()
	statsd := startStatsD(t, "127.0.0.1:0")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- serve(listener, config{statsd: statsd.address, prefix: "test", interval: time.Hour}, nil)
	}()
	eventually(t, "metrics arrive", func() bool { return statsd.reports() == 1 })

	listener.Close()
	select {
	case err := <-served:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("serve did not return")
	}
	eventually(t, "zeros arrive", func() bool { return statsd.count(".mem.sys:0|g") == 1 })
}
