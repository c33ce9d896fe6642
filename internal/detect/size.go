package detect

import (
	"fmt"
	"slices"

	"stanch/internal/leak"
)

// SuspiciousSize reports requested sizes that are no sizes.
var SuspiciousSize = &Detector{
	Name: "size.suspicious",
	Doc:  "an allocation whose size is text, an error or a fill pattern read as a number",
	Run:  suspiciousSize,
}

func suspiciousSize(p *Pass) {
	for i := range p.Proc.Large {
		l := &p.Proc.Large[i]
		m, ok := Suspicious(l.Size)
		if !ok || p.shared.sizes[l.Size] {
			continue
		}
		f := leak.Finding{
			Severity: leak.SeverityRisk, Kind: leak.KindMemory.String(), SiteCertainty: leak.CertaintyNone,
			Key: fmt.Sprintf("%d", l.Size), NameKey: fmt.Sprintf("%d", l.Size), What: leak.FormatCount(l.Size) + "-byte block",
			Title: fmt.Sprintf("an allocation of %s bytes: the size is %s", leak.FormatCount(l.Size), m.Text),
			Count: l.N, Bytes: l.N * l.Size, BytesAre: "requested",
			Evidence: []string{"size: " + m.How},
			Advice:   []string{"check the length that is read from the input before memory is requested for it: a peer that speaks another protocol sends such lengths"},
		}
		if s := p.names.stack(l.Stack); s != nil {
			f.Stack, f.Site, f.SiteCertainty = s.stack, s.line, leak.CertaintyProved
			f.Key, f.NameKey = f.Key+":"+s.key, f.NameKey+":"+s.nameKey
		}
		f.Evidence = append(f.Evidence, inputEvidence(p, l.Size, l.Stack)...)
		p.Report(f)
	}
}

// inputEvidence says where the bytes came from that were read before a block
// of this size was asked for there.
func inputEvidence(p *Pass, size uint64, stack leak.StackID) []string {
	var out []string
	at := p.names.stack(stack)
	for i := range p.Proc.Inputs {
		x := &p.Proc.Inputs[i]
		if x.Size != size {
			continue
		}
		if s := p.names.stack(x.Stack); s != nil && at != nil && s.key != at.key {
			continue
		}
		source := x.Source
		if source == "" {
			source = "closed before anyone could see what it was"
		}
		e := fmt.Sprintf("input: the bytes came from fd %d, %s", x.Num, source)
		if !slices.Contains(out, e) && len(out) < maxInputs {
			out = append(out, e)
		}
	}
	return out
}

// maxInputs is how many senders of one size are named.
const maxInputs = 3
