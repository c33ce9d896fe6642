package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
	"gopkg.in/yaml.v3"
)

// DefaultAddress is where a watch listens when nothing else is said.
const DefaultAddress = "127.0.0.1:9142"

// The bounds of the server. A page is read in well below a second; who needs
// longer than these holds a place that another one could use.
const (
	connections = 64
	readWithin  = 10 * time.Second
	writeWithin = 60 * time.Second
	idleFor     = 2 * time.Minute
	endWithin   = 5 * time.Second
)

// ErrExposed is why a server does not listen beyond loopback: it has no TLS or
// asks for no password.
var ErrExposed = errors.New("refused beyond loopback")

// Listen takes the address, for Serve; nobody is answered yet. configFile is a web
// configuration of Prometheus's exporters with certificate and users, "" for
// none; the server reads it again when it changes. Beyond loopback it needs
// TLS, and passwords or client certificates: else the error is ErrExposed.
//
// The file's format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
func Listen(addr, configFile string) (net.Listener, error) {
	if err := CheckAddress(addr, configFile); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", addr, err)
	}
	// A name may mean another address by now.
	if !loopback(l.Addr()) && protects(configFile) != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen at %s: %w", addr, protects(configFile))
	}
	return l, nil
}

// CheckAddress reports whether Listen would take this address and this file, and
// does not listen.
func CheckAddress(addr, configFile string) error {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen at %s: %w; an address is HOST:PORT, as %s", addr, err, DefaultAddress)
	}
	if configFile != "" {
		if err := web.Validate(configFile); err != nil {
			return fmt.Errorf("web config %s: %w", configFile, oneLine{err})
		}
	}
	if loopback(tcp) {
		return nil
	}
	if err := protects(configFile); err != nil {
		return fmt.Errorf("listen at %s: %w", addr, err)
	}
	return nil
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback() // no IP at all means all interfaces
}

// protects reports whether a web configuration asks for both TLS and proof of
// who is there.
func protects(configFile string) error {
	if configFile == "" {
		return fmt.Errorf("%w: give a web config file with tls_server_config and basic_auth_users, or listen at %s", ErrExposed, DefaultAddress)
	}
	data, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	var c struct {
		TLS   web.TLSConfig     `yaml:"tls_server_config"`
		Users map[string]string `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("web config %s: %w", configFile, oneLine{err})
	}
	switch {
	case !c.TLS.IsEnabled():
		return fmt.Errorf("%w: %s has no tls_server_config, so passwords would be sent in the clear", ErrExposed, configFile)
	case len(c.Users) == 0 && c.TLS.ClientAuth != "RequireAndVerifyClientCert":
		return fmt.Errorf("%w: %s has neither basic_auth_users nor client_auth_type RequireAndVerifyClientCert, so anybody could read", ErrExposed, configFile)
	}
	return nil
}

// oneLine is an error of the YAML library in one line.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

// Serve answers with h at l, which it closes, until ctx ends; then requests
// that run have 5 s to finish. configFile is that of Listen. It returns nil
// when ctx ended it. What clients do wrong is their own business and is said
// to nobody else.
func Serve(ctx context.Context, l net.Listener, configFile string, h http.Handler) error {
	silent := slog.New(slog.DiscardHandler)
	server := &http.Server{
		Handler:           guard(h, loopback(l.Addr()), configFile),
		ReadHeaderTimeout: readWithin,
		ReadTimeout:       readWithin,
		WriteTimeout:      writeWithin,
		IdleTimeout:       idleFor,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(silent.Handler(), slog.LevelInfo),
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		// ctx is over, so the time to finish is counted apart from it.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
		defer cancel()
		err := server.Shutdown(within)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		ended <- err
	})
	err := web.Serve(netutil.LimitListener(l, connections), server, &web.FlagConfig{WebConfigFile: &configFile}, silent)
	if !stop() {
		return <-ended
	}
	_ = l.Close() // an error before anything was accepted leaves it open
	return fmt.Errorf("serve at %s: %w", l.Addr(), err)
}

// guard answers only who calls a loopback server by a name of loopback: a page
// of another site whose name an attacker points at 127.0.0.1 (DNS rebinding)
// sends its own name. It also sees to it that a web configuration that was
// changed still protects, since the toolkit reads it anew for each request.
func guard(h http.Handler, local bool, configFile string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case local && !localHost(r.Host):
			http.Error(w, "this server answers to localhost only", http.StatusMisdirectedRequest)
		case !local && protects(configFile) != nil:
			http.Error(w, "the web config file does not protect this server any more", http.StatusServiceUnavailable)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// localHost reports whether a Host header names loopback.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true // never asked of a name server: RFC 6761, section 6.3
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
