package mysql

import (
	"context"
	"errors"
)

// loadBase loads the base's schema and rows.
func (t *Target) loadBase(context.Context) error {
	if b := t.job.Plan.Base; len(b.Tables)+len(b.Objects) > 0 {
		return errors.New("loading a base of this kind is not built in")
	}
	return nil
}
