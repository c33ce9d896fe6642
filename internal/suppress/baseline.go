package suppress

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"stanch/internal/leak"
)

// BaselineSchema is the version of the baseline document. Fields are only ever
// added.
const BaselineSchema = "stanch.baseline/v1"

// Baseline is what an earlier report found. What is in it is known: later
// reports count it and go on to what is new.
//
// A finding is known by its place alone. How much a known leak loses is said,
// beside how much it was, but does not make it new: in a process that goes on,
// each leak has lost more than before.
type Baseline struct {
	Schema   string  `json:"schema"`
	Findings []Entry `json:"findings"`
}

// Entry is a finding of a baseline.
type Entry struct {
	Rule    string `json:"rule"`
	Key     string `json:"key"`
	NameKey string `json:"name_key"`
	Count   uint64 `json:"count"` // of a memory finding, what was lost before the attach too
	Bytes   uint64 `json:"bytes"`
	Title   string `json:"title"`
}

// NewBaseline takes all findings of a report. Those of one place in several
// processes are one entry. The same findings give the same document.
func NewBaseline(r *leak.Report) *Baseline {
	b := &Baseline{Schema: BaselineSchema, Findings: []Entry{}}
	at := map[string]int{}
	for i := range r.Findings {
		f := &r.Findings[i]
		count, bytes := memory(f)
		if j, ok := at[f.Key]; ok {
			b.Findings[j].Count += count
			b.Findings[j].Bytes += bytes
			continue
		}
		at[f.Key] = len(b.Findings)
		b.Findings = append(b.Findings, Entry{f.Rule, f.Key, f.NameKey, count, bytes, f.Title})
	}
	slices.SortFunc(b.Findings, func(x, y Entry) int { return cmp.Compare(x.Key, y.Key) })
	return b
}

// Write writes the document.
func (b *Baseline) Write(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(b)
}

// ReadBaseline reads what Write wrote, also by a later version that knows more
// fields.
func ReadBaseline(r io.Reader) (*Baseline, error) {
	var b Baseline
	d := json.NewDecoder(r)
	if err := d.Decode(&b); err != nil {
		return nil, fmt.Errorf("not a baseline, which --write-baseline makes: %w", err)
	}
	switch {
	case b.Schema == leak.Schema:
		return nil, errors.New("this is a report; make a baseline of it with: stanch report FILE --write-baseline BASELINE")
	case b.Schema != BaselineSchema:
		return nil, fmt.Errorf("not a baseline, which --write-baseline makes: its schema is %q, not %s", b.Schema, BaselineSchema)
	}
	for i := range b.Findings {
		if b.Findings[i].Key == "" {
			return nil, fmt.Errorf("finding %d of the baseline has no key", i+1)
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the end of the baseline; two documents in one file?")
	}
	return &b, nil
}

// Apply takes the known findings out of the report, and says in it how many
// there were and what of the baseline, read from file, was not seen.
//
// A finding is known when its key is in the baseline. After a rebuild, when keys
// have changed, its functions decide (the name key): each entry whose key was
// not seen then stands for one place, so that a second leak in the same
// functions is still new.
func (b *Baseline) Apply(r *leak.Report, file string) {
	entries := b.pair(r.Findings)
	known := leak.Known{Baseline: file, Gone: []string{}}
	left := []leak.Finding{}
	seen := make([]bool, len(b.Findings))
	for i := range r.Findings {
		f := &r.Findings[i]
		j, ok := entries[f.Key]
		if !ok {
			left = append(left, *f)
			continue
		}
		count, bytes := memory(f)
		known.Findings++
		known.Count += count
		known.Bytes += bytes
		if !seen[j] {
			known.WasCount += b.Findings[j].Count
			known.WasBytes += b.Findings[j].Bytes
		}
		seen[j] = true
	}
	for j := range b.Findings {
		if !seen[j] {
			known.Gone = append(known.Gone, cmp.Or(b.Findings[j].Title, b.Findings[j].Key))
		}
	}
	r.Findings = left
	r.Known = append(r.Known, known)

	note := noter(r)
	was := ""
	if known.WasCount+known.WasBytes > 0 {
		was = fmt.Sprintf("; %s, %s in the baseline", plural(known.WasCount, "block"), leak.FormatBytes(float64(known.WasBytes)))
	}
	note("%s known from %s and not counted%s", amount(known.Findings, known.Count, known.Bytes), file, was)
	var gone []string
	for _, title := range known.Gone {
		gone = append(gone, fmt.Sprintf("in %s and not seen now: %s", file, title))
	}
	list(note, gone, "that were not seen now")
}

// pair finds, for each key of the findings, its entry.
func (b *Baseline) pair(findings []leak.Finding) map[string]int {
	entries := map[string]int{} // by the keys of the findings
	taken := make([]bool, len(b.Findings))
	byKey := map[string]int{}
	for j := range b.Findings {
		byKey[b.Findings[j].Key] = j
	}
	for i := range findings {
		if j, ok := byKey[findings[i].Key]; ok {
			entries[findings[i].Key] = j
			taken[j] = true
		}
	}
	// The same title first: the same functions may lose blocks of several sizes.
	for _, title := range []bool{true, false} {
		for i := range findings {
			f := &findings[i]
			if _, ok := entries[f.Key]; ok || f.NameKey == "" {
				continue
			}
			for j := range b.Findings {
				if e := &b.Findings[j]; !taken[j] && e.NameKey == f.NameKey && (!title || e.Title == f.Title) {
					entries[f.Key] = j
					taken[j] = true
					break
				}
			}
		}
	}
	return entries
}
