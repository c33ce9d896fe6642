package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/common/model"

	"stanch/internal/leak"
	"stanch/internal/series"
)

type alertGroup struct {
	name   string
	alerts []alert
}

func alertGroups(o RuleOptions, detectors []Detector) []alertGroup {
	return []alertGroup{
		{"stanch-suspects", suspectAlerts(detectors)},
		{"stanch-limits", limitAlerts(o)},
		{"stanch-history", historyAlerts(o)},
		{"stanch-watch", watchAlerts(o)},
	}
}

// suspectAlerts say what the watch has concluded. A verdict has been weighed
// already, so they wait only for it to be said twice.
func suspectAlerts(detectors []Detector) []alert {
	why := explain(detectors)
	of := func(name, verdict, how string) alert {
		return alert{
			name: name, expr: fmt.Sprintf("stanch_suspect{verdict=%q} == 1", verdict), pending: 5 * time.Minute, severity: "warning",
			summary: worker + ": {{ $labels.resource }} " + how,
			text: "It holds " + ofSuspect("stanch_suspect_value") + " now, and gains " + ofSuspect("stanch_suspect_growth_per_hour") +
				" per hour. Nothing seen so far says that this ends." + why,
		}
	}
	soon := func(severity, condition string) alert {
		return alert{
			name: "StanchExhaustionSoon", expr: "stanch_suspect_exhaustion_seconds " + condition, pending: 2 * time.Minute, severity: severity,
			summary: worker + ": {{ $labels.resource }} meets its limit in {{ $value | humanizeDuration }}",
			text: "The limit is {{ $labels.limit }}. It holds " + ofSuspect("stanch_suspect_value") + " now, and gains " +
				ofSuspect("stanch_suspect_growth_per_hour") + " per hour. A restart gains time; the cause stays.",
		}
	}
	return []alert{
		of("StanchGrowing", leak.VerdictGrowing, "grows steadily"),
		of("StanchStepping", leak.VerdictStepping, "grows by steps"),
		of("StanchGrowingWithLoad", leak.VerdictWithLoad, "grows with the work done"),
		soon("warning", "< 24 * 3600 >= 4 * 3600"),
		soon("critical", "< 4 * 3600"),
	}
}

// historyAlerts find growth in the series alone: the lowest value of each of
// six hours is above that of the hour before, the lowest of the last is 5 %
// above the highest of the first, and the process was not restarted. Six in a
// row by chance have a probability of 1/720 where nothing grows, and noise
// does not lift its minimum above an earlier maximum. It is weaker than the
// watch's own verdicts (no load, no saturation, no season), so it is silent
// about a host of which those are scraped.
func historyAlerts(o RuleOptions) []alert {
	const windows = 6
	window := o.span(time.Hour)
	at := func(f string, m series.Metric, n int) string {
		if n == 0 {
			return fmt.Sprintf("%s(%s[%s])", f, m, window)
		}
		return fmt.Sprintf("%s(%s[%s] offset %s)", f, m, window, model.Duration(time.Duration(window)*time.Duration(n)))
	}
	var out []alert
	for _, of := range []struct {
		resource string
		metric   series.Metric
		least    float64 // growth over all windows that is worth a word
	}{{"memory", series.Anonymous, 8 << 20}, {"descriptors", series.FDs, 20}, {"threads", series.Threads, 10}} {
		gained := fmt.Sprintf("%s - %s", at("min_over_time", of.metric, 0), at("min_over_time", of.metric, windows-1))
		grows := fmt.Sprintf("(%s) > %.0f", gained, of.least)
		for n := range windows - 1 {
			grows += fmt.Sprintf("\nand %s > %s", at("min_over_time", of.metric, n), at("min_over_time", of.metric, n+1))
		}
		grows += fmt.Sprintf("\nand %s > 1.05 * %s", at("min_over_time", of.metric, 0), at("max_over_time", of.metric, windows-1))
		grows += fmt.Sprintf("\nand changes(%s[%s]) == 0", series.Started, model.Duration(windows*time.Duration(window)))
		grows += "\nunless on (instance) stanch_build_info"
		out = append(out, alert{
			name: "StanchNeverFallsBack", expr: grows, severity: "warning", labels: map[string]string{"resource": of.resource},
			summary: worker + ": {{ $labels.resource }} only grows",
			text: fmt.Sprintf("Its lowest value of each %s is above the one before, %d times in a row; it gained ", window, windows-1) +
				amount("$value") + ".",
		})
	}
	return out
}

// watchAlerts say when the watch itself does not see.
func watchAlerts(o RuleOptions) []alert {
	return []alert{
		{
			// An absent series has no labels; what was there a day ago has.
			name: "StanchWatchDown", expr: fmt.Sprintf("last_over_time(%[1]s[1d]) unless %[1]s", series.HostAvailable), pending: 5 * time.Minute, severity: "warning",
			summary: host + ": nothing comes from stanch any more",
			text:    "The watch has ended, or what it sends does not arrive. What grows meanwhile is not seen.", next: "systemctl status stanch-watch",
		},
		{
			name: "StanchWatchStale", expr: fmt.Sprintf("time() - stanch_watch_last_sweep_timestamp_seconds > %.0f", max(12*o.Every, time.Minute).Seconds()),
			pending: 2 * time.Minute, severity: "warning",
			summary: host + ": the watch answers, but has not looked at the host for {{ $value | humanizeDuration }}",
			text:    "It hangs, gets no CPU time, or its clock is not that of Prometheus.", next: "systemctl status stanch-watch",
		},
		{
			name: "StanchHistoryNotWritten", expr: fmt.Sprintf("increase(stanch_store_failed_samples_total[%s]) > 0", o.span(15*time.Minute)), severity: "warning",
			summary: host + ": the watch can not write its history",
			text:    "The disk is full, or fails. Verdicts need history.", next: "journalctl -u stanch-watch",
		},
		{
			name: "StanchRemoteWriteDrops", expr: fmt.Sprintf("increase(stanch_remote_write_dropped_samples_total[%s]) > 0", o.span(15*time.Minute)), severity: "warning",
			summary: host + ": {{ $value | humanize }} samples did not reach the remote server",
			text:    "The server was away for too long, or refuses them. The history on the host itself has them.", next: "journalctl -u stanch-watch",
		},
		{
			name: "StanchSeriesLeftOut", expr: "stanch_series_left_out + stanch_suspects_left_out > 0", pending: 15 * time.Minute, severity: "info",
			summary: host + ": {{ $value }} series are not on /metrics",
			text:    "The page shows a bounded number; rules that need what is missing are blind. The history on the host itself has all.", next: nextOfHost,
		},
	}
}
