package logfile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// journalctl is started again when it ends, after a pause that doubles.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// atOnce is how soon a journalctl ends that cannot work. One that ran for
// longer was ended by something else.
const atOnce = time.Second

// maxEntry is how long an entry's JSON may be; a longer one is left out. The
// journal's own limit for a field is 768 MB (systemd, journald's
// DATA_SIZE_MAX), of which nothing would be kept.
const maxEntry = 1 << 20

// followJournal says the lines of a unit. The journal's files are read by
// journalctl, which knows all their versions.
func (s *Source) followJournal(ctx context.Context, say func(Line)) error {
	path, err := exec.LookPath("journalctl")
	if err != nil {
		return errors.New("the journal is read by journalctl, which is not in PATH")
	}
	j := &journal{source: s, say: say, read: newReader(), since: time.Now()}
	s.atPlace()
	works := false
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		before, began := j.entries, time.Now()
		err := j.run(ctx, path)
		works = works || j.entries > 0 || time.Since(began) > atOnce
		why := ""
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !works:
			return err // it never worked, so it will not
		case err != nil:
			why = " (" + strings.TrimPrefix(err.Error(), "journalctl: ") + ")"
		}
		if j.entries > before {
			pause = firstPause
		}
		s.note("journalctl ended%s and is started again", why)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// journal is what is known over the runs of journalctl.
type journal struct {
	source  *Source
	say     func(Line)
	read    *reader
	since   time.Time
	cursor  string // of the last entry
	entries int
}

// arguments are those of one run: after the last entry, where there was one,
// since the start otherwise.
func (j *journal) arguments() []string {
	// --all: without it long fields are null; --no-tail: without it only the
	// last ten of the past ones are said.
	args := []string{"--output=json", "--follow", "--all", "--no-tail", "--quiet", "--unit=" + j.source.Unit}
	switch {
	case j.cursor != "":
		return append(args, "--after-cursor="+j.cursor)
	case j.source.FromStart:
		return args
	}
	return append(args, "--since=@"+strconv.FormatInt(min(j.since.Unix(), time.Now().Unix()), 10))
}

// run runs journalctl once, to its end.
func (j *journal) run(ctx context.Context, path string) error {
	// The child's death signal is bound to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path, j.arguments()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	var complaint strings.Builder
	cmd.Stderr = &limited{to: &complaint, room: 500}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	j.entriesOf(out)
	err = cmd.Wait()
	if first, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n"); err != nil && first != "" {
		return fmt.Errorf("journalctl: %s", first)
	}
	if err != nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return nil
}

// entriesOf reads entries, one a line, until their end.
func (j *journal) entriesOf(r io.Reader) {
	in := bufio.NewReaderSize(r, 64<<10)
	var entry []byte
	for {
		piece, err := in.ReadSlice('\n')
		if len(entry)+len(piece) <= maxEntry {
			entry = append(entry, piece...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		j.entry(entry)
		entry = entry[:0]
		if err != nil {
			return
		}
	}
}

// entry says the lines of one entry. The form is described in systemd's
// "Journal JSON Format" (https://systemd.io/JOURNAL_EXPORT_FORMATS): numbers
// are strings; a field that is not UTF-8 is an array of bytes, one that occurs
// several times an array of values, one that is too long null.
func (j *journal) entry(text []byte) {
	var e struct {
		Realtime string          `json:"__REALTIME_TIMESTAMP"` // microseconds
		Cursor   string          `json:"__CURSOR"`
		Message  json.RawMessage `json:"MESSAGE"`
	}
	if len(text) == 0 || json.Unmarshal(text, &e) != nil {
		return
	}
	micros, err := strconv.ParseInt(e.Realtime, 10, 64)
	if err != nil {
		return
	}
	j.entries++
	j.cursor = e.Cursor
	at := micros / 1000
	// --since knows whole seconds only. While the clock is before the start it
	// was set back since, and what is older than the start is new.
	if since := j.since.UnixMilli(); !j.source.FromStart && at < since && now() >= since {
		return
	}
	for _, message := range values(e.Message) {
		for line := range strings.Lines(message) {
			// The program's own time, if it writes one, goes; the journal's is
			// that of the write.
			_, text, _ := j.read.stamp(clean([]byte(strings.TrimRight(line, "\r\n"))), at)
			if text != "" {
				j.say(Line{At: at, HasTime: true, Text: cut(text)})
			}
		}
	}
}

// values are those of a field.
func values(field json.RawMessage) []string {
	var text string
	if json.Unmarshal(field, &text) == nil && text != "" {
		return []string{text}
	}
	var numbers []uint8AsNumber
	if json.Unmarshal(field, &numbers) == nil && len(numbers) > 0 {
		b := make([]byte, len(numbers))
		for i, n := range numbers {
			b[i] = byte(n)
		}
		return []string{string(b)}
	}
	var several []json.RawMessage
	if json.Unmarshal(field, &several) != nil {
		return nil
	}
	var all []string
	for _, one := range several {
		all = append(all, values(one)...)
	}
	return all
}

// uint8AsNumber is a byte that JSON has as a number; an array of the type byte
// would be base64.
type uint8AsNumber uint8

// limited keeps the begin of what is written.
type limited struct {
	to   *strings.Builder
	room int
}

func (l *limited) Write(p []byte) (int, error) {
	l.to.Write(p[:min(len(p), l.room-l.to.Len())])
	return len(p), nil
}
