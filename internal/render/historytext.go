package render

import (
	"fmt"
	"path"
	"strings"

	"stanch/internal/leak"
)

const (
	maxRows    = 25 // trends that grow, in the text; JSON has all
	maxWaiting = 10 // services that are not decided
	maxMarks   = 20 // of one service
	maxService = 32 // columns of a service's name in a table
	maxLimit   = 20 // and of a limit's
)

// history writes what is known of services: of one, all of it; of several, who
// runs out first.
func history(b *page, services []leak.ReportService) {
	if len(services) == 1 {
		service(b, &services[0])
		return
	}
	o := OverviewOf(services)
	wrap(b, "", o.Head)
	growing(b, o.Growing)
	risingNow(b, o.Rising)
	waiting(b, o.Waiting)
	if len(o.Rest) > 0 {
		apart(b)
	}
	for _, s := range o.Rest {
		wrap(b, "", s)
	}
}

// roomForSince is how wide text must be for the column SINCE: without it, names
// keep some room.
const roomForSince = 90

func growing(b *page, rows []Row) {
	heads := []string{"SERVICE", "PID", "WHAT", "NOW", "GROWS", "LIMIT", "IN", "VERDICT", "SINCE"}
	ranking(b, "", heads, rows, func(r Row) []string {
		return []string{r.Service, r.PID, r.What, r.Now, r.Grows, r.Limit, r.In, r.Verdict, r.Since}
	})
}

// risingNow writes what rises and is not decided, with what it would come to.
func risingNow(b *page, rows []Row) {
	const title = "rising, but not for long enough to say that it goes on:\n"
	ranking(b, title, []string{"SERVICE", "PID", "WHAT", "NOW", "RISES", "LIMIT", "IN", "NEEDS"}, rows, func(r Row) []string {
		needs := r.Needs
		if needs != "" {
			needs += " more"
		}
		return []string{r.Service, r.PID, r.What, r.Now, r.Grows, r.Limit, r.In, needs}
	})
}

// ranking writes rows under a title and the heads of their columns; nothing
// when there are none.
func ranking(b *page, title string, heads []string, rows []Row, cells func(Row) []string) {
	if len(rows) == 0 {
		return
	}
	apart(b)
	b.WriteString(title)
	lines := [][]string{heads}
	for _, r := range rows[:min(len(rows), maxRows)] {
		lines = append(lines, cells(r))
	}
	if last := len(heads) - 1; heads[last] == "SINCE" && b.width < roomForSince {
		for i := range lines {
			lines[i] = lines[i][:last]
		}
	}
	grid(b, lines)
	if more := len(rows) - maxRows; more > 0 {
		fmt.Fprintf(b, "and %s more: --format json has them all\n", leak.FormatCount(uint64(more)))
	}
}

func waiting(b *page, rows []Row) {
	if len(rows) == 0 {
		return
	}
	apart(b)
	b.WriteString("not decided yet:\n")
	var cells [][]string
	for _, r := range rows[:min(len(rows), maxWaiting)] {
		needs := ""
		if r.Needs != "" {
			needs = "needs " + r.Needs + " more"
		}
		cells = append(cells, []string{"  " + r.Short, r.PID, r.What, needs})
	}
	grid(b, cells)
	if more := len(rows) - maxWaiting; more > 0 {
		fmt.Fprintf(b, "  and %s more services\n", leak.FormatCount(uint64(more)))
	}
}

// grid writes rows of cells, columns two spaces apart. Where that is wider
// than a line, names become shorter: the first column and that of the limit.
func grid(b *page, rows [][]string) {
	const gap, serviceAt, limitAt = 2, 0, 5
	most := map[int]int{serviceAt: maxService, limitAt: maxLimit}
	var widths []int
	measure := func() (all int) {
		widths = make([]int, len(rows[0]))
		for _, row := range rows {
			for i, cell := range row {
				if n := most[i]; n > 0 {
					cell = short(cell, n)
				}
				widths[i] = max(widths[i], columnsOf(cell))
			}
		}
		for _, w := range widths {
			all += w + gap
		}
		return all - gap
	}
	const least = 10
	for measure() > b.width && (most[serviceAt] > least || most[limitAt] > least) {
		if most[limitAt] > least && most[limitAt]*3 > most[serviceAt]*2 {
			most[limitAt]--
		} else {
			most[serviceAt]--
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if n := most[i]; n > 0 {
				cell = short(cell, n)
			}
			fmt.Fprintf(&line, "%s%s", cell, strings.Repeat(" ", widths[i]-columnsOf(cell)+gap))
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
}

// short cuts a text to n columns, the last three of them dots. What is known
// without being said goes first: the suffix of a unit, the prefix of a limit,
// the directories in a command line.
func short(s string, n int) string {
	if columnsOf(s) > n {
		s = strings.TrimPrefix(strings.TrimSuffix(s, ".service"), "RLIMIT_")
	}
	if columnsOf(s) > n {
		s = withoutDirectories(s)
	}
	if columnsOf(s) <= n {
		return s
	}
	return firstColumns(s, n-3) + "..."
}

// withoutDirectories leaves of each path in a command line its last name.
func withoutDirectories(s string) string {
	words := strings.Split(s, " ")
	for i, w := range words {
		if strings.HasPrefix(w, "/") && len(w) > 1 {
			words[i] = path.Base(w)
		}
	}
	return strings.Join(words, " ")
}

// service writes all that is known of one.
func service(b *page, s *leak.ReportService) {
	wrap(b, "", HeadOf(s))
	ok := false
	for i, p := range ParagraphsOf(s) {
		// What is well stands line below line.
		if i > 0 && (!ok || p.Word != "OK") {
			apart(b)
		}
		ok = p.Word == "OK" && len(p.Details) == 0
		wrap(b, p.Word+"  ", p.Head)
		for _, d := range p.Details {
			wrap(b, fmt.Sprintf("  %-*s ", maxLabel, d.Label), d.Text)
		}
	}
	marks(b, s)
}

// marks lists what happened, the last of it.
func marks(b *page, s *leak.ReportService) {
	if len(s.Marks) == 0 {
		return
	}
	apart(b)
	if len(s.Marks) > maxMarks {
		fmt.Fprintf(b, "what happened, the last %d of %s:\n", maxMarks, leak.FormatCount(uint64(len(s.Marks))))
	} else {
		b.WriteString("what happened:\n")
	}
	for i := max(0, len(s.Marks)-maxMarks); i < len(s.Marks); i++ {
		m := &s.Marks[i]
		wrap(b, fmt.Sprintf("  %s  %-8s  ", m.At.In(s.To.Location()).Format("2 Jan 15:04:05"), Clean(m.Kind)), Clean(m.Text))
	}
}
