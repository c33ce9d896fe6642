package probe

import (
	"bytes"

	"stanch/internal/leak"
)

// inputs is what was said of requests and what was read before them.
type inputs struct {
	turns [wInputs]uint64
	said  map[inputKey]string
}

type inputKey struct {
	size  uint64
	stack leak.StackID
	num   int
}

// mostInputs bounds what is remembered of them.
const mostInputs = 4096

// sayInputs says the requests that came since the last look. A descriptor may
// be closed by now, or be another: its source is as good as the look is soon.
func (p *Probe) sayInputs(sink leak.Sink) error {
	if !p.o.Inputs || len(p.sites) == 0 {
		return nil
	}
	table, err := read(p.mem, p.data.inputs, wInputs*wInputSize)
	if err != nil {
		return err
	}
	var again []byte
	for i := range p.inputs.turns {
		b := table[i*wInputSize:][:wInputSize]
		turn := order.Uint64(b[wInputTurn:])
		if turn == p.inputs.turns[i] || turn&1 != 0 {
			continue
		}
		if again == nil {
			if again, err = read(p.mem, p.data.inputs, wInputs*wInputSize); err != nil {
				return err
			}
		}
		if !bytes.Equal(b, again[i*wInputSize:][:wInputSize]) {
			continue // being written
		}
		p.inputs.turns[i] = turn
		if err := p.sayInput(b, sink); err != nil {
			return err
		}
	}
	return nil
}

func (p *Probe) sayInput(b []byte, sink leak.Sink) error {
	stack, err := p.stackAt(p.mem, order.Uint32(b[wInputStack:]))
	if err != nil {
		return err
	}
	in := leak.Input{
		At: timeOf(order.Uint32(b[wInputTime:])), Proc: p.t.ID, Size: order.Uint64(b[wInputBytes:]),
		Stack: stack, Num: int(order.Uint32(b[wInputFd:])),
	}
	if p.o.Source != nil {
		in.Source = p.o.Source(in.Num)
	}
	key := inputKey{in.Size, in.Stack, in.Num}
	if source, ok := p.inputs.said[key]; ok && (source == in.Source || in.Source == "") {
		return nil
	}
	if p.inputs.said == nil || len(p.inputs.said) >= mostInputs {
		p.inputs.said = map[inputKey]string{}
	}
	p.inputs.said[key] = in.Source
	sink.Input(in)
	return nil
}
