package descriptors

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// apart starts a role in a network namespace of its own.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET }

// wrongSocket compares what was found with what the program made; "" when they
// are equal. byText leaves out what /proc/PID/net does not tell.
func wrongSocket(f fact, got *leak.Socket, byText bool) string {
	if got == nil {
		return "has no socket"
	}
	is := fact{f.Num, got.Protocol, got.State, got.Local, got.Peer, got.ReceiveQueue, got.SendQueue}
	switch {
	case f.State == "FIN_WAIT1", f.Protocol == "unix seqpacket":
		is.SendQueue = f.SendQueue // whatever the buffers took, and what that takes in memory
	case f.Protocol == "packet":
		is.ReceiveQueue = f.ReceiveQueue // it hears all
	}
	unixText := byText && strings.HasPrefix(f.Protocol, "unix")
	if byText && f.State == "LISTEN" || unixText {
		is.SendQueue = f.SendQueue
	}
	if unixText {
		is.ReceiveQueue, is.Peer = f.ReceiveQueue, f.Peer
	}
	if is != f {
		return fmt.Sprintf("is %+v, want %+v", is, f)
	}
	return ""
}

// TestNetwork looks at sockets in each state in another network namespace, in
// the kernel's own tables and, without the right to enter it, in /proc/PID/net.
func TestNetwork(t *testing.T) {
	var made stage
	target := play(t, &made, apart, "network")
	var s *seen
	until(t, func() string {
		s = scan(t, target)
		return wrongSockets(made, s) + wrongOwnerless(made, s)
	})
	if len(s.Gaps) != 0 {
		t.Errorf("gaps: %+v", s.Gaps)
	}
	t.Run("times", func(t *testing.T) { checkTimes(t, made, s) })
	t.Run("unix", func(t *testing.T) { checkUnix(t, made, s) })
	t.Run("usages", func(t *testing.T) { checkUsages(t, made, s) })
	t.Run("source", func(t *testing.T) { checkSource(t, made, target) })
	t.Run("denied", func(t *testing.T) { checkDenied(t, made, target) })
	t.Run("home", checkHome)
}

func wrongSockets(made stage, s *seen) string {
	open := s.open()
	var wrong []string
	for name, f := range made.Sockets {
		d := open[f.Num]
		if d.Kind != "socket" || !d.CloseOnExec || d.Access != "rw" || d.Inode == 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %+v", name, d))
		} else if w := wrongSocket(f, d.Socket, false); w != "" {
			wrong = append(wrong, name+" "+w)
		}
	}
	return strings.Join(wrong, "\n")
}

// checkTimes holds that connected sockets have times, and no others.
func checkTimes(t *testing.T, made stage, s *seen) {
	open := s.open()
	for name, f := range made.Sockets {
		sock := open[f.Num].Socket
		connected := f.Protocol == "tcp" && f.State != "LISTEN" && f.State != "CLOSE" && f.State != "SYN_SENT"
		if known := sock.LastReceived >= 0 && sock.LastSent >= 0; known != connected {
			t.Errorf("%s: data came %v ago, went %v ago", name, sock.LastReceived, sock.LastSent)
		}
		if sock.LastReceived > patience || sock.LastSent > patience {
			t.Errorf("%s: data came %v ago, went %v ago", name, sock.LastReceived, sock.LastSent)
		}
	}
}

// checkUnix holds that the other ends of unix sockets are known.
func checkUnix(t *testing.T, made stage, s *seen) {
	open := s.open()
	pair := open[made.Sockets["pair"].Num].Socket
	for _, d := range open {
		if d.Inode == pair.PeerID && (d.Socket.PeerID != pair.Inode || d.Socket.ReceiveQueue == 0) {
			t.Errorf("the other end of the pair is %+v", *d.Socket)
		}
	}
	if pair.PeerID == 0 {
		t.Error("the pair's other end is not known")
	}
}

// wrongOwnerless compares what was left behind with what was counted; "" when
// they are equal.
func wrongOwnerless(made stage, s *seen) string {
	got := map[string]uint64{}
	for _, o := range s.Gone {
		got[o.State+" "+o.Local] += o.N
	}
	if got["TIME_WAIT "+made.Serving] != served || got["TIME_WAIT to "+made.Visited] != visited || got["FIN_WAIT1 "+made.Orphaned] != 1 {
		return fmt.Sprintf("%v without an owner; want %d TIME_WAIT at %s, %d to %s, an orphan in FIN_WAIT1 at %s", got, served, made.Serving, visited, made.Visited, made.Orphaned)
	}
	return ""
}

func checkUsages(t *testing.T, made stage, s *seen) {
	for _, want := range []leak.Usage{
		{Name: leak.UsagePorts, Scope: "127.0.0.1 to " + made.Visited, Used: visited, Max: portsFree, Limit: "net.ipv4.ip_local_port_range"},
		{Name: leak.UsageBacklog, Scope: made.Full, Used: 3, Max: 2, Limit: "listen backlog"},
		{Name: leak.UsageBacklog, Scope: made.Sockets["listener"].Local, Max: longest(), Limit: "net.core.somaxconn"},
	} {
		if got := s.usage(want.Name, want.Scope); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for _, name := range []string{"ListenOverflows", "ListenDrops"} {
		if u := s.usage(leak.UsageListenDropped, name); u.Used == 0 || u.Max != 0 {
			t.Errorf("%s: %+v", name, u)
		}
	}
	if u := s.usage(leak.UsageTCPMemory, ""); u.Used == 0 || u.Max <= u.Used || !u.Bytes {
		t.Errorf("TCP memory: %+v", u)
	}
}

func checkSource(t *testing.T, made stage, target *proc.Target) {
	for name, want := range map[string]string{
		"idle":            "TCP " + made.Sockets["idle"].Peer,
		"close wait":      "TCP " + made.Sockets["close wait"].Peer,
		"six":             "TCP " + made.Sockets["six"].Peer,
		"full":            "TCP listening on " + made.Full,
		"fresh":           "TCP",
		"udp":             "UDP " + made.Sockets["udp"].Local,
		"path listener":   "unix listening on " + made.Sockets["path listener"].Local,
		"path client":     "unix " + made.Sockets["path listener"].Local,
		"abstract client": "unix",
		"pair":            "unix socket pair",
		"netlink":         "netlink " + made.Sockets["netlink"].Local,
	} {
		if got := Source(target, made.Sockets[name].Num); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := Source(target, 1<<20); got != "" {
		t.Errorf("a closed descriptor is %q", got)
	}
}

// checkDenied looks as root without CAP_SYS_ADMIN, as in a container.
func checkDenied(t *testing.T, made stage, target *proc.Target) {
	var r report
	play(t, &r, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--", cmd.Path}, cmd.Args[1:]...)
		var err error
		if cmd.Path, err = exec.LookPath("setpriv"); err != nil {
			t.Fatal(err)
		}
	}, "scan", strconv.Itoa(target.ID.PID))
	if r.Error != "" {
		t.Fatal(r.Error)
	}
	if g := r.Seen.Gaps; len(g) != 2 || !strings.Contains(g[0].What, "CAP_SYS_ADMIN") || !strings.Contains(g[1].What, "mptcp sockets") {
		t.Errorf("gaps: %+v", g)
	}
	if sock := r.Seen.open()[made.Sockets["multipath"].Num].Socket; sock.State != "" {
		t.Errorf("without a table the state of a socket is %s", sock.State)
	}
	for name, f := range made.Sockets {
		if f.State == "CLOSE" && f.Local == "" || f.Protocol == "netlink" {
			continue
		}
		if w := wrongSocket(f, r.Seen.open()[f.Num].Socket, true); w != "" {
			t.Errorf("%s %s", name, w)
		}
	}
	if got := r.Seen.usage(leak.UsageListenDropped, "ListenDrops"); got.Used == 0 {
		t.Errorf("drops: %+v", got)
	}
	if w := wrongOwnerless(made, r.Seen); w != "" {
		t.Error(w)
	}
}

// checkHome holds that no thread of ours stays in the other namespace.
func checkHome(t *testing.T) {
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() string {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err.Error()
		}
		for _, task := range tasks {
			at, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
			if err == nil && at != home {
				return "a thread stays in " + at
			}
		}
		return ""
	})
}

// TestOther looks at a process of another user without any rights.
func TestOther(t *testing.T) {
	var r report
	play(t, &r, func(cmd *exec.Cmd) {
		cmd.Path = readable(t, cmd.Path)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}, "scan", strconv.Itoa(os.Getpid()))
	if !r.Denied {
		t.Errorf("the error is %q", r.Error)
	}
}

// TestUnprivileged looks at a process of the same user, in our namespace,
// without any capability: sock_diag answers everybody.
func TestUnprivileged(t *testing.T) {
	user := func(cmd *exec.Cmd) {
		cmd.Path = readable(t, cmd.Path)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	var made map[string]fact
	target := play(t, &made, user, "plain")
	var r report
	play(t, &r, user, "scan", strconv.Itoa(target.ID.PID))
	if r.Error != "" || len(r.Seen.Gaps) != 0 {
		t.Fatalf("%s %+v", r.Error, r.Seen.Gaps)
	}
	for name, f := range made {
		sock := r.Seen.open()[f.Num].Socket
		if w := wrongSocket(f, sock, false); w != "" {
			t.Errorf("%s %s", name, w)
		} else if f.Local != "" && (sock.LastReceived < 0 || sock.Owner != nobody) {
			t.Errorf("%s is %+v", name, sock)
		}
	}
	if u := r.Seen.usage(leak.UsageDescriptors, ""); u.Max == 0 || u.Used < 4 {
		t.Errorf("%+v", u)
	}
}

const nobody = 65534

// readable copies a program to where everybody may run it.
func readable(t *testing.T, exe string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stanch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	to := dir + "/program"
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}
