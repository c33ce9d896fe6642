package sampler

import (
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	id   = "3f4e8a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7"
	uid  = "0d1e2f3a-4b5c-6d7e-8f90-a1b2c3d4e5f6"
	unit = "kubepods-burstable-pod0d1e2f3a_4b5c_6d7e_8f90_a1b2c3d4e5f6.slice"
)

func TestPlaceOf(t *testing.T) {
	for path, want := range map[string]place{
		"/":                                      {},
		"/init.scope":                            {},
		"/system.slice":                          {},
		"/system.slice/nginx.service":            {"nginx.service", KindUnit, "nginx.service"},
		"/system.slice/app@1.service/sub/deeper": {"app@1.service", KindUnit, "app@1.service"},
		"/system.slice/system-getty.slice/getty@tty1.service":                                    {"getty@tty1.service", KindUnit, "getty@tty1.service"},
		"/user.slice/user-1000.slice/session-3.scope":                                            {},
		"/user.slice/user-1000.slice/user@1000.service/init.scope":                               {},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/pipewire.service":               {"user@1000/pipewire.service", KindUnit, "pipewire.service"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4711.scope":   {},
		"/system.slice/run-u12.service":                                                          {},
		"/system.slice/run-r0f1e2d.service":                                                      {},
		"/system.slice/run-p12-i34.service":                                                      {},
		"/system.slice/system-sshd.slice/sshd@12-10.0.0.1:22-10.0.0.2:51234.service":             {},
		"/system.slice/sshd@3-fe80::1:22-fe80::2:4444.service":                                   {},
		"/system.slice/varlink@4-4711-0.service":                                                 {},
		"/system.slice/postgresql@15-main.service":                                               {"postgresql@15-main.service", KindUnit, "postgresql@15-main.service"},
		"/user.slice/user@1000.service/app.slice/app-x@0123456789abcdef0123456789abcdef.service": {},
		"/machine.slice/systemd-nspawn@web.service/supervisor":                                   {"systemd-nspawn@web.service", KindUnit, "systemd-nspawn@web.service"},
		"/machine.slice/systemd-nspawn@web.service/payload/system.slice/cron.service":            {"systemd-nspawn@web/cron.service", KindUnit, "cron.service"},
		"/machine.slice/machine-web.scope/system.slice/cron.service":                             {"machine-web/cron.service", KindUnit, "cron.service"},
		"/machine.slice/machine-web.scope/user.slice/user@0.service/app.slice/x.service":         {"machine-web/user@0/x.service", KindUnit, "x.service"},
		"/system.slice/runner.service":                                                           {"runner.service", KindUnit, "runner.service"},
		"/docker/" + id:                                                                          {"docker/3f4e8a1b2c3d", KindContainer, id},
		"/docker/" + id + "/system.slice/cron.service":                                           {"docker/3f4e8a1b2c3d", KindContainer, id},
		"/system.slice/docker-" + id + ".scope":                                                  {"docker/3f4e8a1b2c3d", KindContainer, "docker-" + id + ".scope"},
		"/machine.slice/libpod-" + id + ".scope/container":                                       {"podman/3f4e8a1b2c3d", KindContainer, "libpod-" + id + ".scope"},
		"/machine.slice/libpod-conmon-" + id + ".scope":                                          {},
		"/kubepods/burstable/pod" + uid + "/" + id:                                               {"kubepods/3f4e8a1b2c3d", KindContainer, id},
		"/kubepods.slice/" + unit + "/cri-containerd-" + id + ".scope":                           {"containerd/3f4e8a1b2c3d", KindContainer, "cri-containerd-" + id + ".scope"},
		"/kubepods.slice/" + unit + "/crio-" + id + ".scope":                                     {"crio/3f4e8a1b2c3d", KindContainer, "crio-" + id + ".scope"},
		"/system.slice/containerd.service/kubepods-besteffort-podx.slice:cri-containerd:" + id:   {"containerd/3f4e8a1b2c3d", KindContainer, "kubepods-besteffort-podx.slice:cri-containerd:" + id},
		"/ecs/0123456789abcdef0123456789abcdef/" + id:                                            {"container/3f4e8a1b2c3d", KindContainer, id},
		"/lxc.payload.web/system.slice/cron.service":                                             {"lxc/web", KindContainer, "lxc.payload.web"},
		"/../../system.slice/x.service":                                                          {"x.service", KindUnit, "x.service"},
		"/process_api/d034cfa24c26c73611415b1e6061938a":                                          {},
	} {
		if got := placeOf(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
		if want.service != "" && KindOf(want.service) != want.kind {
			t.Errorf("%s is taken for a %s by its name, want %s", want.service, KindOf(want.service), want.kind)
		}
	}
	for _, command := range []string{"nginx -c /etc/a.service", "sh docker/run", "redis-server *:6379"} {
		if got := KindOf(command); got != KindCommand {
			t.Errorf("%s is taken for a %s by its name", command, got)
		}
	}
}

// TestServices names processes of a host without units.
func TestServices(t *testing.T) {
	f := newTree(t)
	long := "-Djava.class.path=" + strings.Repeat("/opt/app/lib/x.jar:", 20)
	want := map[int]string{}
	add := func(service string, p fake) {
		t.Helper()
		if p.cgroup == "" {
			p.cgroup = "0::/\n"
		}
		f.run(p)
		want[p.pid] = service
	}
	nginx := fake{comm: "nginx", exe: "/usr/sbin/nginx"}
	with := func(p fake, pid, ppid int, args ...string) fake {
		p.pid, p.ppid, p.args = pid, ppid, args
		return p
	}
	add("nginx -c /etc/a.conf", with(nginx, 10, 1, "nginx: master process /usr/sbin/nginx -c /etc/a.conf"))
	add("nginx -c /etc/a.conf", with(nginx, 11, 10, "nginx: worker process"))
	add("nginx -c /etc/b.conf", with(nginx, 12, 1, "nginx: master process nginx -c /etc/b.conf"))
	add("nginx -c /etc/b.conf", with(nginx, 13, 12, "nginx: worker process is shutting down"))
	add("nginx", with(nginx, 14, 1, "nginx: worker process")) // its master has ended
	add("php-fpm8.2 (/etc/php/8.2/fpm/php-fpm.conf)", fake{pid: 20, comm: "php-fpm8.2", exe: "/usr/sbin/php-fpm8.2", args: []string{"php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)"}})
	add("php-fpm8.2 (/etc/php/8.2/fpm/php-fpm.conf)", fake{pid: 21, ppid: 20, comm: "php-fpm8.2", exe: "/usr/sbin/php-fpm8.2", args: []string{"php-fpm: pool www"}})
	postgres := fake{comm: "postgres", exe: "/usr/lib/postgresql/15/bin/postgres"}
	add("postgres -D /data", with(postgres, 30, 1, "/usr/lib/postgresql/15/bin/postgres", "-D", "/data"))
	add("postgres -D /data", with(postgres, 31, 30, "postgres: checkpointer "))
	add("postgres -D /data", with(postgres, 32, 30, "postgres: user db 10.0.0.1(40412) idle"))
	add("redis-server *:6379", fake{pid: 40, comm: "redis-server", exe: "/usr/bin/redis-check-rdb", args: []string{"redis-server *:6379"}})
	add("python3 /opt/app.py --port 80", fake{pid: 41, comm: "python3", exe: "/usr/bin/python3.11", args: []string{"/usr/bin/python3", "/opt/app.py", "--port", "80"}})
	add("python3.11 /usr/bin/gunicorn app", fake{pid: 42, comm: "gunicorn", exe: "/usr/bin/python3.11", args: []string{"/usr/bin/python3", "/usr/bin/gunicorn", "app"}})
	add("bash", fake{pid: 43, comm: "bash", exe: "/usr/bin/bash", args: []string{"-bash"}})
	add("sh -c x", fake{pid: 44, comm: "sh", exe: "/bin/busybox", args: []string{"sh", "-c", "x"}})
	add("a-very-long-program-name", fake{pid: 45, comm: "a-very-long-pro", exe: "/tmp/other", args: []string{"a-very-long-program-name"}})
	add("mysql -u root --password=***", fake{pid: 46, comm: "mysql", exe: "/usr/bin/mysql", args: []string{"mysql", "-u", "root", "--password=geheim"}})
	add("gone-exe", fake{pid: 47, comm: "gone-exe"})
	add("server", fake{pid: 48, comm: "server", exe: "/srv/server (deleted)"})
	add("loader x", fake{pid: 49, comm: "4", exe: "/memfd:x-8123 (deleted)", args: []string{"loader", "x"}})
	add("b?d ??name x y", fake{pid: 50, comm: "b\xffd", exe: "/usr/bin/b\xffd \x1b\x01name", args: []string{"z", "x\ny"}})
	add("cron.service", fake{pid: 51, comm: "cron", exe: "/usr/sbin/cron", args: []string{"cron"}, cgroup: "5:memory:/system.slice\n1:name=systemd:/system.slice/cron.service\n0::/\n"})
	add("docker/3f4e8a1b2c3d", fake{pid: 52, comm: "x", exe: "/x", cgroup: "9:name=systemd:/system.slice/docker.service\n4:memory:/docker/" + id + "\n0::/system.slice/docker.service\n"})
	f.run(fake{pid: 60, comm: "java", exe: "/usr/bin/java", args: []string{"java", long, "com.example.A"}})
	f.run(fake{pid: 61, comm: "java", exe: "/usr/bin/java", args: []string{"java", long, "com.example.B"}})
	longest := "-Djava.class.path=" + strings.Repeat("/opt/app/lib/x.jar:", 500)
	f.run(fake{pid: 62, comm: "java", exe: "/usr/bin/java", args: []string{"java", longest, "com.example.A"}})
	f.run(fake{pid: 63, comm: "java", exe: "/usr/bin/java", args: []string{"java", longest, "com.example.B"}})
	// Of one interpreter are the parent, which is another program, and all titles.
	python := fake{comm: "python3", exe: "/usr/bin/python3.11"}
	add("python3 /usr/bin/supervisord -n", with(python, 70, 1, "/usr/bin/python3", "/usr/bin/supervisord", "-n"))
	add("python3.11 gunicorn [shop]", with(python, 71, 70, "gunicorn: master [shop]"))
	add("python3.11 gunicorn [shop]", with(python, 72, 71, "gunicorn: worker [shop]"))
	add("python3.11 gunicorn [mail]", with(python, 73, 70, "gunicorn: master [mail]"))
	add("python3.11 gunicorn [mail]", with(python, 74, 73, "gunicorn: worker [mail]"))
	add("python3.11 celeryd", with(python, 75, 70, "[celeryd: celery@host:MainProcess] -active- (worker -A proj)"))
	add("python3.11 celeryd", with(python, 76, 75, "[celeryd: celery@host:ForkPoolWorker-1]"))
	add("ruby /usr/bin/puma -p 80", fake{pid: 77, comm: "ruby", exe: "/usr/bin/ruby", args: []string{"ruby", "/usr/bin/puma", "-p", "80"}})
	add("ruby /usr/bin/puma -p 80", fake{pid: 78, ppid: 77, comm: "ruby", exe: "/usr/bin/ruby", args: []string{"puma: cluster worker 0: 77 [app]"}})
	// PIDs that were given anew while they were read.
	for _, p := range [][2]int{{80, 81}, {81, 82}, {82, 80}} {
		add("nginx", with(nginx, p[0], p[1], "nginx: worker process"))
	}
	h := f.host()
	f.sweep(h)
	names := map[int]string{}
	for _, p := range h.Processes() {
		names[p.ID.PID] = p.Service
		if !utf8.ValidString(p.Service) || !utf8.ValidString(p.Comm) {
			t.Errorf("%q, %q are no text", p.Service, p.Comm)
		}
	}
	for pid, service := range want {
		if names[pid] != service {
			t.Errorf("process %d belongs to %q, want %q", pid, names[pid], service)
		}
	}
	// The class path alone is longer than what is kept of a command line.
	for _, pid := range []int{60, 61, 62, 63} {
		name := names[pid]
		if names[pid^1] == name || len(name) > maxName+10 || !strings.HasPrefix(name, "java -Djava") || !strings.Contains(name, " com.example.") {
			t.Errorf("a long command line is %q", name)
		}
	}
	if a, b := names[60], names[61]; a == b {
		t.Errorf("two long command lines are %q and %q", a, b)
	}
}

// TestCutSecrets leaves no part of a secret at the end of what is kept of a
// command line.
func TestCutSecrets(t *testing.T) {
	for _, at := range []int{keptArgs, longestArgs} {
		for _, secret := range []string{"https://joe:hunter2@host/", "--token=hunter2", "--x=joe:hunter2@host"} {
			for end := range len(secret) {
				text := "server\x00" + strings.Repeat("x", at-end-8) + "\x00" + secret + "\x00" + strings.Repeat("y", 99)
				args := arguments([]byte(text))
				name, kept := command("server", args[1:]), strings.Join(beginning(args), " ")
				if strings.Contains(name, "hun") || strings.Contains(kept, "hun") || len(kept) > keptArgs {
					t.Errorf("cut %d bytes before %d: %q, %q", end, at, name, kept[len(kept)-50:])
				}
			}
		}
	}
	if got := arguments([]byte(strings.Repeat("z", 2*longestArgs))); len(got) != 1 || len(got[0]) != longestArgs {
		t.Errorf("one long argument is %d", len(got))
	}
	for _, text := range []string{"", "\x00", "\x00\x00 \x00"} {
		if got := arguments([]byte(text)); got != nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}
