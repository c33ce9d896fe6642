// Package render shows a report. A format is a pure function from a report to
// bytes: it decides nothing, and the same report gives the same bytes.
package render

import (
	"encoding/json"
	"fmt"
	"io"

	"stanch/internal/leak"
)

// Format is one way to show a report.
type Format struct {
	Name  string // for --format
	Ext   string // the extension of files that it writes, with the dot
	Type  string // media type
	Write func(io.Writer, *leak.Report) error
}

// Formats are all formats, the default first.
var Formats = []Format{
	{"text", ".txt", "text/plain; charset=utf-8", Text},
	{"json", ".json", "application/json", JSON},
}

// JSON writes the report as stanch.report/v1. It normalizes the report first,
// so that no slice is null.
func JSON(w io.Writer, r *leak.Report) error {
	r.Normalize()
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// ReadJSON reads a report that JSON wrote, also one of a later version that
// knows more fields.
func ReadJSON(r io.Reader) (*leak.Report, error) {
	var out leak.Report
	if err := json.NewDecoder(r).Decode(&out); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if out.Schema != leak.Schema {
		return nil, fmt.Errorf("read report: schema %q is not %s", out.Schema, leak.Schema)
	}
	out.Normalize()
	return &out, nil
}
