package leak

import "time"

// ReportService is the history of one service of the host: of its workers, and
// of its cgroup.
type ReportService struct {
	Name     string         `json:"name"` // "nginx.service", "docker/1f2e3d4c5b6a", "redis-server *:6379"; "host" for the host itself
	Kind     string         `json:"kind"` // "unit", "container", "command" or "host"
	Workers  []ReportWorker `json:"workers"`
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Restarts int            `json:"restarts"` // of all workers, seen in the time shown
	Trends   []ReportTrend  `json:"trends"`   // what exhausts a limit first before the others
	Charts   []ReportChart  `json:"charts"`
	Marks    []ReportMark   `json:"marks"` // in order of time
	Logs     []ReportLog    `json:"logs"`  // what is written before growth steps, the surest first
}

// ReportWorker is one process of a service.
type ReportWorker struct {
	Worker  string    `json:"worker"` // its place, "0", "1", ...
	PID     int       `json:"pid"`    // of the process that has it now, or had it last
	Started time.Time `json:"started"`
}

// The verdicts of a trend. Only Growing, Stepping and WithLoad say that what
// is held grows without end as far as was seen.
const (
	VerdictGrowing    = "growing"     // steadily, also when nothing is to be done
	VerdictStepping   = "stepping"    // by steps at certain moments, and never back
	VerdictWithLoad   = "with load"   // by so much for each unit of work done, and never back
	VerdictSaturating = "saturating"  // it fills and stops: a cache, a pool
	VerdictPeriodic   = "periodic"    // up and down with the load or the time of day
	VerdictWarming    = "warming up"  // grew after the start, and no longer
	VerdictSteady     = "steady"      // no growth
	VerdictUnknown    = "not decided" // too little data: NeedsS says how much more
)

// ReportTrend is what is concluded of one series.
type ReportTrend struct {
	Metric      string      `json:"metric"`   // of package series
	Resource    string      `json:"resource"` // "memory", "descriptors", "threads", "address space", "tasks"
	Worker      string      `json:"worker"`   // "" for the cgroup or the host
	PID         int         `json:"pid"`      // 0 where there is no worker
	Bytes       bool        `json:"bytes"`    // the unit
	Verdict     string      `json:"verdict"`
	Now         float64     `json:"now"`
	Since       *time.Time  `json:"since"`    // when the growth began, null where it was there at the first look
	PerHour     *float64    `json:"per_hour"` // null when not decided
	PerHourLow  *float64    `json:"per_hour_low"`
	PerHourHigh *float64    `json:"per_hour_high"` // 95 % confidence
	PerUnit     *float64    `json:"per_unit"`      // growth for each unit of load, where that was measured
	Unit        string      `json:"unit"`          // the load: "connection", "MB received", "second of CPU"
	Strength    float64     `json:"strength"`      // of the evidence, 0 to 1: 1 minus the chance that noise looks so
	Exhaustion  *Exhaustion `json:"exhaustion"`    // the nearest limit
	NeedsS      *float64    `json:"needs_s"`       // how much longer until a verdict, when not decided
	Detectors   []string    `json:"detectors"`     // who said so
	Evidence    []string    `json:"evidence"`
}

// ReportChart is a series to be drawn. Of many points those are kept that show
// the extremes.
type ReportChart struct {
	Metric    string       `json:"metric"`
	Title     string       `json:"title"` // "resident memory", "TCP sockets CLOSE_WAIT"
	Worker    string       `json:"worker"`
	Bytes     bool         `json:"bytes"`
	Limit     *float64     `json:"limit"` // a line to be drawn
	LimitName string       `json:"limit_name"`
	Points    [][2]float64 `json:"points"` // Unix seconds, value
}

// The kinds of a ReportMark.
const (
	MarkRestart = "restart"
	MarkStep    = "step"
	MarkLog     = "log"
	MarkOOM     = "oom kill"
	MarkClock   = "clock" // the wall clock was set
	MarkSleep   = "sleep" // the host was suspended
	MarkGap     = "gap"   // nobody was watching
)

// ReportMark is a moment in a service's history.
type ReportMark struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Metric string    `json:"metric"` // of a step, else ""
	Worker string    `json:"worker"`
	Size   float64   `json:"size"` // of a step, in the metric's unit; of a sleep or a clock jump, in seconds
	Text   string    `json:"text"` // for people: "restarted, pid 4711 -> 4802"
}

// ReportLog is a log template that comes before growth steps more often than
// at other times.
type ReportLog struct {
	Template string  `json:"template"` // variables as *
	Example  string  `json:"example"`  // a line, masked
	Steps    int     `json:"steps"`    // growth steps in all
	Before   int     `json:"before"`   // of them, how many had such a line shortly before
	Lines    int     `json:"lines"`    // such lines in all
	Other    int     `json:"other"`    // of them, how many were not shortly before a step
	LeadS    float64 `json:"lead_s"`   // median time from the line to the step
	P        float64 `json:"p"`        // chance to see this without a connection, corrected for the number of templates
}

func (s *ReportService) normalize() {
	s.Workers, s.Trends, s.Charts = nonNil(s.Workers), nonNil(s.Trends), nonNil(s.Charts)
	s.Marks, s.Logs = nonNil(s.Marks), nonNil(s.Logs)
	for i := range s.Trends {
		s.Trends[i].Detectors, s.Trends[i].Evidence = nonNil(s.Trends[i].Detectors), nonNil(s.Trends[i].Evidence)
	}
	for i := range s.Charts {
		s.Charts[i].Points = nonNil(s.Charts[i].Points)
	}
}
