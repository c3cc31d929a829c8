// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"bytes"
	"math"
	"net"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// memStatsFields maps the gauges to the MemStats fields that must feed them.
var memStatsFields = map[string]string{
	"mem.alloc":              "Alloc",
	"mem.total":              "TotalAlloc",
	"mem.sys":                "Sys",
	"mem.lookups":            "Lookups",
	"mem.malloc":             "Mallocs",
	"mem.frees":              "Frees",
	"mem.heap.alloc":         "HeapAlloc",
	"mem.heap.sys":           "HeapSys",
	"mem.heap.idle":          "HeapIdle",
	"mem.heap.inuse":         "HeapInuse",
	"mem.heap.released":      "HeapReleased",
	"mem.heap.objects":       "HeapObjects",
	"mem.stack.inuse":        "StackInuse",
	"mem.stack.sys":          "StackSys",
	"mem.stack.mspan_inuse":  "MSpanInuse",
	"mem.stack.mspan_sys":    "MSpanSys",
	"mem.stack.mcache_inuse": "MCacheInuse",
	"mem.stack.mcache_sys":   "MCacheSys",
	"mem.othersys":           "OtherSys",
	"mem.gc.sys":             "GCSys",
	"mem.gc.next":            "NextGC",
	"mem.gc.last":            "LastGC",
	"mem.gc.pause_total":     "PauseTotalNs",
	"mem.gc.count":           "NumGC",
}

// gaugeCount adds cpu.goroutines, cpu.cgo_calls and mem.gc.pause.
var gaugeCount = len(memStatsFields) + 3

// gaugeValues fails the test if a name occurs twice.
func gaugeValues(t *testing.T, gauges []gauge) map[string]uint64 {
	t.Helper()
	values := make(map[string]uint64)
	for _, g := range gauges {
		if _, ok := values[g.name]; ok {
			t.Errorf("%s occurs more than once", g.name)
		}
		values[g.name] = g.value
	}
	return values
}

func TestMemoryGaugesUseTheirFields(t *testing.T) {
	var stats runtime.MemStats
	fields := reflect.ValueOf(&stats).Elem()
	for i := 0; i < fields.NumField(); i++ {
		if fields.Field(i).CanUint() {
			fields.Field(i).SetUint(uint64(1000 + i))
		}
	}
	values := gaugeValues(t, memoryGauges(&stats))
	for name, field := range memStatsFields {
		if got, want := values[name], fields.FieldByName(field).Uint(); got != want {
			t.Errorf("%s = %d, want %s = %d", name, got, field, want)
		}
	}
}

func TestPauseIsTheMostRecent(t *testing.T) {
	for _, test := range []struct {
		numGC uint32
		want  uint64
	}{{0, 0}, {1, 100}, {2, 101}, {255, 354}, {256, 355}, {257, 100}} {
		stats := runtime.MemStats{NumGC: test.numGC}
		for i := 0; i < int(test.numGC) && i < len(stats.PauseNs); i++ {
			stats.PauseNs[i] = uint64(100 + i)
		}
		if got := gaugeValues(t, memoryGauges(&stats))["mem.gc.pause"]; got != test.want {
			t.Errorf("after %d collections mem.gc.pause = %d, want %d", test.numGC, got, test.want)
		}
	}
}

func TestGauges(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collection but the forced one
	runtime.GC()
	stop := make(chan struct{})
	defer close(stop)
	for i := 0; i < 7; i++ { // to tell goroutines from cgo calls
		go func() { <-stop }()
	}

	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	values := gaugeValues(t, newRecorder().take().gauges)

	if len(values) != gaugeCount {
		t.Errorf("%d gauges, want %d", len(values), gaugeCount)
	}
	for name, want := range map[string]uint64{
		"cpu.cgo_calls":      uint64(runtime.NumCgoCall()),
		"mem.gc.count":       uint64(stats.NumGC),
		"mem.gc.last":        stats.LastGC,
		"mem.gc.pause":       stats.PauseNs[(stats.NumGC-1)%256],
		"mem.gc.pause_total": stats.PauseTotalNs,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	for name, atLeast := range map[string]uint64{
		"cpu.goroutines": 7 + 1,
		"mem.alloc":      1,
		"mem.total":      stats.TotalAlloc,
		"mem.malloc":     stats.Mallocs,
		"mem.sys":        values["mem.heap.sys"],
		"mem.gc.pause":   1,
	} {
		if values[name] < atLeast {
			t.Errorf("%s = %d, want at least %d", name, values[name], atLeast)
		}
	}
}

func TestClearGauges(t *testing.T) {
	last := newRecorder().take()
	last.clearGauges()
	values := gaugeValues(t, last.gauges)
	if len(values) != gaugeCount {
		t.Errorf("%d gauges, want %d", len(values), gaugeCount)
	}
	for name, value := range values {
		if value != 0 {
			t.Errorf("%s = %d, want 0", name, value)
		}
	}
}

func TestLines(t *testing.T) {
	made := report{
		counters: []counter{{"mem.allocated", 4096, 1}, {"cpu.gc_seconds", 1_000_000_020, 1e9}, {"cpu.total_seconds", 0, 1e9}},
		gauges:   []gauge{{"mem.sys", math.MaxUint64}},
	}
	for pause := uint64(1); pause <= maxPausesPerLine+2; pause++ {
		made.pauses = append(made.pauses, 999_999+pause)
	}
	lines := made.lines()
	want := []string{
		"mem.allocated:4096|c",
		"cpu.gc_seconds:1.000000020|c",
		"cpu.total_seconds:0.000000000|c",
		"mem.gc.pause:1.000000|ms:1.000001|ms:1.000002|ms",
		"mem.gc.pause:1.000032|ms:1.000033|ms",
		"mem.sys:18446744073709551615|g",
	}
	for i, line := range lines {
		if i >= len(want) || !strings.HasPrefix(line, want[i]) || i != 3 && line != want[i] {
			t.Fatalf("lines are %q, want %q", lines, want)
		}
	}
	if n := strings.Count(lines[3], "|ms"); n != maxPausesPerLine || len(lines) != len(want) {
		t.Errorf("%d lines, %d pauses in the first of two, want %d and %d", len(lines), n, len(want), maxPausesPerLine)
	}
}

func TestPackDatagrams(t *testing.T) {
	made := newRecorder().take()
	for i := range made.gauges {
		made.gauges[i].value = math.MaxUint64
	}
	for i := range made.counters {
		made.counters[i].value = math.MaxUint64
	}
	made.pauses = nil
	for i := 0; i < 10*maxPausesPerLine+1; i++ {
		made.pauses = append(made.pauses, math.MaxUint64)
	}
	for _, length := range []int{1, 20, 100, maxPrefixLength} {
		prefix := strings.Repeat("p", length)
		var want []string
		for _, line := range made.lines() {
			want = append(want, prefix+"."+line)
		}

		datagrams := packDatagrams(prefix, made.lines())
		lines := strings.Split(string(bytes.Join(datagrams, []byte("\n"))), "\n")
		if !reflect.DeepEqual(lines, want) {
			t.Errorf("prefix of %d: lines are %q, want %q", length, lines, want)
		}
		for i, datagram := range datagrams {
			if len(datagram) > maxDatagramSize {
				t.Errorf("prefix of %d: datagram of %d bytes", length, len(datagram))
			}
			if i > 0 {
				line, _, _ := strings.Cut(string(datagram), "\n")
				if unused := maxDatagramSize - len(datagrams[i-1]); unused > len(line) {
					t.Errorf("prefix of %d: datagram with room for another line", length)
				}
			}
		}
	}
}

func TestPackDatagramsFillsToTheByte(t *testing.T) {
	const limit = 1432 // StatsD's documentation
	prefix := strings.Repeat("p", 100)
	first := len(prefix + ".first:0|g")
	for _, test := range []struct{ total, datagrams int }{{limit - 1, 1}, {limit, 1}, {limit + 1, 2}} {
		second := test.total - first - len("\n")
		name := strings.Repeat("n", second-len(prefix+".:0|g"))
		if got := len(packDatagrams(prefix, []string{"first:0|g", name + ":0|g"})); got != test.datagrams {
			t.Errorf("%d bytes take %d datagrams, want %d", test.total, got, test.datagrams)
		}
	}
}

func BenchmarkReport(b *testing.B) {
	statsd, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer statsd.Close()
	conn, err := net.Dial("udp", statsd.LocalAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()

	recorded := newRecorder()
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		// Without the wait for an ICMP error, which is idle time.
		for _, datagram := range packDatagrams("go.benchmark", recorded.take().lines()) {
			if _, err := conn.Write(datagram); err != nil {
				b.Fatal(err)
			}
		}
	}
}
