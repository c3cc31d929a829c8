// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"context"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"
)

// collect makes reports until the runtime has ended n collections, some of them
// between two reports.
func collect(r *recorder, n, betweenReports int) (reports []report) {
	for i := 1; i <= n; i++ {
		runtime.GC()
		if i%betweenReports == 0 {
			reports = append(reports, r.take())
		}
	}
	return append(reports, r.take())
}

func sumOfPauses(reports []report) (count, total uint64) {
	for _, one := range reports {
		count += uint64(len(one.pauses))
		for _, pause := range one.pauses {
			total += pause
		}
	}
	return count, total
}

// More between two reports than the runtime remembers, watched or not.
func TestPausesAreCountedExactly(t *testing.T) {
	for _, test := range []struct {
		name       string
		watched    bool
		n, between int
	}{
		{"few", true, 20, 3},
		{"every one in a report of its own", true, 20, 1},
		{"as many as remembered", false, 256, 256},
		{"many", true, 520, 260},
		{"many that nobody watches", false, 520, 260},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		r := newRecorder()
		first := gaugeValues(t, r.take().gauges)
		if test.watched {
			r.watch(ctx)
		}
		reports := collect(r, test.n, test.between)
		last := gaugeValues(t, reports[len(reports)-1].gauges)
		cancel()

		count, total := sumOfPauses(reports)
		if want := last["mem.gc.count"] - first["mem.gc.count"]; count != want || count < uint64(test.n) {
			t.Errorf("%s: %d pauses, want %d, at least %d", test.name, count, want, test.n)
		}
		if want := last["mem.gc.pause_total"] - first["mem.gc.pause_total"]; total != want || total == 0 {
			t.Errorf("%s: pauses of %d ns, want %d ns", test.name, total, want)
		}
	}
}

func TestTheFirstReportHasEveryPauseSinceTheStart(t *testing.T) {
	runtime.GC()
	one := newRecorder().take()
	values := gaugeValues(t, one.gauges)
	if count, total := sumOfPauses([]report{one}); count != values["mem.gc.count"] || total != values["mem.gc.pause_total"] {
		t.Errorf("%d pauses of %d ns, want %d of %d ns", count, total, values["mem.gc.count"], values["mem.gc.pause_total"])
	}
}

// Watched, each of them is known and none is a mean: the same that the runtime
// remembers, although it has forgotten most of them by the time of the report.
func TestWatchedPausesAreThoseOfTheRuntime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no collection but the forced ones
	r := newRecorder()
	r.take()
	r.watch(ctx)
	var want []uint64
	for i := 0; i < 520; i++ {
		runtime.GC()
		var stats runtime.MemStats
		if i%130 == 129 {
			eventually(t, "the pauses are recorded", func() bool {
				runtime.ReadMemStats(&stats)
				r.mutex.Lock()
				defer r.mutex.Unlock()
				return r.collections == stats.NumGC
			})
			for n := uint32(130); n > 0; n-- {
				want = append(want, pauseBefore(&stats, n-1))
			}
		}
	}
	if got := r.take().pauses; !reflect.DeepEqual(got, want) {
		t.Errorf("%d pauses, want %d", len(got), len(want))
		for i := range got {
			if i < len(want) && got[i] != want[i] {
				t.Fatalf("pause %d is %d ns, want %d ns", i, got[i], want[i])
			}
		}
	}
}

func TestForgottenPausesCountAsTheirMean(t *testing.T) {
	const forgotten, remembered = 3, 256
	r := newRecorder()
	r.record(10, 1000, func(uint32) uint64 { return 100 })
	r.pauses = nil
	r.record(10+forgotten+remembered, 1000+20+remembered*7, func(uint32) uint64 { return 7 })
	if want := []uint64{6, 7, 7, 7}; len(r.pauses) != forgotten+remembered || !reflect.DeepEqual(r.pauses[:4], want) {
		t.Errorf("%d pauses that begin with %d, want %d and %d", len(r.pauses), r.pauses[:4], forgotten+remembered, want)
	}
	r.pauses = nil
	r.record(10+forgotten+remembered, 1000+20+remembered*7, nil)
	if len(r.pauses) != 0 {
		t.Errorf("%d pauses without a collection", len(r.pauses))
	}
}

func TestPausesAreInTheirOrder(t *testing.T) {
	r := newRecorder()
	r.collections = 1<<32 - 2 // the counter of the runtime has 32 bits
	r.record(1, 111+222+333, func(n uint32) uint64 { return []uint64{333, 222, 111}[n] })
	if want := []uint64{111, 222, 333}; !reflect.DeepEqual(r.pauses, want) {
		t.Errorf("pauses are %d, want %d", r.pauses, want)
	}
}

var garbage []byte

func counters(r report) map[string]uint64 {
	values := make(map[string]uint64)
	for _, c := range r.counters {
		values[c.name] = c.value
	}
	return values
}

func TestCountersAreWhatHasBeenAdded(t *testing.T) {
	r := newRecorder()
	sum := counters(r.take())
	cpu := hasCPUClasses()
	if _, ok := sum["cpu.gc_seconds"]; ok != cpu || len(sum) != map[bool]int{true: 3, false: 1}[cpu] {
		t.Errorf("counters are %v; Go measures processor time: %v", sum, cpu)
	}
	first := time.Now()
	for i := 0; i < 3; i++ {
		for j := 0; j < 200; j++ {
			garbage = make([]byte, 1<<20)
		}
		one := r.take()
		values := counters(one)
		if values["mem.allocated"] < 200<<20 || values["mem.allocated"] > 220<<20 {
			t.Errorf("%d bytes allocated, want about %d", values["mem.allocated"], 200<<20)
		}
		for name, value := range values {
			sum[name] += value
		}
		if total := gaugeValues(t, one.gauges)["mem.total"]; sum["mem.allocated"] != total {
			t.Errorf("%d bytes allocated in all, want %d", sum["mem.allocated"], total)
		}
	}
	if !cpu {
		return
	}
	if sum["cpu.gc_seconds"] == 0 || sum["cpu.gc_seconds"] >= sum["cpu.total_seconds"] {
		t.Errorf("%d ns of %d ns for the garbage collector", sum["cpu.gc_seconds"], sum["cpu.total_seconds"])
	}
	least := uint64(time.Since(first)) * uint64(runtime.GOMAXPROCS(0))
	if sum["cpu.total_seconds"] < least/2 {
		t.Errorf("%d ns of processors in all, want at least %d", sum["cpu.total_seconds"], least/2)
	}
}

func TestCountersDoNotShrink(t *testing.T) {
	r := newRecorder()
	var values []uint64
	for _, sum := range []uint64{5, 3, 9} {
		values = append(values, r.add(nil, "a", sum, 1)[0].value)
	}
	if want := []uint64{5, 0, 4}; !reflect.DeepEqual(values, want) {
		t.Errorf("values are %d, want %d", values, want)
	}
}

func hasCPUClasses() bool {
	for _, description := range metrics.All() {
		if description.Name == gcSeconds {
			return true
		}
	}
	return false
}

// Through the socket, with what has happened between the last report and the end.
func TestStatsDGetsEveryPause(t *testing.T) {
	statsd := startStatsD(t, "127.0.0.1:0")
	_, stop := startReporter(t, statsd.address)
	eventually(t, "metrics arrive", func() bool { return statsd.reports() >= 1 })
	for i := 0; i < 300; i++ {
		runtime.GC()
	}
	eventually(t, "another report arrives", func() bool { return statsd.reports() >= 3 })
	runtime.GC()
	stop()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	eventually(t, "zeros arrive", func() bool { return statsd.count(".mem.gc.count:0|g") == 1 })

	var nanoseconds uint64
	for _, line := range statsd.lines() {
		values := strings.Split(line, ":")
		for _, value := range values[1:] {
			if strings.HasSuffix(value, "|ms") {
				pause, err := strconv.ParseFloat(strings.TrimSuffix(value, "|ms"), 64)
				if err != nil {
					t.Fatal(err)
				}
				nanoseconds += uint64(pause*1e6 + 0.5)
			}
		}
	}
	if n := statsd.count("|ms"); n != int(stats.NumGC) || nanoseconds != stats.PauseTotalNs {
		t.Errorf("%d pauses of %d ns, want %d of %d ns", n, nanoseconds, stats.NumGC, stats.PauseTotalNs)
	}
}
