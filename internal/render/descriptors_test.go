package render

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
)

// descriptors are reports of processes whose descriptors were listed.
func descriptors() map[string]*leak.Report {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	frame := func(function, file string, line int, module string) leak.StackFrame {
		return leak.StackFrame{Function: function, File: file, Line: line, Module: module, BuildID: "4f1c99aa", Offset: uint64(line)}
	}
	top := frame("main", "/build/collectd/src/main.c", 212, "collectd")
	connect := []leak.StackFrame{frame("connect_db", "/build/collectd/src/db.c", 88, "libdb.so.5"), frame("query", "/build/collectd/src/db.c", 140, "libdb.so.5"), top}
	logs := []leak.StackFrame{frame("rotate", "/build/collectd/src/log.c", 31, "collectd"), top}
	loop := []leak.StackFrame{frame("loop", "/build/collectd/src/server.c", 31, "collectd"), top}
	closer := []leak.StackFrame{frame("close_db", "/build/collectd/src/db.c", 131, "libdb.so.5"), frame("query", "/build/collectd/src/db.c", 152, "libdb.so.5"), top}
	numbers := func(from, n int) (out []int) {
		for i := range n {
			out = append(out, from+i)
		}
		return out
	}
	seen := func(n uint64, call string, stack []leak.StackFrame) leak.ReportOpener {
		return leak.ReportOpener{Count: n, Certainty: leak.CertaintyProved, Call: call, Stack: stack}
	}
	likely := func(n uint64, call string, stack []leak.StackFrame) leak.ReportOpener {
		o := seen(n, call, stack)
		o.Certainty = leak.CertaintyLikely
		return o
	}
	limit := func(name leak.UsageName, scope, by string, used, most uint64) leak.ReportLimit {
		return leak.ReportLimit{Name: string(name), Scope: scope, Limit: by, Used: used, Max: ptr(most)}
	}
	closeWait := leak.ReportDescriptorGroup{
		What: "TCP CLOSE_WAIT to 10.0.0.5:5432", Kind: "socket", Protocol: "tcp", State: "CLOSE_WAIT", Peer: "10.0.0.5:5432", Count: 812,
		Numbers: numbers(12, 16), IdleLowS: ptr(3 * 3600.0), IdleHighS: ptr(5 * 3600.0), Module: "libdb.so.5", CloseOnExec: 812,
	}
	deleted := leak.ReportDescriptorGroup{
		What: "/var/log/collectd/*.log (deleted)", Kind: "file", Count: 31, Bytes: 2_100_000_000, CloseOnExec: 31,
		Numbers: []int{3, 640, 641, 642, 650, 700, 702, 704, 706, 708, 710, 712, 714, 716, 718, 720},
	}
	rest := []leak.ReportDescriptorGroup{
		{What: "TCP ESTABLISHED from 22 peers to :8080", Kind: "socket", Protocol: "tcp", State: "ESTABLISHED", Count: 22, Numbers: numbers(800, 16), Bytes: 1204, IdleLowS: ptr(0.2), IdleHighS: ptr(95.0)},
		{What: "/dev/null", Kind: "device", Count: 3, Numbers: []int{0, 1, 2}},
		{What: "eventpoll", Kind: "eventpoll", Count: 2, Numbers: []int{4, 6}},
		{What: "memfd cache", Kind: "memfd", Count: 2, Numbers: []int{7, 9}, Bytes: 67_000_000},
		{What: "TCP LISTEN on 0.0.0.0:8080", Kind: "socket", Protocol: "tcp", State: "LISTEN", Count: 1, Numbers: []int{5}},
		{What: "unix stream to /run/systemd/journal/stdout", Kind: "socket", Protocol: "unix stream", State: "ESTABLISHED", Count: 1, Numbers: []int{8}, IdleLowS: ptr(40.0), IdleHighS: ptr(40.0)},
	}
	groups := append([]leak.ReportDescriptorGroup{closeWait, deleted}, rest...)
	own := limit(leak.UsageDescriptors, "", "RLIMIT_NOFILE", 874, 1024)
	own.Hard = ptr(uint64(524_288))
	dropped := leak.ReportLimit{Name: string(leak.UsageListenDropped), Used: 1204}
	memory := limit(leak.UsageCgroupMemory, "/system.slice/collectd.service", "memory.max", 7_200_000_000, 8_000_000_000)
	memory.Bytes = true
	low := limit(leak.UsageMappings, "", "vm.max_map_count", 310, 65_530)
	once := &leak.ReportDescriptors{
		Open: 874, Groups: groups,
		Limits: []leak.ReportLimit{memory, own, limit(leak.UsageBacklog, "0.0.0.0:8080", "listen backlog", 97, 128), low, dropped},
		Ownerless: []leak.ReportOwnerless{
			{State: "TIME_WAIT", Local: ":8080", Count: 1840}, {State: "TIME_WAIT", Local: "to 10.0.0.5:5432", Count: 212}, {State: "LAST_ACK", Local: "to 10.0.0.9:443", Count: 3}, {State: "TIME_WAIT", Local: "other", Count: 31},
		},
	}
	sound := &leak.ReportDescriptors{Open: 31, Groups: rest, Limits: []leak.ReportLimit{limit(leak.UsageDescriptors, "", "RLIMIT_NOFILE", 31, 1024), low}, Ownerless: once.Ownerless[:1:1]}

	grown := own
	grown.RatePerHour, grown.InS = ptr(1440.0), ptr(375.0)
	ports := limit(leak.UsagePorts, "10.0.0.1 to 10.0.0.5:5432", "net.ipv4.ip_local_port_range", 27_900, 28_232)
	ports.RatePerHour, ports.InS = ptr(120.0), ptr(9_960.0)
	full := limit(leak.UsageTasks, "/system.slice/collectd.service", "pids.max", 512, 512)
	slow := low
	slow.RatePerHour, slow.InS = ptr(1.0), ptr(65_220*3600.0)
	commit := limit(leak.UsageCommit, "", "vm.overcommit_ratio", 21_000_000_000, 64_000_000_000)
	commit.Bytes, commit.RatePerHour, commit.InS = true, ptr(2.5e9), ptr(61_920.0)
	dropping := dropped
	dropping.RatePerHour = ptr(240.0)
	watchedGroups := append([]leak.ReportDescriptorGroup(nil), groups...)
	watchedGroups[0].Openers = []leak.ReportOpener{seen(24, "socket", connect), likely(780, "socket", connect)}
	watchedGroups[1].Openers = []leak.ReportOpener{seen(31, "openat", logs)}
	watchedGroups[2].Openers = []leak.ReportOpener{seen(10, "accept4", loop), seen(4, "received", nil), seen(3, "fork", loop), seen(3, "exec", nil), seen(2, "dup", nil)}
	watched := &leak.ReportDescriptors{
		Open: 874, Groups: watchedGroups, Libraries: []leak.ReportLibrary{{Module: "libdb.so.5", Count: 24}, {Module: "poolerd", Count: 31}}, Ownerless: once.Ownerless,
		Limits: []leak.ReportLimit{full, ports, grown, commit, memory, slow, dropping},
		Failures: []leak.ReportFailure{
			{Call: "accept4", Errno: "EMFILE", Count: 1204, Stack: loop},
			{Call: "connect", Errno: "EADDRNOTAVAIL", Count: 12, Stack: connect},
			{Call: "clone3", Errno: "EAGAIN", Count: 1},
		},
	}

	finding := func(rule string, severity leak.Severity, what, title string, n uint64, stack []leak.StackFrame, evidence, advice string) leak.Finding {
		return leak.Finding{
			Key: rule + ":4f1c99aa:58", NameKey: rule + ":collectd", Rule: rule, Severity: severity, Kind: "descriptor", Target: 1, What: what, Title: title,
			Count: n, SiteCertainty: leak.CertaintyProved, Stack: stack, Evidence: []string{evidence}, Advice: []string{advice},
		}
	}
	accumulating := finding("fd.accumulating", leak.SeverityGrowth, "sockets", "24 more sockets from connect_db after 60 s: they are not closed", 24, connect,
		"seen: 31 opened and 7 closed; of each third of 60 s, 8, 8 and 8 are open still", "close it on every way out of query: the error path after db.c:140 returns without")
	accumulating.Rate, accumulating.Exhaustion = &leak.Rate{CountPerHour: 1440}, &leak.Exhaustion{Limit: "RLIMIT_NOFILE", InS: 375}
	accumulating.Related = []leak.Related{{What: leak.RelatedClosed, Count: 7, Stack: closer}}
	waits := finding("fd.closewait", leak.SeverityRisk, "connections", "812 connections from connect_db in CLOSE_WAIT: the peer closed, this program did not", 812, connect,
		"idle: no data for 3-5 h", "close the connection when read returns 0")
	waits.Related = []leak.Related{{What: leak.RelatedClosed, Stack: closer}}
	old := waits
	old.Stack, old.Related, old.SiteCertainty = nil, nil, leak.CertaintyNone
	old.Title = "812 connections in CLOSE_WAIT: the peer closed, this program did not"
	failing := finding("fd.failing", leak.SeverityRisk, "failed calls", "accept4 failed 1,204 times with EMFILE", 1204, loop, "why: the process has as many descriptors open as RLIMIT_NOFILE allows", "find what only accumulates; raise the limit meanwhile")
	threads := finding("fd.failing", leak.SeverityRisk, "failed calls", "clone3 failed once with EAGAIN", 1, nil, "why: no more threads or processes are allowed", "see what starts threads")
	threads.Kind = "thread"
	nofile := finding("fd.limit", leak.SeverityRisk, "descriptors", "874 of 1,024 descriptors are in use", 874, nil, "limit: RLIMIT_NOFILE, hard 524,288",
		"prlimit --pid 4711 --nofile=4096:524288 buys 4 d at this rate; LimitNOFILE=4096:524288 in the unit keeps it")
	silent := finding("fd.silent", leak.SeverityNote, "connections", "18 connections are silent: TCP ESTABLISHED from 22 peers to :8080", 18, nil, "idle: 1 to 9 h, both ways", "set SO_KEEPALIVE, or a timeout")
	inherited := finding("fd.inherited", leak.SeverityNote, "inherited descriptors", "1 descriptor inherited and not used", 1, logs, "seen: no close-on-exec", "open it with O_CLOEXEC")
	unclosed := finding("fd.unclosed", leak.SeverityGrowth, "files", "3 files from rotate not closed", 3, logs, "held: until it exited: fd 3, 5, 6, /var/log/collectd/a.log", "close them where the others are closed")
	unclosed.Related = []leak.Related{{What: leak.RelatedClosed, Count: 4, Stack: logs}}
	byClass := finding("fd.unclosed", leak.SeverityNote, "descriptors", "12 descriptors were not closed", 12, nil, "held: open at the exit and not at the start: 10 sockets, 2 files", "")
	byClass.Stack, byClass.Advice = nil, nil

	bare := leak.ReportTarget{
		ID: 1, PID: 4711, Comm: "collectd", Exe: "/usr/sbin/collectd", UptimeS: ptr(6 * 86400.0),
		RSSBytes: ptr(uint64(7_200_000_000)), MemoryLimitBytes: ptr(uint64(8_000_000_000)), MemoryLimit: "cgroup memory.max",
	}
	with := func(t leak.ReportTarget, d *leak.ReportDescriptors) leak.ReportTarget {
		t.Descriptors = d
		return t
	}
	looked := bare
	looked.Allocator, looked.HeapBytes, looked.HeapBlocks = "glibc 2.36", ptr(uint64(6_900_000_000)), ptr(uint64(9_123_456))
	at := func(s float64) leak.Observed { return leak.Observed{Start: start, DurationS: s} }
	ended := leak.ReportTarget{
		ID: 1, PID: 4711, Comm: "fdleaker", Exe: "/usr/bin/fdleaker", Allocator: "glibc 2.36", Ended: "exit 0",
		LostDirect: &leak.ReportBlocks{}, LostIndirect: &leak.ReportBlocks{}, StillReachable: &leak.ReportBlocks{},
	}
	atExit := &leak.ReportDescriptors{
		Open: 6, Limits: []leak.ReportLimit{limit(leak.UsageDescriptors, "", "RLIMIT_NOFILE", 6, 1024), low},
		Groups: []leak.ReportDescriptorGroup{
			{What: "/dev/pts/0", Kind: "device", Count: 3, Numbers: []int{0, 1, 2}},
			{What: "/var/log/collectd/*.log", Kind: "file", Count: 3, Numbers: []int{3, 5, 6}, Openers: []leak.ReportOpener{seen(3, "openat", logs)}},
		},
	}
	unheard := &leak.ReportDescriptors{Open: 6, Groups: atExit.Groups[:1:1], Limits: atExit.Limits}
	everything := *watched
	everything.List = []leak.ReportDescriptor{
		{Num: 0, Kind: "device", What: "/dev/null", Access: "r"},
		{Num: 3, Kind: "file", What: "/var/log/collectd/2026-11-20.log (deleted)", Deleted: true, Bytes: 68_000_000, CloseOnExec: true, AgeS: ptr(7500.0),
			Opener: ptr(seen(1, "openat", logs)), LastCall: "write", LastCallS: ptr(7100.0)},
		{Num: 5, Kind: "socket", What: "TCP LISTEN 0.0.0.0:8080", CloseOnExec: true, Socket: &leak.ReportSocket{Protocol: "tcp", State: "LISTEN", Local: "0.0.0.0:8080", ReceiveQueue: 97, SendQueue: 128}},
		{Num: 12, Kind: "socket", What: "TCP CLOSE_WAIT 10.0.0.1:41022 to 10.0.0.5:5432", AgeS: ptr(12.0), Opener: ptr(likely(1, "socket", connect)), LastCall: "read (EAGAIN)", LastCallS: ptr(9.0),
			Socket: &leak.ReportSocket{Protocol: "tcp", State: "CLOSE_WAIT", Local: "10.0.0.1:41022", Peer: "10.0.0.5:5432", ReceiveQueue: 1, SendQueue: 5204, LastReceivedS: ptr(10_900.0), LastSentS: ptr(11_000.0)}},
		{Num: 13, Kind: "socket", What: "unix stream ESTABLISHED to /run/systemd/journal/stdout", LastCall: "sendto",
			Socket: &leak.ReportSocket{Protocol: "unix stream", State: "ESTABLISHED", Peer: "/run/systemd/journal/stdout", LastSentS: ptr(40.0)}},
		{Num: 14, Kind: "socket", What: "UDP 10.0.0.1:53", Socket: &leak.ReportSocket{Protocol: "udp", Local: "10.0.0.1:53", LastReceivedS: ptr(2.0)}, Opener: &leak.ReportOpener{Count: 1, Call: "received"}},
		{Num: 100123, Kind: "eventpoll", What: "eventpoll", CloseOnExec: true},
		{Num: 100124, Kind: "file", What: "/srv/" + strings.Repeat("a-long-directory/", 20) + "last.dat", Bytes: 12},
	}
	const evil = "\x1b]0;x\x07\u009b31m\u00a0a\tb\nc\ufffd"
	hostile := &leak.ReportDescriptors{
		Open: 3,
		Groups: []leak.ReportDescriptorGroup{{What: evil + strings.Repeat("/", 4096), Kind: evil, Count: 3, Numbers: []int{-1, 5, 5}, Module: evil, IdleLowS: ptr(-1.0), IdleHighS: ptr(1e300),
			Openers: []leak.ReportOpener{{Count: 9, Call: evil, Stack: []leak.StackFrame{{Function: evil, Module: evil}}, Site: 7}}}},
		List: []leak.ReportDescriptor{
			{Num: 1, Kind: evil, What: evil + "@" + strings.Repeat("\x00", 107), Deleted: true, LastCall: evil, Opener: &leak.ReportOpener{Call: evil}, Socket: &leak.ReportSocket{Protocol: evil, State: evil, Local: evil, Peer: "@" + strings.Repeat("\x00", 107)}},
		},
		Ownerless: []leak.ReportOwnerless{{State: evil, Local: evil, Count: 1}},
		Limits: []leak.ReportLimit{{Name: string(leak.UsageDescriptors), Limit: evil, Used: 3}, {Name: evil, Scope: evil, Limit: evil, Used: 5, Max: ptr(uint64(0))},
			{Name: string(leak.UsageListenDropped), Scope: evil, Used: 1}},
		Failures: []leak.ReportFailure{{Call: evil, Errno: evil, Count: 1, Stack: []leak.StackFrame{{Module: evil}}, Site: -1}},
	}
	crowd := &leak.ReportDescriptors{Open: 4060}
	for i := range 40 {
		crowd.Groups = append(crowd.Groups, leak.ReportDescriptorGroup{What: fmt.Sprintf("TCP ESTABLISHED to [2001:db8:85a3:8d3:1319:8a2e:370:%x]:443", 0x7344+i), Kind: "socket", Count: uint64(121 - i), Bytes: 8000, Numbers: []int{i}, IdleLowS: ptr(0.5), IdleHighS: ptr(90.0)})
		crowd.Failures = append(crowd.Failures, leak.ReportFailure{Call: "openat", Errno: "ENFILE", Count: uint64(50 - i)})
		crowd.Ownerless = append(crowd.Ownerless, leak.ReportOwnerless{State: "TIME_WAIT", Local: fmt.Sprintf(":%d", 9000+i), Count: uint64(40 - i)})
	}
	second := ended
	second.ID, second.PID = 2, 4712
	both := unclosed
	both.Processes, both.Count = 2, 6
	return map[string]*leak.Report{
		"fds_run_two": {Targets: []leak.ReportTarget{with(ended, atExit), with(second, atExit)}, Observed: at(3), Findings: []leak.Finding{both}},
		"fds":         {Targets: []leak.ReportTarget{with(bare, once)}, Observed: at(0.2), Findings: []leak.Finding{old}},
		"fds_watched": {Targets: []leak.ReportTarget{with(bare, watched)}, Observed: at(60), Findings: []leak.Finding{accumulating, waits, failing, threads, nofile}},
		"fds_all":     {Targets: []leak.ReportTarget{with(bare, &everything)}, Observed: at(60)},
		"fds_few":     {Targets: []leak.ReportTarget{with(bare, &leak.ReportDescriptors{Open: 1, Groups: rest[4:5:5]})}, Observed: at(0.1), Findings: []leak.Finding{silent, inherited}},
		"fds_filter":  {Targets: []leak.ReportTarget{with(bare, &leak.ReportDescriptors{Open: 874, Limits: []leak.ReportLimit{own}})}, Observed: at(0.1)},
		"fds_empty":   {Targets: []leak.ReportTarget{with(bare, &leak.ReportDescriptors{Limits: []leak.ReportLimit{limit(leak.UsageDescriptors, "", "RLIMIT_NOFILE", 0, 1024)}})}, Observed: at(0.1)},
		"fds_hostile": {Targets: []leak.ReportTarget{with(bare, hostile)}, Observed: at(1)},
		"fds_crowd":   {Targets: []leak.ReportTarget{with(bare, crowd)}, Observed: at(10)},
		"fds_diagnose": {Targets: []leak.ReportTarget{with(looked, watched)}, Observed: leak.Observed{Start: start, DurationS: 31, PauseMS: []float64{86, 84}},
			Findings: []leak.Finding{accumulating}, Notes: []string{"a loss that happens less than 441 times an hour may not have happened in 30 s"}},
		"fds_sound":    {Targets: []leak.ReportTarget{with(looked, sound)}, Observed: at(31)},
		"fds_clean":    {Targets: []leak.ReportTarget{with(bare, sound)}, Observed: at(60)},
		"fds_run":      {Targets: []leak.ReportTarget{with(ended, atExit)}, Observed: at(3), Findings: []leak.Finding{unclosed}},
		"fds_run_few":  {Targets: []leak.ReportTarget{with(ended, unheard)}, Observed: at(3), Findings: []leak.Finding{byClass}},
		"fds_run_none": {Targets: []leak.ReportTarget{with(ended, atExit)}, Observed: at(3)},
	}
}

func TestManyDescriptorsAreLinear(t *testing.T) {
	const n = 100_000
	d := &leak.ReportDescriptors{Open: n}
	stack := []leak.StackFrame{{Function: "accept_loop", File: "/src/server.c", Line: 31, Module: "server"}}
	for i := range n {
		d.List = append(d.List, leak.ReportDescriptor{Num: i, Kind: "socket", What: fmt.Sprintf("TCP ESTABLISHED 10.0.0.1:8080 from 10.0.%d.%d:4000", i>>8&255, i&255), AgeS: ptr(3.0),
			Socket: &leak.ReportSocket{Protocol: "tcp", State: "ESTABLISHED", Local: "10.0.0.1:8080", Peer: fmt.Sprintf("10.0.%d.%d:4000", i>>8&255, i&255)},
			Opener: &leak.ReportOpener{Count: 1, Call: "accept4", Stack: stack}, LastCall: "read"})
	}
	r := &leak.Report{Targets: []leak.ReportTarget{{ID: 1, PID: 1, Comm: "server", Descriptors: d}}}
	began := time.Now()
	var b bytes.Buffer
	if err := Text(&b, r); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if lines := bytes.Count(b.Bytes(), []byte{'\n'}); lines < n || lines > 2*n+10 {
		t.Errorf("%d lines for %d descriptors", lines, n)
	}
	t.Logf("%d descriptors: %v, %d bytes", n, took, b.Len())
	// What is not linear takes minutes.
	if took > 10*time.Second {
		t.Errorf("%d descriptors took %v", n, took)
	}
}

func TestDescriptorsNotListedStayNull(t *testing.T) {
	var b bytes.Buffer
	r := &leak.Report{Targets: []leak.ReportTarget{{ID: 1}, {ID: 2, Descriptors: &leak.ReportDescriptors{
		Groups: []leak.ReportDescriptorGroup{{Openers: []leak.ReportOpener{{}}}}, List: []leak.ReportDescriptor{{Opener: &leak.ReportOpener{}}}, Failures: []leak.ReportFailure{{}},
	}}, {ID: 3, Descriptors: &leak.ReportDescriptors{}}}}
	if err := JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(b.String(), `"descriptors": null`); got != 1 {
		t.Errorf("%d targets have no descriptors, want 1", got)
	}
	for _, slice := range []string{"groups", "list", "ownerless", "limits", "failures", "numbers", "openers", "stack"} {
		if strings.Contains(b.String(), `"`+slice+`": null`) {
			t.Errorf("%s is null", slice)
		}
	}
}

func TestRanges(t *testing.T) {
	for _, c := range []struct {
		numbers []int
		more    bool
		want    string
	}{
		{nil, true, ""},
		{[]int{7}, false, "fd 7"},
		{[]int{3, 4, 5, 9}, false, "fd 3-5, 9"},
		{[]int{3, 4}, true, "fd 3-4, ..."},
		{[]int{1, 3, 5, 7, 9, 11, 13}, false, "fd 1, 3, 5, 7, 9, ..."},
		{[]int{100000, 100002, 100004}, false, "fd 100000, 100002, ..."},
	} {
		if got := ranges(c.numbers, c.more); got != c.want {
			t.Errorf("%v: %q, want %q", c.numbers, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"short", 5, "short"}, {"/a/long/path/to/file", 11, "/a/l...file"}, {"äöüäöüäöü", 7, "äö...öü"}} {
		if got := cut(c.s, c.n); got != c.want {
			t.Errorf("%q: %q, want %q", c.s, got, c.want)
		}
	}
}
