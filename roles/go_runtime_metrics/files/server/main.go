// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

// Command go-runtime-metrics answers HTTP requests and reports the metrics of
// its own Go runtime to StatsD.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	minInterval     = 100 * time.Millisecond
	maxPrefixLength = 255 // keeps every line far below maxDatagramSize
	shutdownTimeout = 5 * time.Second
)

var (
	hostPattern = regexp.MustCompile(`^[\w.:%-]*$`)

	// StatsD rewrites other characters or takes them for syntax.
	prefixPattern   = regexp.MustCompile(`^[\w-]+(\.[\w-]+)*$`)
	notInPrefixPart = regexp.MustCompile(`[^\w-]`)
)

type config struct {
	listen   string
	statsd   string
	prefix   string
	interval time.Duration
	version  bool
}

func main() {
	log.SetFlags(0) // journald adds timestamps of its own

	cfg, err := parseFlags(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		log.Print(err)
		os.Exit(2)
	case cfg.version:
		fmt.Println(runtime.Version())
		return
	}

	// Before the first report, so that no signal can skip the zeros.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)

	listener, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		log.Fatalf("cannot serve HTTP, choose a free address with -listen: %v", err)
	}
	log.Printf("listening on %s, reporting %s.* to StatsD at %s every %v",
		listener.Addr(), cfg.prefix, cfg.statsd, cfg.interval)
	if err := serve(listener, cfg, signals); err != nil {
		log.Fatalf("cannot go on serving HTTP: %v", err)
	}
}

func parseFlags(args []string) (config, error) {
	cfg := config{interval: 5 * time.Second}
	flags := flag.NewFlagSet("go-runtime-metrics", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error would drown in the usage text
	flags.StringVar(&cfg.listen, "listen", "127.0.0.1:8000",
		"`host:port` to serve HTTP on; without host every address, with port 0 any free port")
	flags.StringVar(&cfg.statsd, "statsd", "127.0.0.1:8125", "`host:port` of StatsD (UDP)")
	flags.StringVar(&cfg.prefix, "prefix", defaultPrefix(os.Hostname()),
		"`prefix` of the metric names: parts of A-Z a-z 0-9 _ - joined by dots")
	flags.Func("interval", "`duration` between reports with its unit, such as 10s or 1m; at least 100ms (default 5s)",
		func(value string) (err error) {
			cfg.interval, err = time.ParseDuration(value)
			if err != nil || cfg.interval < minInterval {
				return errors.New("use a duration of at least 100ms with its unit, such as 10s or 1m")
			}
			return nil
		})
	flags.BoolVar(&cfg.version, "version", false, "print the version of Go and exit (default false)")

	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stdout)
		flags.Usage()
		return cfg, err
	}
	invalid := func(name, cure string) error {
		return fmt.Errorf("invalid value %q for flag -%s: %s", flags.Lookup(name).Value, name, cure)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("%w (-help explains the flags)", err)
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: use flags only (-help explains them)", flags.Arg(0))
	case !isAddress(cfg.listen, true):
		err = invalid("listen", "use host:port, such as 127.0.0.1:8000, [::1]:8000 or :8000")
	case !isAddress(cfg.statsd, false):
		err = invalid("statsd", "use host:port, such as 127.0.0.1:8125 or [::1]:8125")
	case !prefixPattern.MatchString(cfg.prefix) || len(cfg.prefix) > maxPrefixLength:
		err = invalid("prefix", "use non-empty parts of A-Z a-z 0-9 _ - joined by dots, such as go.web1, "+
			"at most 255 characters in all")
	}
	return cfg, err
}

// defaultPrefix makes a single part of the host name, lest its dots open
// levels of their own in the tree of metrics.
func defaultPrefix(host string, err error) string {
	if err != nil || host == "" {
		host = "unknown"
	}
	return "go." + notInPrefixPart.ReplaceAllString(host, "_")
}

// isAddress does not resolve the host: its name server may be away for now.
func isAddress(address string, wildcard bool) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !hostPattern.MatchString(host) {
		return false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (wildcard || host != "" && number != 0)
}

// serve returns when a signal arrives or the HTTP server fails.
func serve(listener net.Listener, cfg config, signals <-chan os.Signal) error {
	ctx, stopReporting := context.WithCancel(context.Background())
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		r := reporter{address: cfg.statsd, prefix: cfg.prefix, interval: cfg.interval}
		r.run(ctx)
	}()
	// Last, as the program is alive for as long as it answers requests.
	defer func() {
		stopReporting()
		<-reported
	}()

	// The timeouts keep slow or vanished clients from piling up connections.
	server := &http.Server{
		Handler:           http.HandlerFunc(welcome),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	select {
	case err := <-failed:
		return err
	case <-signals:
	}
	shutdown, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil {
		log.Printf("cutting off requests still unfinished after %v: %v", shutdownTimeout, err)
		server.Close()
	}
	return nil
}

func welcome(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "Welcome to this website!\n%s\n", runtime.Version())
}
