package record

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"stanch/internal/leak"
)

// The events of the text form that have many parts.

func (t *textReader) mapping() {
	m := leak.Mapping{ID: leak.MapID(t.uint(t.word(), 32))}
	start, end, _ := strings.Cut(t.word(), "-")
	m.Start, m.End = leak.Addr(t.uint(start, 64)), leak.Addr(t.uint(end, 64))
	rights := t.word()
	m.Read, m.Write = strings.Contains(rights, "r"), strings.Contains(rights, "w")
	m.Exec, m.Shared = strings.Contains(rights, "x"), strings.Contains(rights, "s")
	t.pairs(func(k, v string) bool {
		switch k {
		case "offset":
			return t.into(&m.Offset, v)
		case "dev":
			return t.into(&m.Dev, v)
		case "inode":
			return t.into(&m.Inode, v)
		case "path":
			m.Path = t.unquote(v)
		case "buildid":
			m.BuildID = v
		case "deleted":
			m.Deleted = true
		default:
			return false
		}
		return true
	})
	if t.err == nil {
		t.sink.Map(m)
	}
}

func (t *textReader) stack() {
	id := leak.StackID(t.uint(t.word(), 32))
	var frames []leak.Frame
	for t.rest != "" && t.err == nil {
		frames = append(frames, t.frame(t.word()))
	}
	if t.err == nil {
		t.sink.Stack(id, frames)
	}
}

func (t *textReader) acquire() {
	a := leak.Acquire{At: t.time(), Weight: 1}
	kind, ids := t.kind(), t.ids()
	t.pairs(func(k, v string) bool {
		switch k {
		case "size":
			return t.into(&a.Size, v)
		case "stack":
			a.Stack = leak.StackID(t.uint(v, 32))
		case "call":
			a.Call = t.unquote(v)
		case "weight":
			a.Weight = t.float(v)
		case "exact":
			a.Exact = true
		default:
			return false
		}
		return true
	})
	for id := range ids {
		a.Ref = leak.Ref{Proc: t.proc, Kind: kind, ID: id}
		t.sink.Acquire(a)
	}
}

func (t *textReader) release() {
	r := leak.Release{At: t.time()}
	kind, ids := t.kind(), t.ids()
	t.pairs(func(k, v string) bool {
		if k == "call" {
			r.Call = t.unquote(v)
			return true
		}
		return t.stackInto(&r.Stack, k, v)
	})
	for id := range ids {
		r.Ref = leak.Ref{Proc: t.proc, Kind: kind, ID: id}
		t.sink.Release(r)
	}
}

func (t *textReader) invalid() {
	x := leak.Invalid{At: t.time()}
	kind, ids := t.kind(), t.ids()
	stack := func(w string) leak.StackID { return leak.StackID(t.uint(w, 32)) }
	t.pairs(func(k, v string) bool {
		switch k {
		case "size":
			return t.into(&x.Size, v)
		case "stack":
			x.Stack = stack(v)
		case "double":
			x.Double = true
		case "acquired":
			x.Acquired = stack(v)
		case "released":
			x.Released = stack(v)
		default:
			return false
		}
		return true
	})
	for id := range ids {
		x.Ref = leak.Ref{Proc: t.proc, Kind: kind, ID: id}
		t.sink.Invalid(x)
	}
}

func (t *textReader) tally() {
	y := leak.Tally{At: t.time(), Proc: t.proc, Kind: t.kind()}
	t.pairs(func(k, v string) bool {
		switch k {
		case "stack":
			y.Stack = leak.StackID(t.uint(v, 32))
		case "acquired":
			y.Acquired = t.count(v)
		case "released":
			y.Released = t.count(v)
		case "exact":
			y.Exact = true
		default:
			return false
		}
		return true
	})
	if t.err == nil {
		t.sink.Tally(y)
	}
}

func (t *textReader) count(w string) leak.Count {
	n, bytes, _ := strings.Cut(w, "/")
	return leak.Count{N: t.float(n), Bytes: t.float(bytes)}
}

func (t *textReader) look() {
	k := leak.Look{N: int(t.uint(t.word(), 31)), At: t.time(), Proc: t.proc}
	t.pairs(func(key, v string) bool {
		switch key {
		case "allocator":
			k.Allocator = t.unquote(v)
		case "walked":
			k.Walked = true
		case "single":
			k.Single = true
		case "final":
			k.Final = true
		case "pendingio":
			k.PendingIO = true
		case "blocks":
			return t.into(&k.Blocks, v)
		case "bytes":
			return t.into(&k.Bytes, v)
		case "free":
			return t.into(&k.Free, v)
		case "lost":
			return t.into(&k.LostBlocks, v)
		case "lostbytes":
			return t.into(&k.LostBytes, v)
		case "read":
			return t.into(&k.ReadBytes, v)
		case "pause":
			d, err := time.ParseDuration(v)
			t.fail(err)
			k.Pause = d
		case "uncertain":
			k.Uncertainty = append(k.Uncertainty, t.unquote(v))
		default:
			return false
		}
		return true
	})
	if t.err == nil {
		t.sink.Look(k)
	}
}

func (t *textReader) verdicts(state string, say func([]leak.Verdict)) {
	v := leak.Verdict{}
	for i, w := range stateWords {
		if w == state && w != "" {
			v.State = leak.State(i)
		}
	}
	if v.State == 0 {
		t.fail(fmt.Errorf("there is no state %q", state))
	}
	ids := t.ids()
	v.Size = t.uint(t.word(), 64)
	t.pairs(func(k, value string) bool {
		switch k {
		case "type":
			v.Type = t.frame(value)
		case "magic":
			v.Magic = uint8(t.uint(value, 8))
		case "owner":
			return t.into(&v.Owner, value)
		case "head":
			v.Head = []byte(t.unquote(value))
		default:
			s, ok := t.numbered(k, "shape", shapeWords)
			v.Shape = leak.Shape(s)
			return ok
		}
		return true
	})
	var batch []leak.Verdict
	for id := range ids {
		v.Ref = leak.Ref{Proc: t.proc, Kind: leak.KindMemory, ID: id}
		batch = append(batch, v)
	}
	if t.err == nil && len(batch) > 0 {
		say(batch)
	}
}

func (t *textReader) held() {
	h := leak.Held{Proc: t.proc, Root: leak.Root{What: t.text()}}
	t.pairs(func(k, v string) bool {
		switch k {
		case "at":
			h.Root.Frame = t.frame(v)
		case "tid":
			h.Root.TID = int(t.uint(v, 31))
		case "size":
			return t.into(&h.Size, v)
		case "type":
			h.Type = t.frame(v)
		case "n":
			return t.into(&h.N, v)
		case "bytes":
			return t.into(&h.Bytes, v)
		default:
			s, ok := t.numbered(k, "shape", shapeWords)
			h.Shape = leak.Shape(s)
			return ok
		}
		return true
	})
	if t.err == nil {
		t.sink.Held([]leak.Held{h})
	}
}

func (t *textReader) recorded() {
	var r leak.Recorded
	text := t.text()
	if t.err == nil {
		t.fail(json.Unmarshal([]byte(text), &r))
	}
	if t.err == nil {
		t.sink.more.Recorded(r)
	}
}

func (t *textReader) name() {
	f := t.frame(t.word())
	var names []leak.StackFrame
	t.pairs(func(k, v string) bool {
		if k == "function" {
			names = append(names, leak.StackFrame{Function: t.unquote(v)})
			return true
		}
		if len(names) == 0 {
			return false
		}
		n := &names[len(names)-1]
		switch k {
		case "file":
			n.File = t.unquote(v)
		case "line":
			n.Line = int(t.uint(v, 31))
		case "module":
			n.Module = t.unquote(v)
		case "buildid":
			n.BuildID = v
		case "offset":
			return t.into(&n.Offset, v)
		case "inlined":
			n.Inlined = true
		default:
			return false
		}
		return true
	})
	if t.err == nil {
		t.sink.more.Name(f, names)
	}
}
