package main

import "fmt"

// leaking and healthy make labels: the columns named leak, the other ones of
// those that are always labelled do not.
func leaking(columns ...string) []label {
	truth := map[string]string{}
	for _, c := range columns {
		truth[c] = "leak"
	}
	var labels []label
	for _, c := range []string{"rss_kb", "anon_kb", "fds", "threads"} {
		if truth[c] == "" {
			truth[c] = "none"
		}
		labels = append(labels, label{c, truth[c]})
	}
	return labels
}

// subjects are all programs, in the order of their start.
func subjects() []*subject {
	memory := leaking("rss_kb", "anon_kb")
	value := filler(1024)
	return []*subject{
		{name: "nginx-pages", what: "pages made by Lua, collected; a request at a time on connections of 100 requests",
			truth: leaking(), start: startNginx, mode: "nginx/page.lua", shape: waves, rate: 30},
		{name: "nginx-connections", what: "up to 80 clients that stay connected, their number follows the load",
			truth: leaking(), start: startNginxConnections, mode: "nginx/page.lua", shape: waves, rate: 80},
		{name: "nginx-sessions", what: "a session of 1 KiB kept for each request, by Lua in the worker",
			truth: memory, start: startNginx, mode: "nginx/sessions.lua", shape: shifts, rate: 15},
		{name: "nginx-errors", what: "6 KiB kept of one request in fifty, by Lua in the worker",
			truth: memory, start: startNginx, mode: "nginx/errors.lua", shape: waves, rate: 25},
		{name: "nginx-files", what: "one request in 200 leaves a file open, by Lua in the worker, and its FILE of 0.5 KiB",
			truth: leaking("rss_kb", "anon_kb", "fds"), start: startNginx, mode: "nginx/files.lua", shape: steady, rate: 20},

		{name: "redis-lru", what: "maxmemory 40mb, allkeys-lru, ever new keys of 1 KiB at 80/s", truth: leaking(),
			start: startRedis(func(n int) string { return fmt.Sprintf("SET page:%d %s", n, value) }),
			mode:  "--maxmemory 40mb --maxmemory-policy allkeys-lru", shape: shifts, rate: 80},
		{name: "redis-expire", what: "ever new keys of 1 KiB at 30/s that expire after 150 s", truth: leaking(),
			start: startRedis(func(n int) string { return fmt.Sprintf("SET session:%d %s EX 150", n, value) }), shape: shifts, rate: 30},
		{name: "redis-forever", what: "ever new keys of 1 KiB at 10/s that never expire, no maxmemory", truth: memory,
			start: startRedis(func(n int) string { return fmt.Sprintf("SET visit:%d %s", n, value) }), shape: waves, rate: 10},
		{name: "redis-queue", what: "a list of jobs that nobody takes, 300 bytes at 4/s, no maxmemory", truth: memory,
			start: startRedis(func(n int) string { return fmt.Sprintf("RPUSH jobs %d:%s", n, value[:300]) }), shape: steady, rate: 4},
		{name: "memcached", what: "-m 32, ever new values of 500 to 1500 bytes at 60/s", truth: leaking(),
			start: startMemcached, mode: "-m 32", shape: steady, rate: 60},

		{name: "python-lru", what: "an HTTP server with an lru_cache of 3,000 pages, cyclic garbage", truth: leaking(),
			start: startPython, mode: "healthy", shape: shifts, rate: 20},
		{name: "python-expire", what: "an HTTP server with sessions of 6 KiB that end after two minutes", truth: leaking(),
			start: startPython, mode: "sessions", shape: waves, rate: 20},
		{name: "python-warming", what: "an HTTP server that loads twelve dictionaries, each when it is first needed", truth: leaking(),
			start: startPython, mode: "warming", shape: steady, rate: 0.08},
		{name: "python-batch", what: "a job every 20 s or so that takes 20 MB and gives it back", truth: leaking(),
			start: startPython, mode: "batch", shape: steady, rate: 0.05},
		{name: "python-batch-index", what: "a job every 50 s or so like that of python-batch, of which an index of a few hundred KiB stays", truth: memory,
			start: startPython, mode: "batch-index", shape: steady, rate: 0.02},
		{name: "python-cache", what: "an HTTP server with a cache without a bound, 1.3 KiB for each request", truth: memory,
			start: startPython, mode: "cache", shape: shifts, rate: 12},
		{name: "python-errors", what: "an HTTP server that keeps 0.5 KiB of one request in twenty", truth: memory,
			start: startPython, mode: "errors", shape: steady, rate: 15},
		{name: "python-files", what: "an HTTP server that keeps a file open, and its buffer, in one request of a hundred",
			truth: leaking("rss_kb", "anon_kb", "fds"), start: startPython, mode: "files", shape: idleFirst, rate: 8},

		{name: "go-lru", what: "an HTTP server with 200 KiB of garbage a request and a cache of 512 pages", truth: leaking(),
			start: startGo, mode: "healthy", shape: waves, rate: 20},
		{name: "go-visits", what: "an HTTP server that keeps 1 KiB of one request in five, beside 200 KiB of garbage", truth: memory,
			start: startGo, mode: "visits", shape: shifts, rate: 15},
		{name: "go-bodies", what: "an HTTP server that leaves one response body in forty open: a socket and two goroutines each",
			truth: leaking("rss_kb", "anon_kb", "fds"), start: startGo, mode: "bodies", shape: waves, rate: 10},
		{name: "go-threads", what: "an HTTP server that locks a thread for ever in one request of a hundred",
			truth: leaking("rss_kb", "anon_kb", "threads"), start: startGo, mode: "threads", shape: steady, rate: 8},

		{name: "postgres-select", what: "rows at random, 50/s, shared_buffers 128MB, which the backend touches page by page",
			truth: leaking(), start: startPostgres, mode: "pgbench-select.sql", shape: turns},
		{name: "postgres-prepare", what: "a statement prepared under a new name each second, none deallocated",
			truth: memory, start: startPostgres, mode: "pgbench-prepare.sql", shape: turns},
	}
}
