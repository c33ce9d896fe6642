package tsdb

import (
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"stanch/internal/series"
)

// The labels of a series, beside its metric's own.
const (
	nameLabel    = "__name__"
	serviceLabel = "service"
	workerLabel  = "worker"
	partLabel    = "part" // the own label of a metric that package series does not describe
)

// partLabels says how each metric's own label is called.
var partLabels = func() map[series.Metric]string {
	names := make(map[series.Metric]string, len(series.Metrics))
	for _, info := range series.Metrics {
		if info.Part != "" {
			names[info.Metric] = info.Part
		}
	}
	return names
}()

// partLabel gives the name of a metric's own label.
func partOf(m series.Metric) string {
	if name, ok := partLabels[m]; ok {
		return name
	}
	return partLabel
}

// labelsOf gives the labels of a key; what is empty is left out, as Prometheus
// does itself. keyOf reverses it.
func labelsOf(k series.Key) labels.Labels {
	var b labels.ScratchBuilder
	b.Add(nameLabel, escape(string(k.Metric)))
	for _, l := range [...][2]string{{serviceLabel, k.Service}, {workerLabel, k.Worker}, {partOf(k.Metric), k.Part}} {
		if l[1] != "" {
			b.Add(l[0], escape(l[1]))
		}
	}
	b.Sort()
	return b.Labels()
}

// keyOf gives the key that has these labels. Labels that are not ours are
// ignored. The key's strings are copies: those of a block go when it does.
func keyOf(l labels.Labels) series.Key {
	m := series.Metric(strings.Clone(unescape(l.Get(nameLabel))))
	return series.Key{
		Metric:  m,
		Service: strings.Clone(unescape(l.Get(serviceLabel))),
		Worker:  strings.Clone(unescape(l.Get(workerLabel))),
		Part:    strings.Clone(unescape(l.Get(partOf(m)))),
	}
}

// Label values must be UTF-8: PromQL, JSON and remote write know no other. The
// names of programs and the lines of logs may be anything. A byte 0x80 to 0xFF
// that is not part of UTF-8 becomes the character U+EF00 plus the byte, as in
// OPTU-8 of MirBSD (https://www.evolvis.org/~tg/MirBSD optu8to16(3)): no
// text that people write has those. Where it has, its bytes are written so too.
const escaped = 0xEF00

func isEscape(r rune) bool { return r >= escaped+0x80 && r <= escaped+0xFF }

// escape makes any string valid UTF-8; valid ones stay as they are.
func escape(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, isEscape) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || isEscape(r) {
			for _, c := range []byte(s[i : i+n]) {
				b.WriteRune(escaped + rune(c))
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// unescape reverses escape.
func unescape(s string) string {
	if strings.IndexFunc(s, isEscape) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isEscape(r) {
			b.WriteByte(byte(r - escaped))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
