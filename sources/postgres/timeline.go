package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"

	"txreel/sources/postgres/lsn"
)

// LeftTimeline asks the source where its history left another timeline, up to which both are the same. It reports
// false when the source's history does not come from that timeline at all.
func LeftTimeline(ctx context.Context, url string, is, was int32) (at lsn.LSN, ok bool, err error) {
	cfg, err := connConfig(url, "txreel", true)
	if err != nil {
		return 0, false, err
	}
	conn, err := dial(ctx, cfg)
	if err != nil {
		return 0, false, err
	}
	defer closeConn(conn)
	history, err := pglogrepl.TimelineHistory(ctx, conn, is)
	if err != nil {
		return 0, false, wrapSQL("read the history of the source's timeline", err)
	}
	return leftTimeline(string(history.Content), was)
}

// leftTimeline reads a timeline history file: on each line a timeline, where it was left, and why.
func leftTimeline(history string, was int32) (lsn.LSN, bool, error) {
	for line := range strings.Lines(history) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != strconv.Itoa(int(was)) {
			continue
		}
		at, err := lsn.Parse(fields[1])
		if err != nil {
			return 0, false, fmt.Errorf("read the history of the source's timeline: %w", err)
		}
		return at, true, nil
	}
	return 0, false, nil
}
