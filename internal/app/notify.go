package app

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyReady tells the service manager that the watch has begun, and what
// `systemctl status` is to show. Without a manager, which is to say without
// NOTIFY_SOCKET (sd_notify(3)), nothing happens.
func notifyReady(status string) error {
	return notify(daemon.SdNotifyReady + "\nSTATUS=" + status)
}

// notifyStatus replaces what `systemctl status` shows, one line.
func notifyStatus(status string) error { return notify("STATUS=" + status) }

// notifyStopping tells the service manager that the watch is ending, so that
// writing the last samples is not taken for a service that hangs.
func notifyStopping() error { return notify(daemon.SdNotifyStopping) }

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// watchdog tells the service manager that the watch lives, twice in each
// WATCHDOG_USEC, until ctx ends. While healthy says false it is silent, and
// the manager ends the watch and starts it anew. It returns at once where no
// watchdog is asked for; a word that could not be sent is sent again at the
// next turn, and err is the last such.
func watchdog(ctx context.Context, healthy func() bool) (err error) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("the service manager's watchdog: %w", err)
	}
	if within == 0 {
		return nil
	}
	turn := time.NewTicker(within / 2)
	defer turn.Stop()
	for {
		if healthy() {
			err = notify(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return err
		case <-turn.C:
		}
	}
}
