package series

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// plainWorkersMax is how many rows without a PID may share the time on a line
// before them. More of them are one row after the other: a loop that was
// started after one call of date.
const plainWorkersMax = 32

// snapshots divides rows by the time they belong to: the rows of one are of
// different processes. They are the rows themselves, not copies.
func (p *plainReader) snapshots(rows []plainRow) (all [][]plainRow) {
	perBlock := map[int]int{}
	for _, r := range rows {
		perBlock[r.block]++
	}
	start := 0
	seen := map[int]bool{} // PIDs since start
	for i, r := range rows {
		if i > start {
			before := rows[i-1]
			together := r.block == before.block && r.clock == before.clock
			if r.pid == 0 {
				together = together && r.clock.kind == clockNone && r.block > 0 && len(p.blocks) > 1 && r.header == before.header && perBlock[r.block] <= plainWorkersMax
			} else {
				together = together && !seen[r.pid]
			}
			if !together {
				all = append(all, rows[start:i])
				start = i
				clear(seen)
			}
		}
		if r.pid != 0 {
			seen[r.pid] = true
		}
	}
	return append(all, rows[start:])
}

// date gives each row its time, and says what was assumed.
func (p *plainReader) date(snapshots [][]plainRow) (note string) {
	clocks, counted, said := p.clocks(snapshots)
	p.completeDates(clocks)

	at := make([]int64, len(clocks))
	shift := false // times are since a start that is not known
	for i, c := range clocks {
		switch c.kind {
		case clockDay:
			at[i] = c.unix(p.location)
		default:
			at[i] = c.ms
			shift = shift || c.kind == clockSince
		}
	}
	var notes []string
	switch {
	case counted > 0 && !said:
		notes = append(notes, fmt.Sprintf("the file has no times: its rows are taken to be %v apart", p.options.Interval))
	case counted > 0:
		notes = append(notes, fmt.Sprintf("%s no time: taken to be %v after the row before", count(counted, "row has", "rows have"), p.options.Interval))
	}
	if shift {
		notes = append(notes, p.shift(clocks, at))
	}
	back := 0
	for i := range snapshots {
		if i > 0 && at[i] < at[i-1] {
			back++
		}
		for j := range snapshots[i] {
			snapshots[i][j].at = at[i]
		}
	}
	if back > 0 {
		notes = append(notes, fmt.Sprintf("time goes back %s; rows were put in its order", count(back, "time", "times")))
	}
	return strings.Join(slices.DeleteFunc(notes, func(s string) bool { return s == "" }), "; ")
}

// clocks are the times of the snapshots, some of them incomplete: counted is
// how many were not said, said whether any was.
func (p *plainReader) clocks(snapshots [][]plainRow) (clocks []plainClock, counted int, said bool) {
	clocks = make([]plainClock, len(snapshots))
	now := plainClock{kind: clockSince}
	block := 0
	for i, rows := range snapshots {
		c := rows[0].clock
		if c.kind == clockNone && rows[0].block > block {
			block = rows[0].block
			c = p.blocks[block-1]
		}
		switch {
		case c.kind != clockNone:
			now, said = c, true
		case i > 0:
			now.ms += p.options.Interval.Milliseconds()
			counted++
		default:
			counted++
		}
		clocks[i] = now
	}
	return clocks, counted, said
}

// completeDates adds the days and years that times do not say: a day more
// where the time of day goes back by half a day, a year more where the month
// does. The last of them is the latest that is not after the file was written.
func (p *plainReader) completeDates(clocks []plainClock) {
	days, years := 0, 0
	var before *plainClock
	var dayOf, yearOf []int // of each clock, how many it is after the first
	for i := range clocks {
		c := &clocks[i]
		if before != nil && c.kind == clockDay {
			if c.month == 0 && before.month == 0 && c.ms < before.ms-12*3_600_000 {
				days++
			}
			if c.month != 0 && c.year == 0 && c.month < before.month-6 {
				years++
			}
		}
		if c.kind == clockDay {
			before = &plainClock{month: c.month, ms: c.ms}
		}
		dayOf, yearOf = append(dayOf, days), append(yearOf, years)
	}
	last := time.UnixMilli(0).UTC()
	if !p.options.Written.IsZero() {
		last = p.options.Written.In(p.location)
	}
	for i := range clocks {
		c := &clocks[i]
		if c.kind != clockDay || c.year != 0 {
			continue
		}
		if c.month != 0 {
			c.year = p.lastYear(clocks[len(clocks)-1], last) - (years - yearOf[i])
			continue
		}
		first := p.base
		if first.year == 0 {
			first = plainClock{year: last.Year(), month: int(last.Month()), day: last.Day() - days}
			// A minute is what the clock of a loop may be ahead.
			if end := clocks[len(clocks)-1]; !p.options.Written.IsZero() && timeOfDay(last)+60_000 < end.ms {
				first.day--
			}
		}
		c.year, c.month, c.day = first.year, first.month, first.day+dayOf[i]
	}
}

// lastYear is the year of the last time when only its month and day are said.
func (p *plainReader) lastYear(c plainClock, written time.Time) int {
	if c.year = written.Year(); p.options.Written.IsZero() || c.month == 0 {
		return c.year
	}
	if c.unix(p.location) > written.Add(24*time.Hour).UnixMilli() {
		c.year--
	}
	return c.year
}

func timeOfDay(t time.Time) int64 {
	return int64(t.Hour())*3_600_000 + int64(t.Minute())*60_000 + int64(t.Second())*1000
}

// unix is the time in milliseconds of a date that is complete.
func (c plainClock) unix(local *time.Location) int64 {
	if c.zoned {
		local = time.FixedZone("", c.east)
	}
	// Hours are counted as the clock on the wall shows them.
	hour, rest := c.ms/3_600_000, c.ms%3_600_000
	return time.Date(c.year, time.Month(c.month), c.day, int(hour), 0, 0, 0, local).UnixMilli() + rest
}

// shift moves times since an unknown start, so that the last is when the file
// was written, or so that they begin when the file says.
func (p *plainReader) shift(clocks []plainClock, at []int64) (note string) {
	first, last := int64(0), int64(0)
	found := false
	for i, c := range clocks {
		if c.kind == clockSince {
			if !found {
				first = at[i]
			}
			last, found = max(last, at[i]), true
		}
	}
	var by int64
	switch {
	case p.base.kind == clockDay && p.base.year != 0:
		by = p.base.unix(p.location)
	case !p.options.Written.IsZero():
		by = p.options.Written.UnixMilli() - last
		note = "the last row is taken to be of when the file was written"
	default:
		by = -first
	}
	for i, c := range clocks {
		if c.kind == clockSince {
			at[i] += by
		}
	}
	return note
}
