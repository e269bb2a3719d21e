package archive

import (
	"context"
	"fmt"
	"time"

	"txreel/internal/failpoint"
)

// What a capture does when the source keeps more log for it than it may.
const (
	AtBudgetKeep = "keep" // nothing is lost, whatever it costs the source
	AtBudgetDrop = "drop" // the source may forget it: a gap, and a new epoch behind it
)

// Choice is what the operator decided for the time from Since on: the content of an object below choices/.
// Whoever reads the record later must be able to see whether a gap was a choice (Invariant 6).
type Choice struct {
	Epoch    uint64 `json:"epoch"`
	Number   uint64 `json:"choice"`
	Since    string `json:"since"` // RFC 3339
	AtBudget string `json:"at_budget"`
	Budget   int64  `json:"budget,omitempty"` // bytes; zero is the source's own limit
}

func choicesKey(epoch uint64) string { return epochKey(epoch) + "/choices/" }

func choiceKey(epoch, number uint64) string {
	return fmt.Sprintf("%s%08d.json", choicesKey(epoch), number)
}

// LastChoice returns the choice that holds in the epoch: the last one recorded in it or, while it has none of its own,
// in the one before. It is nil when there is none.
func (a *Archive) LastChoice(ctx context.Context, epoch uint64) (*Choice, error) {
	for ; epoch > 0; epoch-- {
		last := ""
		for {
			objects, err := a.Store.List(ctx, choicesKey(epoch), last, 1000)
			if err != nil {
				return nil, fmt.Errorf("list the choices of epoch %d: %w", epoch, err)
			}
			if len(objects) == 0 {
				break
			}
			last = objects[len(objects)-1].Key
		}
		if last == "" {
			continue
		}
		c := &Choice{}
		return c, a.readChoice(ctx, epoch, last, c)
	}
	return nil, nil
}

func (a *Archive) readChoice(ctx context.Context, epoch uint64, key string, c *Choice) error {
	if err := readJSON(ctx, a.Store, key, c); err != nil {
		return err
	}
	if key != choiceKey(epoch, c.Number) || c.Epoch != epoch || c.AtBudget != AtBudgetKeep && c.AtBudget != AtBudgetDrop || c.Budget < 0 {
		return fmt.Errorf("%w: %s holds choice %d of epoch %d, %q", ErrCorrupt, key, c.Number, c.Epoch, c.AtBudget)
	}
	return nil
}

// RecordChoice puts a choice on record, behind the last one that LastChoice returned for the epoch, unless it says
// the same in the same epoch. It returns an error wrapping fs.ErrExist when another writer was faster.
func (a *Archive) RecordChoice(ctx context.Context, epoch uint64, last *Choice, atBudget string, budget int64) error {
	c := Choice{Epoch: epoch, Number: 1, Since: time.Now().UTC().Format(time.RFC3339), AtBudget: atBudget, Budget: budget}
	if last != nil && last.Epoch == epoch {
		if last.AtBudget == atBudget && last.Budget == budget {
			return nil
		}
		c.Number = last.Number + 1
	}
	failpoint.Hit(failpoint.ChoiceCreating)
	err := createOwn(ctx, a.Store, choiceKey(epoch, c.Number), c)
	failpoint.Hit(failpoint.ChoiceCreated)
	return err
}
