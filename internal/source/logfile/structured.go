package logfile

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// The names under which programs write the parts of a line, the commonest
// first: zap, logrus, zerolog, slog, bunyan, pino, logstash, docker's
// json-file, MongoDB.
var (
	timeKeys    = []string{"time", "ts", "timestamp", "@timestamp", "t", "date", "datetime", "asctime", "Timestamp", "eventTime"}
	messageKeys = []string{"msg", "message", "log", "event", "text", "short_message", "Message", "@message"}
	levelKeys   = []string{"level", "severity", "lvl", "levelname", "log.level", "@level", "s", "Level"}
	errorKeys   = []string{"error", "err", "exception"}
)

// structured gives the time and the text of a line in JSON or logfmt; either
// may be missing. ok is false for other lines.
func structured(line string, ref time.Time) (st stamp, hasTime bool, text string, ok bool) {
	var fields map[string]string
	switch {
	case strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}"):
		fields = jsonFields(line)
	case strings.IndexByte(line, '=') > 0:
		fields = logfmtFields(line)
	}
	if fields == nil {
		return stamp{}, false, line, false
	}
	st, hasTime = fieldTime(pick(fields, timeKeys), ref)
	message := strings.TrimSpace(pick(fields, messageKeys))
	if message == "" {
		return st, hasTime, line, hasTime
	}
	for _, key := range errorKeys {
		if e := fields[key]; e != "" {
			message += " " + key + "=" + e
			break
		}
	}
	return st, hasTime, strings.TrimSpace(pick(fields, levelKeys) + " " + message), true
}

// pick gives the first of the keys that has a value.
func pick(fields map[string]string, keys []string) string {
	for _, key := range keys {
		if v := fields[key]; v != "" {
			return v
		}
	}
	return ""
}

// jsonFields gives the strings and numbers of an object, nil when a text is
// none.
func jsonFields(line string) map[string]string {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &object) != nil {
		return nil
	}
	fields := make(map[string]string, len(object))
	for key, raw := range object {
		var text string
		var inner struct {
			Date json.RawMessage `json:"$date"` // MongoDB
		}
		switch {
		case len(raw) == 0:
		case raw[0] == '"':
			_ = json.Unmarshal(raw, &text) // valid, since the object is
			fields[key] = clean([]byte(strings.TrimRight(text, "\r\n")))
		case raw[0] == '-' || isDigit(raw[0]):
			fields[key] = string(raw)
		case raw[0] == '{' && json.Unmarshal(raw, &inner) == nil:
			fields[key] = strings.Trim(string(inner.Date), `"`)
		}
	}
	return fields
}

// logfmtFields gives the pairs of a line that is made of key=value alone, nil
// of any other.
func logfmtFields(line string) map[string]string {
	fields := map[string]string{}
	for line != "" {
		key, rest, is := strings.Cut(line, "=")
		if !is || key == "" || strings.ContainsAny(key, " \"'") {
			return nil
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil
			}
			value, _ = strconv.Unquote(quoted) // valid, since it is a quoted prefix
			rest = rest[len(quoted):]
		} else {
			value, _, _ = strings.Cut(rest, " ")
			rest = rest[len(value):]
		}
		if rest != "" && rest[0] != ' ' {
			return nil
		}
		fields[key] = clean([]byte(value))
		line = strings.TrimLeft(rest, " ")
	}
	return fields
}

// fieldTime reads the value of a time field: any of the forms, or a number of
// seconds, milli-, micro- or nanoseconds since 1970.
func fieldTime(value string, ref time.Time) (stamp, bool) {
	if value == "" {
		return stamp{}, false
	}
	for _, read := range forms {
		if st, n := read(value, ref); n == len(value) {
			return st, true
		}
	}
	number, err := strconv.ParseFloat(value, 64)
	if err != nil || number < 1e9 || number > 1e19 {
		return stamp{}, false
	}
	st := stamp{unit: time.Second, zoned: true}
	if number != math.Trunc(number) || number >= 4e9 {
		st.unit = time.Millisecond
	}
	for number >= 4e9 { // a year after 2096 is another unit
		number /= 1000
	}
	st.at = time.UnixMicro(int64(math.Round(number * 1e6)))
	return st, recent(st.at, ref)
}
