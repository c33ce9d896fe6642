package descriptors

import (
	"context"
	"math"
	"os"
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// counters says the limits that cost next to nothing to read: descriptors, open
// files of the host, TCP buffers, tracked connections, drops of listeners.
func (w *watcher) counters(context.Context) error {
	limits, err := w.target.Limits()
	if err != nil {
		return w.unread("limits", err)
	}
	used, err := w.target.DescriptorCount()
	if err != nil {
		return w.unread("the number of descriptors", err)
	}
	w.usage(leak.Usage{Name: leak.UsageDescriptors, Used: uint64(used), Max: limits.NOFILE.Soft, Hard: limits.NOFILE.Hard, Limit: "RLIMIT_NOFILE"})
	w.files()
	if !w.networked {
		return nil
	}
	ns, err := openNamespace(w.target)
	if err != nil {
		return err
	}
	defer ns.close()
	if ns.denied == nil {
		w.tracked(ns)
	}
	if w.listens {
		w.drops()
	}
	return nil
}

// files says how many open files the host has: file-nr is allocated, free (0
// since Linux 2.6), maximum. It is set to the largest number for "no limit".
func (w *watcher) files() {
	f := strings.Fields(sysctl(w.target.Root, "fs/file-nr"))
	if len(f) != 3 {
		w.gap("fs.file-nr could not be read")
		return
	}
	n, err := numbers(f, 10, 0, 2)
	if err != nil {
		w.gap("fs.file-nr: %v", err)
		return
	}
	if n[1] < math.MaxInt64 {
		w.usage(leak.Usage{Name: leak.UsageFiles, Used: n[0], Max: n[1], Limit: "fs.file-max"})
	}
}

// tracked says what the kernel's network code counts for all: tracked
// connections of the namespace and the TCP buffers of the host.
func (w *watcher) tracked(ns *namespace) {
	limits, err := ns.sysctls()
	if err != nil {
		w.gap("limits of the network namespace: %v", err)
		return
	}
	if limits.conntrackMax > 0 {
		w.usage(leak.Usage{Name: leak.UsageConntrack, Used: limits.conntrack, Max: limits.conntrackMax, Limit: "net.netfilter.nf_conntrack_max"})
	}
	b, err := os.ReadFile(w.target.Path("net", "sockstat"))
	if err != nil {
		return
	}
	if pages, ok := parseSockstat(string(b)); ok && limits.tcpMemory > 0 {
		size := uint64(os.Getpagesize())
		w.usage(leak.Usage{Name: leak.UsageTCPMemory, Used: pages * size, Max: limits.tcpMemory * size, Limit: "net.ipv4.tcp_mem", Bytes: true})
	}
}

// parseSockstat finds the pages in use by TCP: "TCP: inuse 27 orphan 1 tw 6
// alloc 64 mem 12".
func parseSockstat(text string) (pages uint64, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				n, err := strconv.ParseUint(f[i+1], 10, 64)
				return n, err == nil
			}
		}
	}
	return 0, false
}

// drops says how many connections full queues of listening sockets have cost
// the namespace, and all connections that listening sockets have lost.
func (w *watcher) drops() {
	b, err := os.ReadFile(w.target.Path("net", "netstat"))
	if err != nil {
		w.gap("drops at listening sockets: %v", err)
		return
	}
	counters := parseNetstat(string(b))
	for _, name := range []string{"ListenOverflows", "ListenDrops"} {
		if n, ok := counters["TcpExt:"+name]; ok {
			w.usage(leak.Usage{Name: leak.UsageListenDropped, Scope: name, Used: n, Limit: "net.core.somaxconn"})
		}
	}
}

// parseNetstat reads pairs of lines, names and then numbers, each after the
// name of their group: "TcpExt: SyncookiesSent ...".
func parseNetstat(text string) map[string]uint64 {
	counters := map[string]uint64{}
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(names) != len(f) || names[0] != f[0] {
			names = f
			continue
		}
		for i := 1; i < len(f); i++ {
			if n, err := strconv.ParseUint(f[i], 10, 64); err == nil {
				counters[f[0]+names[i]] = n
			}
		}
		names = nil
	}
	return counters
}
