// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: metricstack maintainers

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const runMain = "GO_RUNTIME_METRICS_RUN_MAIN"

// TestMain lets the test binary stand in for the program, so that signals and
// exit statuses are the real ones without a second build.
func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	log.SetFlags(0)
	log.SetOutput(&testLog)
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable, args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	return cmd
}

// runToEnd is for invocations that end on their own.
func runToEnd(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, err bytes.Buffer
	cmd := command(t, args...)
	cmd.Stdout, cmd.Stderr = &out, &err
	timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var exit *exec.ExitError
	if e := cmd.Run(); e != nil && !errors.As(e, &exit) {
		t.Fatal(e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

type process struct {
	cmd     *exec.Cmd
	stderr  syncBuffer
	address string
}

var listeningPattern = regexp.MustCompile(`(?m)^listening on (\S+),`)

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: command(t, append([]string{"-listen", "127.0.0.1:0", "-prefix", "test"}, args...)...)}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	eventually(t, "the server listens", func() bool {
		match := listeningPattern.FindStringSubmatch(p.stderr.String())
		if match != nil {
			p.address = match[1]
		}
		return match != nil
	})
	return p
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// checkExit returns how long the process took to exit with status 0.
func (p *process) checkExit(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	timer := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v, want exit status 0; stderr:\n%s", err, &p.stderr)
	}
	return time.Since(start)
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// startRequest withholds the body that it announces.
func startRequest(t *testing.T, p *process) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // for the server to read it
	return conn
}

// TestShutdownIsBounded comes first, as it takes longest and runs in parallel.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	statsd := startStatsD(t, "127.0.0.1:0")
	p := startProcess(t, "-statsd", statsd.address)
	startRequest(t, p)
	p.signal(t, syscall.SIGTERM)
	if took := p.checkExit(t); took < shutdownTimeout-time.Second || took > shutdownTimeout+2*time.Second {
		t.Errorf("exit took %v, want about %v", took, shutdownTimeout)
	}
	if p.stderr.count("cutting off") != 1 {
		t.Errorf("not logged:\n%s", &p.stderr)
	}
}

func TestShutdownAwaitsRequests(t *testing.T) {
	t.Parallel()
	statsd := startStatsD(t, "127.0.0.1:0")
	p := startProcess(t, "-statsd", statsd.address, "-interval", "1h")
	request := startRequest(t, p)

	p.signal(t, syscall.SIGTERM)
	eventually(t, "new connections are refused", func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	time.Sleep(500 * time.Millisecond)
	if n := statsd.count(".mem.sys:0|g"); n != 0 {
		t.Error("zeros were sent before the request ended")
	}

	if _, err := io.WriteString(request, "x"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(request), nil)
	if err != nil {
		t.Fatalf("the request was cut off: %v", err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	p.checkExit(t)
	eventually(t, "zeros arrive", func() bool { return statsd.count(".mem.sys:0|g") == 1 })
}

func TestSignalsEndWithZeros(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		signal := signal
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			statsd := startStatsD(t, "127.0.0.1:0")
			p := startProcess(t, "-statsd", statsd.address, "-interval", "1h")
			eventually(t, "the first report arrives", func() bool { return statsd.reports() == 1 })
			if zeros := checkReport(t, "test", statsd.report(0)); zeros > gaugeCount/2 {
				t.Errorf("%d zeros in the first report", zeros)
			}

			p.signal(t, signal)
			p.checkExit(t)
			eventually(t, "the last report arrives", func() bool { return statsd.reports() == 2 })
			if zeros := checkReport(t, "test", statsd.report(1)); zeros != gaugeCount {
				t.Errorf("%d zeros in the last report, want %d", zeros, gaugeCount)
			}
		})
	}
}

func TestServerAnswers(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "-statsd", unusedUDPAddress(t))
	for _, test := range []struct {
		path   string
		status int
		body   string
	}{
		{"/", http.StatusOK, "Welcome to this website!\n" + runtime.Version() + "\n"},
		{"/?query", http.StatusOK, "Welcome to this website!\n" + runtime.Version() + "\n"},
		{"/missing", http.StatusNotFound, "404 page not found\n"},
	} {
		if status, body := get(t, "http://"+p.address+test.path); status != test.status || body != test.body {
			t.Errorf("%s: %d %q, want %d %q", test.path, status, body, test.status, test.body)
		}
	}
}

func TestServerSurvivesWithoutStatsD(t *testing.T) {
	for name, address := range map[string]string{
		"closed port":       unusedUDPAddress(t),
		"unresolvable name": "statsd..invalid:8125", // refused without asking a name server
	} {
		address := address
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, "-statsd", address, "-interval", "1s")
			eventually(t, "unreachable is logged", func() bool { return p.stderr.count("is unreachable") == 1 })
			time.Sleep(1500 * time.Millisecond) // at least one more report
			if status, _ := get(t, "http://"+p.address+"/"); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
			p.signal(t, syscall.SIGTERM)
			p.checkExit(t)
			if lines := p.stderr.count("\n"); lines != 2 {
				t.Errorf("%d lines logged, want 2:\n%s", lines, &p.stderr)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	statsd := startStatsD(t, "127.0.0.1:0")
	address := listener.Addr().String()
	_, stderr, status := runToEnd(t, "-listen", address, "-statsd", statsd.address)
	if status != 1 || strings.Count(stderr, "\n") != 1 ||
		!strings.Contains(stderr, address) || !strings.Contains(stderr, "-listen") ||
		!strings.Contains(stderr, "address already in use") {
		t.Errorf("exit status %d, stderr:\n%s", status, stderr)
	}
	if statsd.String() != "" {
		t.Error("metrics were sent")
	}
}

func TestInvalidFlags(t *testing.T) {
	for _, test := range []struct {
		args []string
		want []string // the flag, the value and the cure
	}{
		{[]string{"-interval", "99ms"}, []string{"-interval", `"99ms"`, "at least 100ms"}},
		{[]string{"-interval", "-5s"}, []string{"-interval", `"-5s"`, "at least 100ms"}},
		{[]string{"-interval", "5"}, []string{"-interval", `"5"`, "with its unit"}},
		{[]string{"-interval", ""}, []string{"-interval", `""`, "with its unit"}},
		{[]string{"-interval"}, []string{"-interval", "needs an argument", "-help"}},
		{[]string{"-prefix", ""}, []string{"-prefix", `""`, "non-empty parts"}},
		{[]string{"-prefix", "."}, []string{"-prefix", `"."`, "non-empty parts"}},
		{[]string{"-prefix", ".go"}, []string{"-prefix", `".go"`, "non-empty parts"}},
		{[]string{"-prefix", "go."}, []string{"-prefix", `"go."`, "non-empty parts"}},
		{[]string{"-prefix", "go..web"}, []string{"-prefix", `"go..web"`, "non-empty parts"}},
		{[]string{"-prefix", "go:web"}, []string{"-prefix", `"go:web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go|web"}, []string{"-prefix", `"go|web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go@web"}, []string{"-prefix", `"go@web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go#web"}, []string{"-prefix", `"go#web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go/web"}, []string{"-prefix", `"go/web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go web"}, []string{"-prefix", `"go web"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "go\n"}, []string{"-prefix", `"go\n"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", "gö"}, []string{"-prefix", `"gö"`, "A-Z a-z 0-9 _ -"}},
		{[]string{"-prefix", strings.Repeat("p", 256)}, []string{"-prefix", `"ppp`, "at most 255"}},
		{[]string{"-listen", ""}, []string{"-listen", `""`, "host:port"}},
		{[]string{"-listen", "localhost"}, []string{"-listen", `"localhost"`, "host:port"}},
		{[]string{"-listen", "localhost:http"}, []string{"-listen", `"localhost:http"`, "host:port"}},
		{[]string{"-listen", "127.0.0.1:65536"}, []string{"-listen", `"127.0.0.1:65536"`, "host:port"}},
		{[]string{"-statsd", "::1:8125"}, []string{"-statsd", `"::1:8125"`, "[::1]:8125"}},
		{[]string{"-statsd", "127.0.0.1"}, []string{"-statsd", `"127.0.0.1"`, "host:port"}},
		{[]string{"-statsd", ":8125"}, []string{"-statsd", `":8125"`, "host:port"}},
		{[]string{"-statsd", "localhost:0"}, []string{"-statsd", `"localhost:0"`, "host:port"}},
		{[]string{"-statsd", "local host:8125"}, []string{"-statsd", `"local host:8125"`, "host:port"}},
		{[]string{"-statsd", "udp://localhost:8125"}, []string{"-statsd", `"udp://localhost:8125"`, "host:port"}},
		{[]string{"-version=maybe"}, []string{"-version", `"maybe"`, "-help"}},
		{[]string{"-unknown"}, []string{"-unknown", "not defined", "-help"}},
		{[]string{"stray"}, []string{`"stray"`, "use flags only", "-help"}},
		{[]string{"-interval", "5s", "-version", "stray"}, []string{`"stray"`, "use flags only"}},
	} {
		stdout, stderr, status := runToEnd(t, test.args...)
		if status != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, stdout %q, stderr %q", test.args, status, stdout, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q: %s is missing from %q", test.args, want, stderr)
			}
		}
	}
}

func TestValidFlags(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"-interval", "0.1s"},
		{"-interval", "1h30m"},
		{"-prefix", "go"},
		{"-prefix", "A-Z.a_z.09"},
		{"-prefix", strings.Repeat("p", 255)},
		{"-listen", ":8000"},
		{"-listen", "[::]:0"},
		{"-statsd", "[fe80::1%eth0]:8125"},
		{"-statsd", "statsd.example.org:65535"},
	} {
		if _, err := parseFlags(args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := parseFlags(nil)
	want := config{
		listen:   "127.0.0.1:8000",
		statsd:   "127.0.0.1:8125",
		prefix:   defaultPrefix(os.Hostname()),
		interval: 5 * time.Second,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestDefaultPrefix(t *testing.T) {
	for _, test := range []struct {
		host string
		err  error
		want string
	}{
		{"web-1", nil, "go.web-1"},
		{"web1.example.org", nil, "go.web1_example_org"},
		{"A_z 0:9", nil, "go.A_z_0_9"},
		{"", nil, "go.unknown"},
		{"", os.ErrPermission, "go.unknown"},
	} {
		if got := defaultPrefix(test.host, test.err); got != test.want {
			t.Errorf("host %q, %v: %q, want %q", test.host, test.err, got, test.want)
		}
	}
}

func TestVersion(t *testing.T) {
	stdout, stderr, status := runToEnd(t, "-version")
	if stdout != runtime.Version()+"\n" || stderr != "" || status != 0 {
		t.Errorf("exit status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestHelp(t *testing.T) {
	stdout, stderr, status := runToEnd(t, "-help")
	if stderr != "" || status != 0 {
		t.Errorf("exit status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{"127.0.0.1:8000", "127.0.0.1:8125", defaultPrefix(os.Hostname()), "at least 100ms", "default 5s"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%s is missing from:\n%s", want, stdout)
		}
	}
}
