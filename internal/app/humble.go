package app

import (
	"os"
	"strconv"
	"syscall"
)

// niceness is what stanch works at: below everything that serves, above what
// only uses idle time.
const niceness = 10

// humble makes stanch the first to go when memory runs out, and lets others
// have the processor before it. The few threads that hold the target while it
// stands still raise their own priority again; only root may, so stanch stays
// as it is for others. Neither is worth failing for.
func humble() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if os.Geteuid() == 0 {
		polite()
	}
}

// polite lets others have the processor first, for good: without rights it
// cannot be taken back.
func polite() {
	threads, _ := os.ReadDir("/proc/self/task") // new threads inherit it from these
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, tid, niceness)
		}
	}
}
