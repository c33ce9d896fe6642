package record

import (
	"fmt"
	"strconv"
	"time"

	"stanch/internal/leak"
)

// Descriptors, sockets and limits in the text form. A listing is one line and
// then one for each descriptor.

// attr writes key=text, quoted where it must be, and nothing for "".
func (t *textWriter) attr(key, s string) *textWriter {
	if s == "" {
		return t
	}
	t.word(key + "=")
	return t.joined(s)
}

// joined writes s directly behind what stands there.
func (t *textWriter) joined(s string) *textWriter {
	n := len(t.line)
	t.quoteIfNeeded(s)
	t.line = append(t.line[:n], t.line[n+1:]...)
	return t
}

func (t *textWriter) Listing(x leak.Listing) {
	t.of(x.Proc)
	t.word("listing").word(x.At.String()).end()
	for i := range x.Open {
		t.descriptor(&x.Open[i])
	}
}

func (t *textWriter) descriptor(d *leak.Descriptor) {
	t.word("open").uint(uint64(max(d.Num, 0))).quoteIfNeeded(d.Kind).attr("name", d.Name)
	t.flag("deleted", d.Deleted).flag("cloexec", d.CloseOnExec).attr("access", d.Access)
	t.count("size", d.Size).count("inode", d.Inode).count("dev", d.Dev)
	if s := d.Socket; s != nil {
		t.word("protocol=").joined(s.Protocol).attr("state", s.State).attr("local", s.Local).attr("peer", s.Peer)
		t.pair("socket", strconv.FormatUint(s.Inode, 10), strconv.FormatUint(d.Inode, 10)).count("peerid", s.PeerID)
		t.count("receive", s.ReceiveQueue).count("send", s.SendQueue)
		t.pair("received", s.LastReceived.String(), "-1ns").pair("sent", s.LastSent.String(), "-1ns")
		t.count("retransmits", uint64(s.Retransmits)).count("owner", uint64(s.Owner))
	}
	t.end()
}

func (t *textWriter) Ownerless(x leak.Ownerless) {
	t.of(x.Proc)
	t.word("ownerless").word(x.At.String()).quoteIfNeeded(x.State).quoteIfNeeded(x.Local).count("n", x.N).end()
}

func (t *textWriter) Usage(x leak.Usage) {
	t.of(x.Proc)
	t.word("usage").word(x.At.String()).quoteIfNeeded(string(x.Name)).attr("scope", x.Scope)
	t.count("used", x.Used).count("max", x.Max).count("hard", x.Hard).attr("limit", x.Limit).flag("bytes", x.Bytes).end()
}

func (t *textWriter) Failure(x leak.Failure) {
	t.of(x.Proc)
	t.word("failure").word(x.At.String()).quoteIfNeeded(x.Call).quoteIfNeeded(x.Errno).count("stack", uint64(x.Stack)).count("n", x.N).end()
}

func (t *textWriter) Use(x leak.Use) {
	t.of(x.Ref.Proc)
	t.word("use").word(x.At.String()).ref(x.Ref).quoteIfNeeded(x.Call).attr("error", x.Error).end()
}

func (t *textWriter) Input(x leak.Input) {
	t.of(x.Proc)
	t.word("input").word(x.At.String()).count("size", x.Size).count("stack", uint64(x.Stack)).count("fd", uint64(max(x.Num, 0))).attr("source", x.Source).end()
}

// descriptorEvent reads one of these events; false when word begins none.
func (t *textReader) descriptorEvent(word string) bool {
	switch word {
	case "listing":
		t.open = &leak.Listing{At: t.time(), Proc: t.proc}
	case "open":
		t.descriptors()
	case "ownerless":
		x := leak.Ownerless{At: t.time(), Proc: t.proc, State: t.text(), Local: t.text()}
		t.pairs(func(k, v string) bool { return k == "n" && t.into(&x.N, v) })
		t.say(func() { t.sink.Ownerless(x) })
	case "usage":
		t.usage()
	case "failure":
		x := leak.Failure{At: t.time(), Proc: t.proc, Call: t.text(), Errno: t.text()}
		t.pairs(func(k, v string) bool { return t.stackInto(&x.Stack, k, v) || k == "n" && t.into(&x.N, v) })
		t.say(func() { t.sink.Failure(x) })
	case "use":
		t.use()
	case "input":
		x := leak.Input{At: t.time(), Proc: t.proc}
		t.pairs(func(k, v string) bool {
			switch k {
			case "size":
				return t.into(&x.Size, v)
			case "fd":
				x.Num = int(t.uint(v, 31))
			case "source":
				x.Source = t.unquote(v)
			default:
				return t.stackInto(&x.Stack, k, v)
			}
			return true
		})
		t.say(func() { t.sink.Input(x) })
	default:
		return false
	}
	return true
}

func (t *textReader) say(f func()) {
	if t.err == nil {
		f()
	}
}

// stackInto takes the pair stack=N.
func (t *textReader) stackInto(id *leak.StackID, key, value string) bool {
	if key != "stack" {
		return false
	}
	*id = leak.StackID(t.uint(value, 32))
	return true
}

// closeListing says the listing whose lines have all been read.
func (t *textReader) closeListing() {
	if t.open != nil {
		t.sink.Listing(*t.open)
		t.open = nil
	}
}

// descriptors reads a descriptor, or several that are alike: their inodes are
// as far apart as their numbers.
func (t *textReader) descriptors() {
	if t.open == nil {
		t.fail(fmt.Errorf("there is no listing before it"))
		return
	}
	ids := t.ids()
	d := leak.Descriptor{Kind: t.text()}
	s := leak.Socket{LastReceived: -1, LastSent: -1}
	socket, inode := false, false
	t.pairs(func(k, v string) bool {
		switch k {
		case "name":
			d.Name = t.unquote(v)
		case "deleted":
			d.Deleted = true
		case "cloexec":
			d.CloseOnExec = true
		case "access":
			d.Access = v
			return v == "r" || v == "w" || v == "rw"
		case "size":
			return t.into(&d.Size, v)
		case "inode":
			return t.into(&d.Inode, v)
		case "dev":
			return t.into(&d.Dev, v)
		case "socket":
			inode = true
			return t.into(&s.Inode, v)
		default:
			socket = t.socket(&s, k, v)
			return socket
		}
		return true
	})
	first := -1
	for id := range ids {
		if len(t.open.Open) == descriptorsMax {
			t.fail(fmt.Errorf("more than %d descriptors", descriptorsMax))
			return
		}
		if id > 1<<31-1 {
			t.fail(fmt.Errorf("there is no descriptor %d", id))
			return
		}
		if first < 0 {
			first = int(id)
		}
		one := d
		one.Num = int(id)
		if d.Inode != 0 {
			one.Inode += uint64(one.Num - first)
		}
		if socket {
			its := s
			if !inode {
				its.Inode = one.Inode
			}
			one.Socket = &its
		}
		t.open.Open = append(t.open.Open, one)
	}
}

func (t *textReader) socket(s *leak.Socket, key, v string) bool {
	span := func(p *time.Duration) {
		d, err := time.ParseDuration(v)
		t.fail(err)
		*p = d
	}
	switch key {
	case "protocol":
		s.Protocol = t.unquote(v)
	case "state":
		s.State = t.unquote(v)
	case "local":
		s.Local = t.unquote(v)
	case "peer":
		s.Peer = t.unquote(v)
	case "peerid":
		return t.into(&s.PeerID, v)
	case "receive":
		return t.into(&s.ReceiveQueue, v)
	case "send":
		return t.into(&s.SendQueue, v)
	case "received":
		span(&s.LastReceived)
	case "sent":
		span(&s.LastSent)
	case "retransmits":
		s.Retransmits = uint32(t.uint(v, 32))
	case "owner":
		s.Owner = uint32(t.uint(v, 32))
	default:
		return false
	}
	return true
}

func (t *textReader) usage() {
	x := leak.Usage{At: t.time(), Proc: t.proc, Name: leak.UsageName(t.text())}
	t.pairs(func(k, v string) bool {
		switch k {
		case "scope":
			x.Scope = t.unquote(v)
		case "used":
			return t.into(&x.Used, v)
		case "max":
			return t.into(&x.Max, v)
		case "hard":
			return t.into(&x.Hard, v)
		case "limit":
			x.Limit = t.unquote(v)
		case "bytes":
			x.Bytes = true
		default:
			return false
		}
		return true
	})
	t.say(func() { t.sink.Usage(x) })
}

func (t *textReader) use() {
	x := leak.Use{At: t.time()}
	kind, ids := t.kind(), t.ids()
	x.Call = t.text()
	t.pairs(func(k, v string) bool {
		x.Error = t.unquote(v)
		return k == "error"
	})
	for id := range ids {
		x.Ref = leak.Ref{Proc: t.proc, Kind: kind, ID: id}
		t.sink.Use(x)
	}
}
