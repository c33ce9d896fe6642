package sampler

import (
	"fmt"
	"hash/fnv"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kinds of a service.
const (
	KindUnit      = "unit"      // of systemd, the system's or a user's
	KindContainer = "container" // of any runtime
	KindCommand   = "command"   // an executable with its arguments
	KindHost      = "host"      // the host itself, whose name is ""
)

// place is what the cgroup of a process tells of its service.
type place struct {
	service, kind string
	group         string // the component of the path that is the service's own group
}

// placeOf reads a path of /proc/PID/cgroup. A container comes before a unit,
// whichever is the outer one; of units the innermost counts, and a scope, whose
// name is as good as random, is none. The zero place is a path that says
// nothing of a service.
func placeOf(cgroup string) place {
	var unit place
	outer := "" // whose units they are: a user's, or those of a system in a container of systemd's
	for part := range strings.SplitSeq(cgroup, "/") {
		if name := container(part); name != "" {
			return named(place{name, KindContainer, part}, cgroup)
		}
		switch {
		case strings.HasPrefix(part, "machine-") && strings.HasSuffix(part, ".scope"):
			outer += strings.TrimSuffix(part, ".scope") + "/"
			unit = place{}
		case strings.HasSuffix(part, ".scope"):
			unit = place{}
		case !strings.HasSuffix(part, ".service"):
		case transient.MatchString(part):
			unit = place{}
		default:
			unit = place{outer + part, KindUnit, part}
			if strings.HasPrefix(part, "user@") || strings.HasPrefix(part, "systemd-nspawn@") {
				outer += strings.TrimSuffix(part, ".service") + "/"
			}
		}
	}
	return unit
}

var (
	// transient are the units that get a name of their own each time: those of
	// systemd-run without a name (run-u12.service, run-r6f..., run-p12-i34;
	// src/run/run.c of systemd), those of one connection each, as with Accept=yes
	// (sshd@7-10.0.0.1:22-10.0.0.2:4711.service; instance_from_socket of
	// src/core/socket.c), and applications of a desktop (app-x@RANDOM.service).
	transient = regexp.MustCompile(`^(run-[urp][0-9a-f]+(-i[0-9a-f]+)?|[^@]+@[0-9]+-([0-9]+-[0-9]+|.*:[0-9]+-.*:[0-9]+)|app-.*@[0-9a-f]{32})\.service$`)
	// scoped are containers whose cgroups systemd made; a kubelet that was told
	// so without being so writes colons.
	scoped  = regexp.MustCompile(`^(docker|libpod|crio|cri-containerd|nerdctl)-([0-9a-f]{12,64})(\.scope)?$`)
	coloned = regexp.MustCompile(`:(docker|crio|cri-containerd):([0-9a-f]{12,64})$`)
	// bare is the group of a container that a runtime made by itself, named by
	// the container's id alone: /docker/ID, /kubepods/burstable/podUID/ID.
	bare = regexp.MustCompile(`^[0-9a-f]{64}$`)
	lxc  = regexp.MustCompile(`^lxc\.payload\.(.+)$`)
)

// runtimes are the names by which people know them.
var runtimes = map[string]string{"libpod": "podman", "cri-containerd": "containerd", "nerdctl": "containerd"}

// KindOf tells from the name of a service what it is, for who has the name alone,
// as histories do.
func KindOf(service string) string {
	first, _, inside := strings.Cut(service, "/")
	switch {
	case service == "":
		return KindHost
	case strings.HasSuffix(service, ".service") && !strings.Contains(service, " "):
		return KindUnit
	case inside && !strings.Contains(first, " ") && slices.Contains([]string{"docker", "podman", "containerd", "crio", "kubepods", "lxc", "container"}, first):
		return KindContainer
	}
	return KindCommand
}

// shortID is how much of a container's id people see and type.
const shortID = 12

// container names the container that a component of a cgroup's path is of; ""
// for none. What watches a container from outside, "libpod-conmon-ID.scope", is
// none.
func container(part string) string {
	m := scoped.FindStringSubmatch(part)
	if m == nil {
		m = coloned.FindStringSubmatch(part)
	}
	switch {
	case m != nil:
		name := m[1]
		if known, ok := runtimes[name]; ok {
			name = known
		}
		return name + "/" + m[2][:shortID]
	case bare.MatchString(part):
		return "container/" + part[:shortID]
	}
	if m := lxc.FindStringSubmatch(part); m != nil {
		return "lxc/" + m[1]
	}
	return ""
}

// named puts the runtime's name to a container that its path names by the id
// alone.
func named(p place, cgroup string) place {
	id, ok := strings.CutPrefix(p.service, "container/")
	if !ok {
		return p
	}
	for _, runtime := range []string{"docker", "kubepods", "libpod", "crio", "containerd"} {
		if strings.HasPrefix(cgroup, "/"+runtime) {
			if known, ok := runtimes[runtime]; ok {
				runtime = known
			}
			p.service = runtime + "/" + id
		}
	}
	return p
}

// maxName is how long the name of a service may be, in bytes.
const maxName = 100

// command names the service of a process that neither a unit nor a container
// has: the program with its arguments.
func command(program string, args []string) string {
	full := strings.Join(append([]string{program}, args...), " ")
	return bounded(full)
}

// bounded cuts a name that is too long. Its beginning and its end stay, where a
// long call of java has its class; a hash tells it from others that have both.
func bounded(full string) string {
	name := printable(full)
	if len(name) <= maxName {
		return name
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(full)) // a hash cannot fail
	const left = "..."
	cut, resume := maxName/2, len(name)-(maxName/2-len(left))
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	for !utf8.RuneStart(name[resume]) {
		resume++
	}
	return fmt.Sprintf("%s%s%s~%08x", name[:cut], left, name[resume:], h.Sum32())
}

// printable replaces what would not stand in a line of text or in a label.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// title reports whether a command line was overwritten by its program with a
// title of its own, "nginx: worker process": what it says now may change any
// time.
func title(args []string) bool {
	return len(args) > 0 && (strings.Contains(args[0], ": ") || strings.HasSuffix(args[0], ":") || strings.HasPrefix(args[0], "["))
}

// head is what a command line calls its program: "nginx" of the title "nginx:
// worker process", "celeryd" of "[celeryd: x]", else the word by which it was
// called.
func head(args []string) string {
	if len(args) == 0 {
		return ""
	}
	word := strings.TrimLeft(args[0], "[")
	if end := strings.IndexAny(word, ":] "); end >= 0 && (title(args) || len(args) == 1) {
		word = word[:end]
	}
	return path.Base(word)
}

// calls reports whether a command line is a call of a program by a name, or of
// an interpreter with it.
func calls(args []string, name string) bool {
	return len(args) > 0 && name != "" && (head(args) == name || len(args) > 1 && path.Base(args[1]) == name)
}

// titled gives the words that name a service after its program where there is
// but a title. What may change is none of them; what the master process was
// called with says which of several it is: "nginx: master process
// /usr/sbin/nginx -c a.conf", "gunicorn: master [shop]".
func titled(program string, args []string) []string {
	var words []string
	name := head(args)
	if !strings.HasPrefix(program, name) { // an interpreter
		words = append(words, name)
	}
	_, text, ok := strings.Cut(args[0], ": master ")
	if !ok {
		return words
	}
	line := append(strings.Fields(strings.TrimPrefix(text, "process")), args[1:]...)
	if len(line) > 0 && path.Base(line[0]) == program {
		line = line[1:]
	}
	return append(words, line...)
}

// program is the name of what runs: that of the executable, or the one it was
// called by where the kernel and the command line agree on it, as with links
// ("python3" of python3.11, applets of busybox). A command line that is one
// string, "redis-server *:6379", is given as its words.
func program(exe, comm string, args []string) (name string, rest []string) {
	name = comm
	if exe != "" {
		name = path.Base(exe)
	}
	if len(args) == 0 {
		return name, nil
	}
	rest = args[1:]
	called := args[0]
	if words := strings.Fields(called); len(args) == 1 && len(words) > 1 && called != exe {
		called, rest = words[0], words[1:]
	}
	called = path.Base(strings.TrimPrefix(called, "-")) // a login shell begins with it
	const commSize = 15                                 // TASK_COMM_LEN without the zero
	inMemory := strings.HasPrefix(exe, "/memfd:")       // whose name is as good as random, and its comm a number
	if inMemory || called == comm || len(comm) == commSize && strings.HasPrefix(called, comm) {
		name = called
	}
	return name, rest
}
