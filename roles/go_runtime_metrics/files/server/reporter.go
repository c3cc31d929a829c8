// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"time"
)

const (
	// icmpTimeout is ample for an error to come back; StatsD never answers.
	icmpTimeout = 200 * time.Millisecond

	// lastReportTimeout keeps a slow name server from delaying the exit.
	lastReportTimeout = time.Second
)

type reporter struct {
	address  string
	prefix   string
	interval time.Duration

	conn        net.Conn // nil if the next report has to resolve the name
	unreachable bool     // as logged last
}

// run reports until ctx is cancelled. All sending happens in this goroutine,
// so nothing can follow the zeros.
func (r *reporter) run(ctx context.Context) {
	recorded := newRecorder()
	recorded.watch(ctx)
	ticker := time.NewTicker(r.interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		r.report(ctx, recorded.take())
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}

	last, cancel := context.WithTimeout(context.Background(), lastReportTimeout)
	defer cancel()
	end := recorded.take()
	end.clearGauges()
	r.report(last, end)
}

// report logs changes only: StatsD may be away for days. What StatsD has missed
// meanwhile is not sent later, when it would be taken for what happens then.
func (r *reporter) report(ctx context.Context, what report) {
	err := r.send(ctx, packDatagrams(r.prefix, what.lines()))
	if ctx.Err() != nil {
		return // an interrupted attempt says nothing about StatsD
	}
	switch {
	case err != nil && !r.unreachable:
		log.Printf("StatsD at %s is unreachable, trying again every %v: %v", r.address, r.interval, err)
	case err == nil && r.unreachable:
		log.Printf("StatsD at %s is reachable again", r.address)
	}
	r.unreachable = err != nil
}

func (r *reporter) send(ctx context.Context, datagrams [][]byte) error {
	if r.conn != nil {
		if deliver(r.conn, datagrams) == nil {
			return nil
		}
		// The error may concern an earlier report or an address that StatsD
		// has left, so start afresh. Whoever refused a datagram counted none.
		r.disconnect()
	}

	host, port, err := net.SplitHostPort(r.address)
	if err != nil {
		return err
	}
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	// Dialling UDP succeeds for any address, so net.Dial would settle for the
	// first one, often IPv6, whereas StatsD listens on IPv4 only by default.
	for _, address := range addresses {
		if r.conn, err = net.Dial("udp", net.JoinHostPort(address.String(), port)); err != nil {
			continue
		}
		if err = deliver(r.conn, datagrams); err == nil {
			return nil
		}
		r.disconnect()
	}
	return err
}

func (r *reporter) disconnect() {
	r.conn.Close()
	r.conn = nil
}

// deliver returns nil if nothing indicates that StatsD is away. Writing to a
// closed port succeeds; its ICMP error only surfaces in the next operation on
// the socket, which is why a read follows.
func deliver(conn net.Conn, datagrams [][]byte) error {
	for _, datagram := range datagrams {
		if _, err := conn.Write(datagram); err != nil {
			return err
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(icmpTimeout)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
