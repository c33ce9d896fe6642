package metrics

import (
	"fmt"
	"time"

	"stanch/internal/series"
)

// near compares what is held with what may be held. A limit is said at a
// slower pace than Prometheus looks back (5 min), hence the last of an hour. One
// of zero is none (nf_conntrack_max), or the program's own wish: a sandbox that
// wants no further descriptor.
func near(held, limit series.Metric, condition string) string {
	return fmt.Sprintf("%s / (last_over_time(%s[1h]) > 0) %s", held, limit, condition)
}

// share is the value of a rule of near.
const share = "{{ $value | humanizePercentage }}"

// limitAlerts say what is near a limit or over one, and what keeps being
// started anew. They need no verdict.
func limitAlerts(o RuleOptions) []alert {
	descriptors := func(condition, severity string) alert {
		return alert{
			name: "StanchDescriptorsNearLimit", expr: near(series.FDs, series.FDLimit, condition), pending: 2 * time.Minute, severity: severity,
			summary: worker + ": " + share + " of its descriptors are open",
			text:    "At the limit (RLIMIT_NOFILE) open, accept and socket fail with EMFILE.", next: nextOfTable,
		}
	}
	hour, quarter := o.span(time.Hour), o.span(15*time.Minute)
	killed := func(name, counter, whose, next string) alert {
		return alert{
			name: name, expr: fmt.Sprintf("increase(%s[%s]) > 0", counter, hour), severity: "warning",
			summary: whose + ": the kernel killed a process for lack of memory",
			text:    "It kills the process with the highest score, which need not be the one that grew.", next: next,
		}
	}
	return append([]alert{descriptors("> 0.8 < 0.95", "warning"), descriptors(">= 0.95", "critical")},
		alert{
			name: "StanchMemoryNearLimit", expr: near(series.CgroupMemory, series.CgroupLimit, "> 0.9"), pending: 2 * time.Minute, severity: "warning",
			summary: service + ": " + share + " of its memory limit is used",
			text:    "What the kernel could take back at once is not counted. At the limit it kills a process of this cgroup.", next: nextOfService,
		},
		alert{
			name: "StanchTasksNearLimit", expr: near(series.CgroupTasks, series.CgroupTasksMax, "> 0.9"), pending: 2 * time.Minute, severity: "warning",
			summary: service + ": " + share + " of its tasks (pids.max) exist",
			text:    "At the limit fork and pthread_create fail with EAGAIN.", next: nextOfService,
		},
		alert{
			name: "StanchHostMemoryLow", expr: near(series.HostAvailable, series.HostMemory, "< 0.05"), pending: 2 * time.Minute, severity: "warning",
			summary: host + ": " + share + " of its memory is left",
			text:    "Soon the kernel kills a process, which need not be the one that grew.", next: nextOfHost,
		},
		alert{
			name: "StanchHostFilesNearLimit", expr: near(series.HostFiles, series.HostFilesMax, "> 0.8"), pending: 2 * time.Minute, severity: "warning",
			summary: host + ": " + share + " of fs.file-max are open",
			text:    "At the limit every program but those with CAP_SYS_ADMIN fails with ENFILE.", next: nextOfHost,
		},
		alert{
			name: "StanchHostConntrackNearLimit", expr: near(series.HostConntrack, series.HostConntrackMax, "> 0.8"), pending: 2 * time.Minute, severity: "warning",
			summary: host + ": " + share + " of the connection tracking table is in use",
			text:    "When it is full new connections are dropped.", next: nextOfHost,
		},
		killed("StanchHostOOMKill", string(series.HostOOMKills), host, nextOfHost),
		killed("StanchOOMKill", string(series.CgroupEvents)+`{event="oom_kill"}`, service, nextOfService),
		alert{
			name: "StanchRestarts", expr: fmt.Sprintf("changes(%s[%s]) > 3", series.Started, hour), severity: "warning",
			summary: worker + ": started anew {{ $value }} times within " + hour.String(),
			text:    "Whoever restarts it hides what it loses, or why it ends: its history shows how much it held before each.", next: nextOfService,
		},
		alert{
			// The peer has closed and the program has not. A few are there for
			// moments in any busy server, so the lowest number counts; and it must
			// last, since the window of a series that has just begun holds one value.
			name: "StanchSocketsNotClosed", expr: fmt.Sprintf(`min_over_time(%s{state="CLOSE_WAIT"}[%s]) > 20`, series.Sockets, quarter), pending: 15 * time.Minute, severity: "warning",
			summary: worker + ": {{ $value }} sockets in CLOSE_WAIT for " + quarter.String() + " or longer",
			text:    "Their peers have closed, and this program has not: no timeout ends that.", next: nextOfTable,
		},
		alert{
			name: "StanchZombies", expr: fmt.Sprintf("min_over_time(%s[%s]) > 20", series.Zombies, quarter), pending: 15 * time.Minute, severity: "warning",
			summary: worker + ": {{ $value }} ended children are not waited for",
			text:    "Each keeps a PID and a slot of pids.max until its parent waits for it, or ends.", next: nextOfService,
		},
	)
}
