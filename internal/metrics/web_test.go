package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// serve answers until the test ends; it gives the address.
func serve(t *testing.T, addr, config string, h http.Handler) string {
	t.Helper()
	l, err := Listen(addr, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, config, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// ask requests a page by the name host, and gives status and body.
func ask(t *testing.T, c *http.Client, url, host, user, password string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestNames: a loopback server answers to names of loopback alone.
func TestNames(t *testing.T) {
	addr := serve(t, "127.0.0.1:0", "", http.HandlerFunc(hello))
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "LOCALHOST:9142": 200, "localhost.": 200, "a.localhost:1": 200, "127.0.0.1": 200, "127.1.2.3:80": 200,
		"[::1]:9142": 200, "[::1]": 200,
		"evil.example": 421, "evil.example:9142": 421, "10.0.0.1": 421, "localhost.evil.example": 421, "0.0.0.0": 421,
	} {
		if got, _ := ask(t, http.DefaultClient, "http://"+addr, host, "", ""); got != want {
			t.Errorf("Host %q: status %d, want %d", host, got, want)
		}
	}
}

// webConfig writes a web configuration with a certificate of its own, for a
// user "me" with password "secret", and gives it with a client that trusts it.
func webConfig(t *testing.T) (config string, c *http.Client) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stanch"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(dir, "cert.pem"), string(certificate))
	config = filepath.Join(dir, "web.yml")
	write(t, config, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nbasic_auth_users: {me: "+string(hash)+"}\n")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	c = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}}}
	t.Cleanup(c.CloseIdleConnections)
	return config, c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBeyondLoopback: only with TLS and a password; and when the file stops
// asking for one, nobody is answered.
func TestBeyondLoopback(t *testing.T) {
	config, c := webConfig(t)
	dir := filepath.Dir(config)
	good, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsOnly, usersOnly := filepath.Join(dir, "tls.yml"), filepath.Join(dir, "users.yml")
	tlsLine, userLine, _ := strings.Cut(string(good), "\n")
	write(t, tlsOnly, tlsLine+"\n")
	write(t, usersOnly, userLine)
	mutual := filepath.Join(dir, "mutual.yml")
	write(t, mutual, "tls_server_config: {cert_file: cert.pem, key_file: key.pem, client_ca_file: cert.pem, client_auth_type: RequireAndVerifyClientCert}\n")
	wrong := filepath.Join(dir, "wrong.yml")
	write(t, wrong, "tls_server_config: {cert_fil: cert.pem}\n")

	for _, test := range []struct{ addr, config, want string }{
		{"127.0.0.1:0", "", ""},
		{"localhost:0", "", ""},
		{"[::1]:9142", "", ""},
		{"127.0.0.1:0", usersOnly, ""},
		{"0.0.0.0:0", config, ""},
		{":0", mutual, ""},
		{"0.0.0.0:0", "", "refused beyond loopback: give a web config file"},
		{":0", "", "refused beyond loopback"},
		{"[::]:0", "", "refused beyond loopback"},
		{"192.0.2.1:0", "", "refused beyond loopback"},
		{"0.0.0.0:0", usersOnly, "in the clear"},
		{"0.0.0.0:0", tlsOnly, "anybody could read"},
		{"127.0.0.1:0", wrong, "cert_fil"},
		{"127.0.0.1:0", filepath.Join(dir, "none.yml"), "no such file"},
		{"127.0.0.1", "", "HOST:PORT"},
		{"127.0.0.1:ninety", "", "HOST:PORT"},
	} {
		err := CheckAddress(test.addr, test.config)
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s, %s: %v; want %q", test.addr, test.config, err, test.want)
		}
		if exposed := err != nil && !strings.HasPrefix(test.addr, "127"); errors.Is(err, ErrExposed) != exposed {
			t.Errorf("%s: ErrExposed is wrong for %v", test.addr, err)
		}
		if s, err := Listen(test.addr, test.config); test.want != "" && err == nil {
			t.Errorf("%s, %s: it listens", test.addr, test.config)
			_ = s.Close()
		} else if err == nil {
			_ = s.Close()
		}
	}

	addr := serve(t, "0.0.0.0:0", config, http.HandlerFunc(hello))
	_, port, _ := net.SplitHostPort(addr)
	url := "https://127.0.0.1:" + port
	for _, test := range []struct {
		user, password string
		status         int
	}{{"me", "secret", 200}, {"me", "wrong", 401}, {"you", "secret", 401}, {"", "", 401}} {
		if got, _ := ask(t, c, url, "watch.example", test.user, test.password); got != test.status {
			t.Errorf("%s:%s: status %d, want %d", test.user, test.password, got, test.status)
		}
	}
	write(t, config, tlsLine+"\n")
	if got, body := ask(t, c, url, "", "", ""); got != http.StatusServiceUnavailable {
		t.Errorf("the file asks for no password any more, and the status is %d: %s", got, body)
	}
	write(t, config, string(good))
	if got, body := ask(t, c, url, "", "me", "secret"); got != 200 || body != "hello" {
		t.Errorf("the file is good again, and the status is %d: %s", got, body)
	}
}

// TestEnd: a request that runs is finished when the server ends, and the
// address is free again.
func TestEnd(t *testing.T) {
	s, err := Listen("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String(), ""); err == nil {
		t.Error("two servers listen at one address")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, s, "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cancel()
			for r.Context().Err() == nil && accepts(s.Addr().String()) {
			}
			hello(w, r)
		}))
	}()
	if status, body := ask(t, http.DefaultClient, "http://"+s.Addr().String(), "", "", ""); status != 200 || body != "hello" {
		t.Errorf("status %d: %s", status, body)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	again, err := Listen(s.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

func accepts(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// TestCrowdedServer: clients that connect and say nothing do not use up
// descriptors beyond the bound, and those before them are answered.
func TestCrowdedServer(t *testing.T) {
	addr := serve(t, "127.0.0.1:0", "", http.HandlerFunc(hello))
	if status, _ := ask(t, http.DefaultClient, "http://"+addr, "", "", ""); status != 200 {
		t.Fatalf("status %d", status)
	}
	var idle []net.Conn
	for range connections + 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	// The kept connection of the first answer is among those that have a place.
	if status, _ := ask(t, http.DefaultClient, "http://"+addr, "", "", ""); status != 200 {
		t.Errorf("status %d", status)
	}
	for _, c := range idle {
		_ = c.Close()
	}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: readWithin / 2}
	if status, _ := ask(t, fresh, "http://"+addr, "", "", ""); status != 200 {
		t.Errorf("status %d after the crowd", status)
	}
}
