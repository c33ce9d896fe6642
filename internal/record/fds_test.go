package record

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"stanch/internal/leak"
)

// descriptors says each event that came with descriptors.
func descriptors(w leak.EdgeSink) {
	p, q := header.Proc, leak.ProcID{PID: 4712, Start: 100}
	fd := leak.Ref{Proc: p, Kind: leak.KindDescriptor, ID: 37}
	w.Acquire(leak.Acquire{At: 7 * time.Second, Ref: fd, Stack: 1, Weight: 1, Call: "accept4"})
	w.Acquire(leak.Acquire{At: 7 * time.Second, Ref: fd, Stack: 1, Weight: 0.5, Exact: true, Call: "an \"odd\" call"})
	w.Use(leak.Use{At: 8 * time.Second, Ref: fd, Call: "read", Error: "EAGAIN"})
	w.Use(leak.Use{At: 8 * time.Second, Ref: fd, Call: "sendto"})
	w.Release(leak.Release{At: 9 * time.Second, Ref: fd, Stack: 2, Call: "close"})
	w.Release(leak.Release{At: 9 * time.Second, Ref: fd, Call: "dup2"})
	w.Listing(leak.Listing{At: 10 * time.Second, Proc: p, Open: []leak.Descriptor{
		{Num: 0, Kind: "device", Name: "/dev/null", Access: "rw", Inode: 4, Dev: 6},
		{Num: 3, Kind: "file", Name: "/var/log/a b.log", Deleted: true, CloseOnExec: true, Access: "w", Size: 1 << 40, Inode: 12, Dev: 2049},
		{Num: 37, Kind: "socket", Name: "socket:[77]", Inode: 77, Socket: &leak.Socket{Protocol: "tcp", State: "CLOSE_WAIT", Local: "10.0.0.1:8080",
			Peer: "[::1]:53", Inode: 77, ReceiveQueue: 1, SendQueue: 2, LastReceived: 3 * time.Hour, LastSent: -1, Retransmits: 4, Owner: 1000}},
		{Num: 38, Kind: "socket", Name: "socket:[78]", Access: "r", Socket: &leak.Socket{Protocol: "unix stream", Local: "@a \"name\"", Inode: 78, PeerID: 79, LastSent: 0}},
		{Num: 39, Kind: "socket", Socket: &leak.Socket{LastReceived: -1, LastSent: -1}},
		{Num: 40},
	}})
	w.Listing(leak.Listing{At: 11 * time.Second, Proc: q})
	w.Ownerless(leak.Ownerless{At: 11 * time.Second, Proc: p, State: "TIME_WAIT", Local: "to 10.0.0.5:5432", N: 212})
	w.Usage(leak.Usage{At: 11 * time.Second, Proc: p, Name: leak.UsageDescriptors, Used: 1000, Max: 1024, Hard: 1 << 20, Limit: "RLIMIT_NOFILE"})
	w.Usage(leak.Usage{At: 11 * time.Second, Proc: q, Name: leak.UsageTCPMemory, Scope: "host", Used: 1, Max: 1 << 63, Limit: "net.ipv4.tcp_mem", Bytes: true})
	w.Failure(leak.Failure{At: 12 * time.Second, Proc: p, Call: "openat", Errno: "EMFILE", Stack: 1, N: 12})
	w.Input(leak.Input{At: 13 * time.Second, Proc: p, Size: 1213486160, Stack: 1, Num: 37, Source: "TCP 10.1.2.3:8080"})
	w.Input(leak.Input{At: 13 * time.Second, Proc: q})
}

// sayAgain says the events of descriptors that m has kept.
func sayAgain(w leak.Sink, m *memory) {
	for _, x := range m.Acquires {
		w.Acquire(x)
	}
	for _, x := range m.Releases {
		w.Release(x)
	}
	for _, x := range m.Listings {
		w.Listing(x)
	}
	for _, x := range m.Ownerlist {
		w.Ownerless(x)
	}
	for _, x := range m.Usages {
		w.Usage(x)
	}
	for _, x := range m.Failures {
		w.Failure(x)
	}
	for _, x := range m.Uses {
		w.Use(x)
	}
	for _, x := range m.Inputs {
		w.Input(x)
	}
}

// ofDescriptors is what sayAgain says. Weights are left out: NaN is unlike
// itself.
func ofDescriptors(m *memory) memory {
	kept := memory{Releases: m.Releases, Listings: m.Listings, Ownerlist: m.Ownerlist, Usages: m.Usages, Failures: m.Failures, Uses: m.Uses, Inputs: m.Inputs}
	for _, x := range m.Acquires {
		x.Weight = 0
		kept.Acquires = append(kept.Acquires, x)
	}
	return kept
}

// TestAListingOfManyParts holds that a listing that is larger than a part of
// the file is one, and that none is said of which a part is lost.
func TestAListingOfManyParts(t *testing.T) {
	want := leak.Listing{At: time.Second, Proc: header.Proc}
	for i := range 20_000 {
		want.Open = append(want.Open, leak.Descriptor{Num: i, Kind: "socket", Name: fmt.Sprintf("socket:[%d]", i*i), Inode: uint64(i * i),
			Socket: &leak.Socket{Protocol: "tcp", State: "ESTABLISHED", Peer: fmt.Sprintf("10.1.%d.%d:8080", i/256, i%256), LastSent: time.Duration(i), LastReceived: -1}})
	}
	say := func(w leak.EdgeSink) {
		w.Listing(want)
		w.Gauge(leak.Gauge{At: 2 * time.Second, Proc: header.Proc, Name: leak.GaugeFDs, Value: 20_000})
		w.Listing(leak.Listing{At: 3 * time.Second, Proc: header.Proc, Open: want.Open[:1]})
	}
	whole := write(t, Options{}, say)
	var got memory
	if _, err := Read(bytes.NewReader(whole), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Listings) != 2 || !cmp.Equal(want, got.Listings[0]) || !cmp.Equal(want.Open[:1], got.Listings[1].Open) {
		t.Errorf("%d listings, or others", len(got.Listings))
	}
	whole[len(whole)/2] ^= 0x10
	got = memory{}
	if _, err := Read(bytes.NewReader(whole), &got); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if len(got.Listings) != 1 || len(got.Listings[0].Open) != 1 || len(got.Gauges) != 1 {
		t.Errorf("%d listings and %d gauges of a damaged file", len(got.Listings), len(got.Gauges))
	}
}
