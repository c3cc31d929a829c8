// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"fmt"
	"runtime"
)

// maxDatagramSize is what StatsD advises for Ethernet: an MTU of 1500 bytes
// with room for the headers, so that no datagram is fragmented on its way.
const maxDatagramSize = 1432

type gauge struct {
	name  string
	value uint64
}

func collectGauges() []gauge {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return append([]gauge{
		{"cpu.goroutines", uint64(runtime.NumGoroutine())},
		{"cpu.cgo_calls", uint64(runtime.NumCgoCall())},
	}, memoryGauges(&stats)...)
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
		// PauseNs is a ring buffer; before the first collection this is its
		// last element, which is still 0.
		{"mem.gc.pause", stats.PauseNs[(stats.NumGC+255)%256]},
		{"mem.gc.pause_total", stats.PauseTotalNs},
		{"mem.gc.count", uint64(stats.NumGC)},
	}
}

// zeroGauges clears every gauge, as StatsD would go on repeating the last
// values of a program that has ended.
func zeroGauges() []gauge {
	gauges := collectGauges()
	for i := range gauges {
		gauges[i].value = 0
	}
	return gauges
}

// packDatagrams relies on maxPrefixLength to keep each line within a datagram.
func packDatagrams(prefix string, gauges []gauge) [][]byte {
	var datagrams [][]byte
	var datagram []byte
	for _, g := range gauges {
		line := fmt.Sprintf("%s.%s:%d|g", prefix, g.name, g.value)
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
