package mysql

import (
	"context"

	"txreel/change"
	"txreel/sources/mysql/gtid"
)

// ReadPosition returns the GTIDs of all that the source has committed until now, in the notation of GTID sets: what a mark
// stands for, which is in the archive once the archive holds all of it. It refuses a server that commits transactions
// without GTIDs. Nothing is written to the source.
func ReadPosition(ctx context.Context, conn *Conn) (change.Position, error) {
	if err := conn.logs(ctx); err != nil {
		return "", err
	}
	set, err := conn.executed(ctx)
	if err != nil {
		return "", err
	}
	return position(set), nil
}

// noTransactions is the position of a server that has committed nothing: a set with nothing in it, which is not the same
// as no position.
const noTransactions change.Position = ","

// position writes a set of GTIDs as a position.
func position(set *gtid.Set) change.Position {
	if set.IsEmpty() {
		return noTransactions
	}
	return change.Position(set.String())
}
