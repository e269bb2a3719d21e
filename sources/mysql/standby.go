package mysql

import (
	"context"
	"fmt"
	"time"
)

// heldFor is how long a server holds the lock of a capture that has stopped to look at it: one that is stopped
// itself, or cut off.
const heldFor = 30 * time.Second

func captureLock(replicaUUID string) string { return quoteLiteral("txreel." + replicaUUID) }

// hold shows others that a capture is at work, for as long as the session lasts, which may not be silent. One that
// holds the lock already loses its stream to us, and then the lock; it is a sign, not a fence.
func (c *Conn) hold(ctx context.Context, replicaUUID string) error {
	if err := c.Exec(ctx, fmt.Sprintf("SET SESSION wait_timeout = %d", int(heldFor.Seconds()))); err != nil {
		return wrapSQL("prepare the session", err)
	}
	_, err := c.QueryRow(ctx, "SELECT GET_LOCK("+captureLock(replicaUUID)+", 0)")
	return wrapSQL("show that a capture is at work", err)
}

// Captured reports whether a capture under the identity of SourceOptions is at work on the server.
func Captured(ctx context.Context, conn *Conn, replicaUUID string) (bool, error) {
	row, err := conn.QueryRow(ctx, "SELECT IS_FREE_LOCK("+captureLock(replicaUUID)+")")
	if err != nil {
		return false, wrapSQL("look for a capture that is at work", err)
	}
	return row[0].String() == "0", nil
}
