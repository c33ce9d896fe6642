package detect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// FDLimit reports limits of descriptors, sockets and tasks that come near.
var FDLimit = &Detector{
	Name: "fd.limit",
	Doc:  "a limit on descriptors, ports, tasks or mappings that is nearly reached, or soon will be",
	Run:  nearLimits,
}

// soon is the time within which a limit that is not near yet is a risk.
const soon = 24 * time.Hour

// selectMax is FD_SETSIZE, beyond which select(2) cannot go: glibc
// bits/typesizes.h and musl sys/select.h have 1,024.
const selectMax = 1024

// openMax is the default of fs.nr_open, above which no process may raise its
// limit: sysctl_nr_open in fs/file.c.
const openMax = 1 << 20

func nearLimits(p *Pass) {
	if p.over() {
		return
	}
	for i := range p.Proc.Usages {
		u := &p.Proc.Usages[i]
		if u.Max == 0 || memoryUsage(u.Name) {
			continue // limit.memory says those
		}
		t, grows := rising(u.Points)
		var x *leak.Exhaustion
		if grows && t.grown >= leastDescriptors && foretells(u) {
			if in := left(u) / t.perHour * 3600; in < soon.Seconds() {
				x = &leak.Exhaustion{Limit: u.Limit, InS: in, LowS: ptr(left(u) / t.high * 3600), HighS: ptr(left(u) / t.low * 3600)}
			}
		}
		if float64(u.Used) < nearLimit*float64(u.Max) && x == nil {
			continue
		}
		// One who knows the cause says when, and stands before this.
		if c := p.fds().cause; x != nil && isDescriptors(*u) && c != nil && c.Exhaustion != nil && p.fds().explain(t) {
			if float64(u.Used) < nearLimit*float64(u.Max) {
				continue // and what to do
			}
			x = c.Exhaustion
		}
		p.Report(limitFinding(p, u, t, grows, x))
	}
}

// memoryUsage reports whether a resource is memory.
func memoryUsage(n leak.UsageName) bool {
	switch n {
	case leak.UsageAddressSpace, leak.UsageCommit, leak.UsageCgroupMemory, leak.UsageHostMemory, leak.UsageData:
		return true
	}
	return false
}

func limitFinding(p *Pass, u *ledger.UsageSeries, t trend, grows bool, x *leak.Exhaustion) leak.Finding {
	amount := func(n uint64) string {
		if u.Bytes {
			return leak.FormatBytes(float64(n))
		}
		return leak.FormatCount(n)
	}
	key := strings.ReplaceAll(string(u.Name), " ", "-")
	if u.Scope != "" {
		key += ":" + strings.ReplaceAll(u.Scope, " ", "-")
	}
	f := leak.Finding{
		Severity: leak.SeverityRisk, Kind: limitKind(u.Name).String(), SiteCertainty: leak.CertaintyNone,
		Key: key, NameKey: key, What: string(u.Name), Count: u.Used,
		Title: fmt.Sprintf("%s of %s %s in use", amount(u.Used), amount(u.Max), limitWords(u)),
	}
	if x != nil {
		f.Rate, f.Exhaustion = &leak.Rate{CountPerHour: t.perHour}, x
		if u.Bytes {
			f.Rate = &leak.Rate{BytesPerHour: t.perHour}
		}
		f.Title = fmt.Sprintf("%s run out in %s at this rate: %s of %s in use", limitWords(u), leak.FormatDuration(time.Duration(x.InS*float64(time.Second))), amount(u.Used), amount(u.Max))
	}
	if u.Used >= u.Max {
		f.Title = fmt.Sprintf("%s have run out: %s of %s in use", limitWords(u), amount(u.Used), amount(u.Max))
	}
	switch {
	case grows:
		f.Evidence = append(f.Evidence, fmt.Sprintf("seen: at least +%s in %s", amount(uint64(t.grown)), leak.FormatDuration(t.watch)))
	default:
		f.Evidence = append(f.Evidence, "seen: no steady growth while it was watched")
	}
	f.Evidence = append(f.Evidence, "limit: "+u.Limit)
	if u.RaisedAt >= 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("raised: the limit was %s at first, and was raised %s into the watch", amount(u.FirstMax), leak.FormatDuration(u.RaisedAt-max(p.Proc.FirstAt, 0))))
		if grows {
			f.Evidence[len(f.Evidence)-1] += "; the number grows on"
		}
	}
	f.Advice = limitAdvice(p, u, t, x)
	return f
}

func limitWords(u *ledger.UsageSeries) string {
	if u.Scope == "" {
		return string(u.Name)
	}
	return fmt.Sprintf("%s (%s)", u.Name, u.Scope)
}

func limitKind(n leak.UsageName) leak.Kind {
	switch n {
	case leak.UsageTasks, leak.UsageUserTasks:
		return leak.KindThread
	case leak.UsageMappings:
		return leak.KindMapping
	}
	return leak.KindDescriptor
}

func limitAdvice(p *Pass, u *ledger.UsageSeries, t trend, x *leak.Exhaustion) []string {
	switch u.Name {
	case leak.UsageDescriptors:
		return nofileAdvice(p, u, t.perHour, x)
	case leak.UsagePorts:
		return []string{"reuse connections (a pool, keepalive), or let several addresses or ports be the other side; net.ipv4.ip_local_port_range can be widened, and net.ipv4.tcp_tw_reuse=1 takes ports in TIME_WAIT for new outgoing connections"}
	case leak.UsageBacklog:
		return []string{"the program accepts more slowly than connections come: see what its accept loop waits for; a longer backlog (listen, net.core.somaxconn) only bridges bursts"}
	case leak.UsageConntrack:
		return []string{"raise net.netfilter.nf_conntrack_max, or shorten net.netfilter.nf_conntrack_tcp_timeout_established, which is 5 days by default"}
	case leak.UsageFiles:
		return []string{"raise fs.file-max with sysctl, and see which process holds most"}
	case leak.UsageTCPMemory:
		return []string{"see which sockets have long queues: their peers do not read, or the program does not; net.ipv4.tcp_mem is the limit, in pages"}
	case leak.UsageTasks:
		return []string{"find what starts threads or processes without an end; in the unit the limit is TasksMax=, live: systemctl set-property UNIT TasksMax=N"}
	case leak.UsageUserTasks:
		return []string{fmt.Sprintf("find what starts threads or processes without an end; live: prlimit --pid %d --nproc=N; in the unit: LimitNPROC=N", p.Proc.ID.PID)}
	case leak.UsageMappings:
		return []string{"find what maps without unmapping, or protects parts of mappings; live: sysctl vm.max_map_count=N"}
	}
	return nil
}

// nofileAdvice gives the remedy for the process that runs, and the one that
// stays. Neither mends a leak.
func nofileAdvice(p *Pass, u *ledger.UsageSeries, perHour float64, x *leak.Exhaustion) []string {
	soft, hard := u.Max*4, u.Hard
	switch {
	case hard > u.Max:
		soft = min(soft, hard)
	default:
		hard = soft
	}
	if soft = min(soft, max(u.Max, openMax)); soft == u.Max {
		return []string{fmt.Sprintf("the limit is %s already, beyond which only fs.nr_open lets it go: find what is not closed", leak.FormatCount(u.Max))}
	}
	hard = max(min(hard, openMax), soft)
	live := fmt.Sprintf("to gain time: prlimit --pid %d --nofile=%d:%d", p.Proc.ID.PID, soft, hard)
	if hard > max(u.Hard, u.Max) {
		live += " (as root: it is above the hard limit)"
	}
	if x != nil {
		more := time.Duration(min((float64(soft)-float64(u.Used))/perHour, farthest.Hours()) * float64(time.Hour))
		live += fmt.Sprintf("; at this rate it lasts %s", leak.FormatDuration(more))
	}
	out := []string{live}
	if p.Config.ImportsSelect && soft > selectMax {
		out = append(out, fmt.Sprintf("careful: the program imports select, which corrupts memory with descriptors from %s on (FD_SETSIZE); with poll or epoll it would not", leak.FormatCount(selectMax)))
	}
	out = append(out, fmt.Sprintf("for good, in its systemd unit: LimitNOFILE=%d:%d (LimitNOFILESoft= does not exist, and limits.conf does not reach services)", soft, hard))
	if slices.ContainsFunc(p.fds().sites, func(s *fdSite) bool { return s.accumulates(p) }) {
		out = append(out, "a higher limit only puts it off: the descriptors that are not closed go on becoming more")
	}
	return out
}
