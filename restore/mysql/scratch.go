package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
	"txreel/sources/mysql/mybase"
)

// ErrOnlySource is wrapped when a base cannot be made of the record with the scratch server there is, and has to be taken of the source.
var ErrOnlySource = errors.New("the scratch server cannot stand in for the source")

// Scratch restores into a server that is good for nothing else, from which a base is then read, and removes from it what the restore has
// made. It is restore.Target. The server must be empty when a run begins: so whatever is in it at the end of the restore is of the restore,
// as long as nobody else writes to it, which is looked for before anything is listed to be removed. What a killed run has left says so in
// txreel_restore, and the next run continues it.
type Scratch struct {
	*Target
	left *remains

	// From here on: what of the base is not to be read from the server. Set when the restore has succeeded.
	Accounts mybase.Accounts // those of the base that the restore began with
	Position change.Position // the GTID set at the cut
	File     string          // the source's binlog at the cut, and the place in it
	Offset   uint64
	own      map[string]bool // accounts that the server had before
	named    map[string]bool // words of the statements about accounts that are replayed, in lower case
	dropped  bool            // one of them drops some, which may be part of others
	found    int             // warnings of what the server was
	states   map[eventName]string
}

var _ restore.Target = (*Scratch)(nil)

// remains are what an interrupted run for the archive has left in the server.
type remains struct {
	goal  restore.Goal
	phase phase
}

// OpenScratch connects to a server, keeps other restores off it, and looks at what an interrupted run for the archive has left there. It
// changes nothing, unless such a run was removing what it had made: then that is done first. The caller closes the Scratch.
func OpenScratch(ctx context.Context, url, archiveID string, opts Options) (*Scratch, error) {
	t, err := Open(ctx, url, opts)
	if err != nil {
		return nil, fmt.Errorf("scratch server: %w", err)
	}
	t.scratch = true
	s := &Scratch{Target: t}
	if err = t.lock(ctx); err == nil {
		s.left, err = s.readRemains(ctx, archiveID)
	}
	if err == nil && s.left != nil && s.left.phase == phaseDiscard {
		err = s.Discard(ctx)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("scratch server: %w", err)
	}
	return s, nil
}

// Goal is the point to restore to: that of an interrupted run, or the latest. It reports which.
func (s *Scratch) Goal() (g restore.Goal, continued bool) {
	if s.left == nil {
		return restore.Goal{Kind: restore.Latest}, false
	}
	return s.left.goal, true
}

// Check implements restore.Target.
func (s *Scratch) Check(ctx context.Context, j *restore.Job) (bool, error) {
	resumed, err := s.Target.Check(ctx, j)
	if err != nil {
		return resumed, fmt.Errorf("scratch server: %w", err)
	}
	if want := (version{number: s.engine.Number}).series(); s.version.series() != want {
		return resumed, fmt.Errorf("%w: the scratch server is %s, the source %s: what the schema became would not be its own words", ErrOnlySource, s.version, s.engine.Version)
	}
	if !resumed {
		if err := s.checkBare(ctx); err != nil {
			return resumed, err
		}
		if err := s.checkPublic(ctx); err != nil {
			return resumed, err
		}
	}
	if s.own, err = s.ownAccounts(ctx); err != nil {
		return resumed, err
	}
	s.found = len(s.warnings)
	return resumed, s.readSpan(ctx)
}

// checkBare refuses what an ordinary target may have: an empty database would be in the base, and without a log nobody sees that others write.
func (s *Scratch) checkBare(ctx context.Context) error {
	name, err := s.control.value(ctx, "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+" AND schema_name <> "+literal(bookSchema)+" LIMIT 1")
	if err != nil {
		return fmt.Errorf("look for databases in the scratch server: %w", err)
	}
	if name != "" {
		return fmt.Errorf("%w: the scratch server has a database %s, which would be taken for the source's: drop it, or use a fresh server", restore.ErrNotEmpty, quote(name))
	}
	logs, err := s.control.value(ctx, "SELECT @@GLOBAL.log_bin")
	if err != nil {
		return fmt.Errorf("look at scratch server: %w", err)
	}
	if logs != "1" {
		return errors.New("the scratch server writes no binary log, by which it could be seen that others write to it: start it with log_bin")
	}
	return nil
}

// Release implements restore.Target. The book stays: it says what is to be removed.
func (s *Scratch) Release(ctx context.Context) error {
	if err := s.Alone(ctx); err != nil {
		return err
	}
	if err := s.noteMade(ctx); err != nil {
		return err
	}
	undecided, err := s.prepared(ctx)
	if err != nil {
		return err
	}
	if len(undecided) > 0 {
		err := fmt.Errorf("%w: %d XA transactions are prepared and undecided at the end of the record, and a base would lose them", ErrOnlySource, len(undecided))
		for _, id := range undecided { // they hold locks on what is to be removed
			err = errors.Join(err, s.control.exec(ctx, "XA ROLLBACK "+id))
		}
		return errors.Join(err, s.Discard(ctx))
	}
	l := &loader{archive: s.job.Archive, base: s.job.Plan.Base}
	if len(l.base.Objects) > 0 {
		if err := l.readJSON(ctx, mybase.AccountsObject, &s.Accounts); err != nil {
			return err
		}
	}
	e, err := s.readEvents(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	s.states, s.Position = e.states, change.Position(s.goal.String())
	return nil
}

// Doubts are what the restore warned of, but for the server it found.
func (s *Scratch) Doubts() []string { return s.warnings[s.found:] }

// Same reports whether an account is at the cut as it was at the base that the restore began with: no statement of the record names it. So it
// is with all that the server had before.
func (s *Scratch) Same(a *mybase.Account) bool {
	return s.own[accountKey(a.User, a.Host)] || !s.dropped && !s.named[strings.ToLower(a.User)]
}

// EventState returns whether an event ran in the source; "" where the record does not say.
func (s *Scratch) EventState(schema, name string) string {
	return s.states[newEventName(schema, name)]
}

// Alone makes sure that nobody but the restore has written to the server since it began.
func (s *Scratch) Alone(ctx context.Context) error {
	executed, err := s.executed(ctx)
	if err != nil {
		return err
	}
	others := !executed.Equal(s.goal)
	if s.version.mariadb() && !others {
		text, err := s.control.value(ctx, "SELECT @@GLOBAL.gtid_binlog_pos")
		if err != nil {
			return fmt.Errorf("look into the scratch server's log: %w", err)
		}
		logged, err := gtid.Parse(s.version.flavor, text)
		if err != nil {
			return fmt.Errorf("look into the scratch server's log: %w", err)
		}
		others = !s.goal.Contains(logged)
	}
	if others {
		return fmt.Errorf("%w: somebody else has written to the scratch server while it was used: what it holds is not what is on record; it was left as it is; initialise a fresh one", restore.ErrNotEmpty)
	}
	return nil
}

// Place gives a base that is made of the server its place in the record.
func (s *Scratch) Place(b *archive.Base) {
	p := s.job.Plan
	b.Seq, b.Position, b.From = p.Seq, s.Position, &archive.BaseOrigin{Base: p.Base.ID, Seq: p.Base.Seq}
}
