package mysql

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// events keeps the states of EVENT objects. A replica disables every event that a
// replayed statement makes or alters, and does not note how it was meant: so the
// statements are read before they are sent, and the last word about each event
// is put on record in the target, where a restore that continues finds it.
type events struct {
	target *Target
	mu     sync.Mutex // streams follow each other on several goroutines
	book   *conn      // nil until something is to be noted
	states map[eventName]string
}

// eventName identifies an event. The names of events have no case.
type eventName struct{ schema, name string }

func newEventName(schema, name string) eventName {
	return eventName{schema, strings.ToLower(name)}
}

// readEvents returns the states that are known so far: the base's, and on top of them
// those on record.
func (t *Target) readEvents(ctx context.Context) (*events, error) {
	e := &events{target: t, states: make(map[eventName]string)}
	for _, s := range t.engine.Events {
		state := s.Status
		if state == "REPLICA_SIDE_DISABLED" {
			state = stateReplica
		}
		e.states[newEventName(s.Schema, s.Name)] = state
	}
	rows, err := t.control.query(ctx, "SELECT db, name, state FROM txreel_restore.events")
	if err != nil {
		return nil, fmt.Errorf("read the states of events: %w", err)
	}
	for _, r := range rows {
		e.states[newEventName(r.text(0), r.text(1))] = r.text(2)
	}
	return e, nil
}

func (e *events) close() {
	if e.book != nil {
		e.target.returnSpare(e.book)
	}
}

// statement is shown every statement that is about to be replayed, with its default
// database.
func (e *events) statement(ctx context.Context, schema, text []byte) error {
	if table, ok := numbersRows(text); ok {
		if err := e.noteNumbers(ctx, string(schema), table); err != nil {
			return fmt.Errorf("note that the rows of %s are numbered: %w", table, err)
		}
	}
	s, ok := parseEventStatement(text)
	if !ok {
		return nil
	}
	if s.schema == "" {
		s.schema = string(schema)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := make(map[eventName]string)
	key := newEventName(s.schema, s.name)
	state := e.states[key]
	switch s.verb {
	case "DROP DATABASE":
		for k := range e.states {
			if k.schema == s.schema {
				changed[k] = stateDropped
			}
		}
	case "DROP":
		changed[key] = stateDropped
	case "CREATE":
		if s.unless && state != stateDropped {
			return nil // it exists
		}
		state = stateEnabled
		fallthrough
	case "ALTER":
		if s.state != "" {
			state = s.state
		}
		if s.toName != "" {
			changed[key] = stateDropped
			if s.toSchema == "" {
				s.toSchema = s.schema
			}
			key = newEventName(s.toSchema, s.toName)
		}
		changed[key] = state
	}
	for k, state := range changed {
		if err := e.note(ctx, k, state); err != nil {
			return fmt.Errorf("note the state of event %s: %w", quote(k.schema, k.name), err)
		}
		e.states[k] = state
	}
	return nil
}

// openBook returns the session for notes.
func (e *events) openBook(ctx context.Context) (err error) {
	if e.book == nil {
		e.book, err = e.target.spare(ctx)
	}
	return err
}

func (e *events) note(ctx context.Context, k eventName, state string) (err error) {
	if err := e.openBook(ctx); err != nil {
		return err
	}
	return e.book.exec(ctx, "REPLACE INTO txreel_restore.events VALUES ("+literal(k.schema)+", "+literal(k.name)+", "+literal(state)+")")
}

// settleEvents gives the target's events the states they had in the source.
func (t *Target) settleEvents(ctx context.Context) error {
	e, err := t.readEvents(ctx)
	if err != nil {
		return err
	}
	rows, err := t.control.query(ctx, "SELECT event_schema, event_name, status, definer, time_zone, sql_mode, character_set_client, collation_connection "+
		"FROM information_schema.events WHERE event_schema NOT IN "+systemSchemas+" ORDER BY 1, 2")
	if err != nil {
		return fmt.Errorf("read the target's events: %w", err)
	}
	c, err := t.spare(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	for _, r := range rows {
		state := e.states[newEventName(r.text(0), r.text(1))]
		if state == stateDropped {
			t.warn("event %s is %s: the record does not say what it was in the source", quote(r.text(0), r.text(1)), r.text(2))
			continue
		}
		if state == r.text(2) || state == stateReplica && r.text(2) == "REPLICA_SIDE_DISABLED" {
			continue
		}
		if err := t.settleEvent(ctx, c, r, state); err != nil {
			t.warn("event %s of the source was %s; the target does not let it be so: %v", quote(r.text(0), r.text(1)), state, err)
		}
	}
	return nil
}

// settleEvent alters one event. What the session has set becomes part of the event, so
// that session is good for nothing else.
func (t *Target) settleEvent(ctx context.Context, c *conn, r row, state string) error {
	if err := c.exec(ctx, "SET SESSION time_zone = "+literal(r.text(4))+", character_set_client = "+literal(r.text(6))+
		", collation_connection = "+literal(r.text(7))+", sql_mode = "+literal(r.text(5))); err != nil {
		return err
	}
	action := map[string]string{stateEnabled: "ENABLE", stateDisabled: "DISABLE", stateReplica: "DISABLE ON SLAVE"}[state]
	if state == stateReplica && !t.version.mariadb() && t.version.number >= 80026 {
		action = "DISABLE ON REPLICA"
	}
	user, host, _ := cutLast(r.text(3), "@")
	return c.exec(ctx, "ALTER DEFINER = "+quote(user)+"@"+quote(host)+" EVENT "+quote(r.text(0), r.text(1))+" "+action)
}
