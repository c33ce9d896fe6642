package detect

import (
	"fmt"

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
		p.Report(f)
	}
}
