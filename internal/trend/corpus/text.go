package corpus

import (
	"bytes"
	"fmt"
	"strconv"
)

// Text is a trace in the form of the recordings in testdata/series/real.
func Text(t *Trace) []byte {
	truth, column := "none", "anon_kb"
	if t.Leak {
		truth = "leak"
	}
	scale := 1024.0
	switch t.Metric {
	case "stanch_process_open_fds":
		column, scale = "fds", 1
	case "stanch_process_threads":
		column, scale = "threads", 1
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# program: generated\n# what: %s\n# truth: %s\n# interval_s: %g\n# resource: %s\ntime %s\n", t.Name, truth, t.Interval.Seconds(), column, column)
	for _, p := range t.Series[0].Points {
		b.WriteString(strconv.FormatFloat(float64(p.At)/1000, 'f', 3, 64))
		b.WriteByte(' ')
		b.WriteString(strconv.FormatFloat(p.Value/scale, 'f', -1, 64))
		b.WriteByte('\n')
	}
	return b.Bytes()
}
