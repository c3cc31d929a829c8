// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"fmt"
	"runtime"
	"strings"
)

const (
	// maxDatagramSize is what StatsD advises for Ethernet: an MTU of 1500 bytes
	// with room for the headers, so that no datagram is fragmented on its way.
	maxDatagramSize = 1432

	// maxPausesPerLine keeps a line within a datagram, however long its prefix
	// and the pauses are.
	maxPausesPerLine = 32
)

type gauge struct {
	name  string
	value uint64
}

// A counter is what has been added since the report before. Its value is in
// units of 1/scale, so that no fraction gets lost.
type counter struct {
	name  string
	value uint64
	scale uint64
}

// A report is what StatsD is told at one time.
type report struct {
	counters []counter
	pauses   []uint64 // nanoseconds, in their order
	gauges   []gauge
}

// lines returns the lines of StatsD without the prefix of their names.
func (r report) lines() []string {
	var lines []string
	for _, c := range r.counters {
		lines = append(lines, c.name+":"+decimal(c.value, c.scale)+"|c")
	}
	for rest := r.pauses; len(rest) > 0; {
		n := len(rest)
		if n > maxPausesPerLine {
			n = maxPausesPerLine
		}
		var line strings.Builder
		line.WriteString("mem.gc.pause")
		for _, pause := range rest[:n] {
			line.WriteString(":" + decimal(pause, 1e6) + "|ms")
		}
		lines = append(lines, line.String())
		rest = rest[n:]
	}
	for _, g := range r.gauges {
		lines = append(lines, fmt.Sprintf("%s:%d|g", g.name, g.value))
	}
	return lines
}

// decimal returns value/scale without rounding; scale is a power of ten.
func decimal(value, scale uint64) string {
	if scale == 1 {
		return fmt.Sprint(value)
	}
	return fmt.Sprintf("%d.%0*d", value/scale, len(fmt.Sprint(scale))-1, value%scale)
}

// clearGauges makes this the last report, as StatsD would go on repeating the
// last values of a program that has ended.
func (r report) clearGauges() {
	for i := range r.gauges {
		r.gauges[i].value = 0
	}
}

func gauges(stats *runtime.MemStats) []gauge {
	return append([]gauge{
		{"cpu.goroutines", uint64(runtime.NumGoroutine())},
		{"cpu.cgo_calls", uint64(runtime.NumCgoCall())},
	}, memoryGauges(stats)...)
}

// memoryGauges keeps the names of the go-runtime-metrics library, for which
// dashboards exist, even where they do not follow the names in MemStats.
func memoryGauges(stats *runtime.MemStats) []gauge {
	return []gauge{
		{"mem.alloc", stats.Alloc},
		{"mem.total", stats.TotalAlloc},
		{"mem.sys", stats.Sys},
		{"mem.lookups", stats.Lookups},
		{"mem.malloc", stats.Mallocs},
		{"mem.frees", stats.Frees},

		{"mem.heap.alloc", stats.HeapAlloc},
		{"mem.heap.sys", stats.HeapSys},
		{"mem.heap.idle", stats.HeapIdle},
		{"mem.heap.inuse", stats.HeapInuse},
		{"mem.heap.released", stats.HeapReleased},
		{"mem.heap.objects", stats.HeapObjects},

		{"mem.stack.inuse", stats.StackInuse},
		{"mem.stack.sys", stats.StackSys},
		{"mem.stack.mspan_inuse", stats.MSpanInuse},
		{"mem.stack.mspan_sys", stats.MSpanSys},
		{"mem.stack.mcache_inuse", stats.MCacheInuse},
		{"mem.stack.mcache_sys", stats.MCacheSys},

		{"mem.othersys", stats.OtherSys},

		{"mem.gc.sys", stats.GCSys},
		{"mem.gc.next", stats.NextGC},
		{"mem.gc.last", stats.LastGC},
		{"mem.gc.pause", pauseBefore(stats, 0)},
		{"mem.gc.pause_total", stats.PauseTotalNs},
		{"mem.gc.count", uint64(stats.NumGC)},
	}
}

// pauseBefore returns the pause of the collection n before the last one. PauseNs
// is a ring buffer; what it has not been filled with yet is 0.
func pauseBefore(stats *runtime.MemStats, n uint32) uint64 {
	return stats.PauseNs[(stats.NumGC-1-n)%uint32(len(stats.PauseNs))]
}

// packDatagrams relies on maxPrefixLength to keep each line within a datagram.
func packDatagrams(prefix string, lines []string) [][]byte {
	var datagrams [][]byte
	var datagram []byte
	for _, line := range lines {
		line = prefix + "." + line
		switch {
		case len(datagram) == 0:
		case len(datagram)+len("\n")+len(line) <= maxDatagramSize:
			datagram = append(datagram, '\n')
		default:
			datagrams = append(datagrams, datagram)
			datagram = nil
		}
		datagram = append(datagram, line...)
	}
	return append(datagrams, datagram)
}
