package render

import (
	"fmt"
	"time"

	"stanch/internal/leak"
)

// runs are reports of processes that were followed to their exit.
func runs() map[string]*leak.Report {
	blocks := func(n, bytes uint64) *leak.ReportBlocks {
		return &leak.ReportBlocks{Count: n, Bytes: bytes, BytesAre: "requested"}
	}
	frame := func(function, file string, line int, off uint64) leak.StackFrame {
		return leak.StackFrame{Function: function, File: file, Line: line, Module: "parser_test", BuildID: "4f1c99", Offset: off}
	}
	mainly := frame("main", "/src/test/main.c", 40, 0x40)
	process := func(id, pid int, comm, end string) leak.ReportTarget {
		return leak.ReportTarget{
			ID: id, PID: pid, Comm: comm, Exe: "/usr/bin/" + comm, Allocator: "glibc 2.36", Ended: end, RSSBytes: ptr(uint64(9e6)),
			LostDirect: blocks(0, 0), LostIndirect: blocks(0, 0), StillReachable: blocks(120, 81_000),
		}
	}
	unseen := func(id, pid int, comm, end, gap string) leak.ReportTarget {
		t := process(id, pid, comm, end)
		t.Allocator, t.LostDirect, t.LostIndirect, t.StillReachable, t.Gaps = "", nil, nil, nil, []string{gap}
		return t
	}
	losing := process(1, 4711, "parser_test", "exit 1")
	losing.LostDirect, losing.LostIndirect = blocks(3, 120), blocks(30, 720)
	lost := leak.Finding{
		Key: "heap.unreachable:4f1c99aa:10:43afbcee", Rule: "heap.unreachable", Severity: leak.SeverityLeak, Kind: "memory", Target: 1,
		Title: "40-byte blocks from make_list are never freed", What: "40-byte blocks", Count: 33, Bytes: 840, BytesAre: "requested",
		Direct: 3, Indirect: 30, IndirectBytes: 720, SiteCertainty: leak.CertaintyProved,
		Stack: []leak.StackFrame{frame("make_list", "/src/lib/list.c", 10, 0x10), frame("test_list", "/src/test/list_test.c", 7, 0x30), mainly},
		Related: []leak.Related{{What: leak.RelatedIndirect, Count: 30, Bytes: 720,
			Stack: []leak.StackFrame{frame("add_node", "/src/lib/list.c", 22, 0x20), frame("test_list", "/src/test/list_test.c", 8, 0x38), mainly}}},
		Evidence: []string{"proof: no pointer to them in memory, registers or kernel when it exited", "site: recorded when they were allocated"},
		Advice:   []string{"5 of 8 from this line were freed; these were not: check the early returns and error paths after make_list list.c:10"},
	}
	twice := leak.Finding{
		Key: "heap.invalid-free:double:4f1c99aa:70", Rule: "heap.invalid-free", Severity: leak.SeverityError, Kind: "memory", Target: 1,
		Title: "freed twice by cleanup", What: "40-byte blocks", Count: 3, Bytes: 120, BytesAre: "requested", SiteCertainty: leak.CertaintyProved,
		Stack: []leak.StackFrame{frame("cleanup", "/src/lib/net.c", 95, 0x70), mainly},
		Related: []leak.Related{
			{What: leak.RelatedFreedFirst, Stack: []leak.StackFrame{frame("close_conn", "/src/lib/net.c", 80, 0x60), mainly}},
			{What: leak.RelatedAllocated, Stack: lost.Stack},
		},
		Evidence: []string{"proof: every allocation was recorded since the program began, and the block was not held any more"},
		Advice:   []string{"decide which of the two owns the block; set the pointer to NULL where it is freed first"},
	}
	stray := leak.Finding{
		Key: "heap.invalid-free:unknown:4f1c99aa:60", Rule: "heap.invalid-free", Severity: leak.SeverityError, Kind: "memory", Target: 1,
		Title: "freed and never allocated by close_conn", What: "addresses", Count: 1, BytesAre: "requested", SiteCertainty: leak.CertaintyProved,
		Stack: []leak.StackFrame{frame("close_conn", "/src/lib/net.c", 80, 0x60), mainly},
	}
	note := func(rule, kind, what, title string, n, bytes uint64) leak.Finding {
		return leak.Finding{
			Key: rule + ":4f1c99aa:50", Rule: rule, Severity: leak.SeverityNote, Kind: kind, Target: 1, What: what, Title: title, Count: n, Bytes: bytes,
			BytesAre: "requested", SiteCertainty: leak.CertaintyProved, Stack: []leak.StackFrame{frame("keep_table", "/src/lib/table.c", 5, 0x50), mainly},
			Evidence: []string{"held: until it exited"},
		}
	}
	held := note("heap.held", "memory", "48-byte blocks", "48-byte blocks from keep_table were never freed", 5, 240)
	held.Evidence = []string{"proof: none that they were lost: its memory could not be looked at when it ended"}
	rest := leak.Finding{Key: "heap.held:other", Rule: "heap.held", Severity: leak.SeverityNote, Kind: "memory", Target: 1, What: "blocks of 8 to 24 bytes",
		Title: "blocks of 8 to 24 bytes from 3 other lines were never freed", Count: 6, Bytes: 112, BytesAre: "requested", SiteCertainty: leak.CertaintyNone}
	const privileged = "not followed: it is set-user-ID and would lose its rights under a tracer"
	killed := unseen(1, 4711, "parser_test", "killed by SIGKILL", leak.GapKilled)

	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	many := &leak.Report{Observed: leak.Observed{Start: start, DurationS: 61}, Notes: []string{"what a program loses inside its own pools is not seen"}}
	for i := range 40 {
		t := process(i+1, 5000+i, "parser_test", "exit 0")
		t.LostDirect = blocks(3, 120)
		many.Targets = append(many.Targets, t)
		many.Observed.PauseMS = append(many.Observed.PauseMS, 0.4, 1.25)
	}
	many.Targets[39] = unseen(40, 5039, "parser_test", "killed by SIGKILL", leak.GapKilled)
	for i := range 14 {
		many.Targets = append(many.Targets, process(41+i, 6000+i, []string{"make", "sh", "sh", "cc1", "cc1", "cc1", "as"}[i%7], "exit 0"))
	}
	many.Targets = append(many.Targets, unseen(55, 7000, "sudo", "exit 0", privileged), process(56, 7001, "driver", "exit 3"))
	folded, one, other := lost, note("mapping.unreleased", "mapping", "mappings of 65.5 KB", "mappings of 65.5 KB from keep_table were not unmapped", 2, 131_072), twice
	folded.Processes, folded.Count, folded.Direct, folded.Bytes, folded.Indirect, folded.IndirectBytes, folded.Related = 39, 117, 117, 4_680, 0, 0, nil
	one.Target, other.Target, other.Key = 8, 56, "heap.invalid-free:double:other"
	many.Findings = []leak.Finding{other, folded, one}

	var quiet []leak.ReportTarget
	for i := range 17 {
		quiet = append(quiet, process(i+1, 100+i, fmt.Sprintf("step%d", i%9), "exit 0"))
	}
	cost := leak.Observed{Start: start, DurationS: 2.5, PauseMS: []float64{0.8}, PeakMemoryBytes: ptr(uint64(8e6))}
	clean := process(1, 4711, "parser_test", "exit 0")
	tidy := clean
	tidy.StillReachable = blocks(0, 0)
	return map[string]*leak.Report{
		"run":           {Targets: []leak.ReportTarget{losing}, Findings: []leak.Finding{lost}, Observed: cost},
		"run_error":     {Targets: []leak.ReportTarget{clean}, Findings: []leak.Finding{twice, stray}, Observed: cost},
		"run_clean":     {Targets: []leak.ReportTarget{clean}, Observed: cost},
		"run_tidy":      {Targets: []leak.ReportTarget{tidy}, Observed: cost},
		"run_killed":    {Targets: []leak.ReportTarget{killed}, Findings: []leak.Finding{held, rest}, Observed: cost},
		"run_unseen":    {Targets: []leak.ReportTarget{unseen(1, 9, "sudo", "exit 0", privileged)}, Observed: cost},
		"run_many":      many,
		"run_none":      {Observed: leak.Observed{Start: start}, Notes: []string{"the program ended before it could be followed"}},
		"run_all_clean": {Targets: quiet, Observed: cost},
		"run_held": {Targets: []leak.ReportTarget{clean}, Observed: cost, Findings: []leak.Finding{
			note("heap.reachable", "memory", "48-byte blocks", "48-byte blocks from keep_table were still reachable at the exit", 5, 240),
			note("mapping.unreleased", "mapping", "mappings", "mappings from keep_table were not unmapped", 2, 69_632),
			note("thread.unjoined", "thread", "threads", "threads from keep_table were neither joined nor detached", 1, 0),
			note("pool.unreleased", "pool", "32-byte pool blocks", "32-byte pool blocks from keep_table were not given back", 6, 192),
		}},
	}
}
