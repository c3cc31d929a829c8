// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Go measures these from 1.20 on.
const (
	gcSeconds    = "/cpu/classes/gc/total:cpu-seconds"
	totalSeconds = "/cpu/classes/total:cpu-seconds"
)

// A recorder makes reports of what has happened since the last one.
type recorder struct {
	mutex sync.Mutex // the finalizers of watch run beside the reports

	collections uint32   // whose pauses are recorded
	pauseTotal  uint64   // nanoseconds, of the same collections
	pauses      []uint64 // of those among them that no report has yet
	history     debug.GCStats

	counted map[string]uint64 // by the names of counters
}

func newRecorder() *recorder {
	return &recorder{counted: make(map[string]uint64)}
}

// take makes the next report. Its pauses and gauges come from one look at the
// runtime: the pauses of all reports are those that the last gauges count.
func (r *recorder) take() report {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	r.record(stats.NumGC, stats.PauseTotalNs, func(n uint32) uint64 { return pauseBefore(&stats, n) })

	made := report{pauses: r.pauses, gauges: gauges(&stats)}
	r.pauses = nil
	made.counters = r.add(made.counters, "mem.allocated", stats.TotalAlloc, 1)
	samples := []metrics.Sample{{Name: gcSeconds}, {Name: totalSeconds}}
	metrics.Read(samples)
	for i, name := range []string{"cpu.gc_seconds", "cpu.total_seconds"} {
		if samples[i].Value.Kind() == metrics.KindFloat64 {
			made.counters = r.add(made.counters, name, uint64(samples[i].Value.Float64()*1e9), 1e9)
		}
	}
	return made
}

// add appends what a sum since the start of the program has grown by.
func (r *recorder) add(counters []counter, name string, sum, scale uint64) []counter {
	before := r.counted[name]
	if sum < before { // an estimate that the runtime has corrected
		sum = before
	}
	r.counted[name] = sum
	return append(counters, counter{name, sum - before, scale})
}

// watch records pauses in time: the runtime remembers the last 256, and a busy
// program has more between two reports. The finalizer of an object that nothing
// refers to runs after the next collection.
func (r *recorder) watch(ctx context.Context) {
	type sentinel struct{ recorder *recorder }
	runtime.SetFinalizer(&sentinel{r}, func(s *sentinel) {
		if ctx.Err() == nil {
			s.recorder.look()
			s.recorder.watch(ctx)
		}
	})
}

// look does not stop the world, as ReadMemStats does.
func (r *recorder) look() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	debug.ReadGCStats(&r.history)
	r.record(uint32(r.history.NumGC), uint64(r.history.PauseTotal), func(n uint32) uint64 { return uint64(r.history.Pause[n]) })
}

// record appends the pauses of the collections since it was called last.
// before(n) is the pause of the collection n before the last one. Of pauses
// that the runtime has forgotten, the number and the total are still known:
// each counts as their mean.
func (r *recorder) record(collections uint32, pauseTotal uint64, before func(n uint32) uint64) {
	remembered := collections - r.collections
	if limit := uint32(len(runtime.MemStats{}.PauseNs)); remembered > limit {
		remembered = limit
	}
	forgotten := collections - r.collections - remembered
	rest := pauseTotal - r.pauseTotal
	for n := uint32(0); n < remembered; n++ {
		rest -= before(n)
	}
	for ; forgotten > 0; forgotten-- {
		mean := rest / uint64(forgotten)
		r.pauses = append(r.pauses, mean)
		rest -= mean
	}
	for ; remembered > 0; remembered-- {
		r.pauses = append(r.pauses, before(remembered-1))
	}
	r.collections, r.pauseTotal = collections, pauseTotal
}
