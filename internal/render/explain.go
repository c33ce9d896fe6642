package render

import (
	"fmt"
	"io"

	"stanch/internal/leak"
)

// Explain writes what a number may say, most likely first.
func Explain(w io.Writer, n uint64, meanings []leak.Meaning) error {
	b := newPage()
	fmt.Fprintf(b, "%d = %#x", n, n)
	if n >= 1000 {
		fmt.Fprintf(b, " = %s", leak.FormatBytes(float64(n)))
	}
	b.WriteByte('\n')
	for _, m := range meanings {
		text := Clean(m.Text)
		if m.How != "" {
			text += ": " + Clean(m.How)
		}
		wrap(b, "  ", text)
	}
	if len(meanings) == 0 {
		b.WriteString("  no text, time, address or pattern that stanch knows\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
