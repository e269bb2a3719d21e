package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"txreel/archive"
)

type holdCmd struct {
	Place holdPlaceCmd `cmd:"" help:"Keep what is needed to restore and to prove what was committed in a span of time."`
	Lift  holdLiftCmd  `cmd:"" help:"Let prune have it again."`
	List  holdListCmd  `cmd:"" help:"List holds."`
}

type holdPlaceCmd struct {
	archiveFlag
	Name   string `arg:"" help:"Name of the hold: letters, digits, dots, dashes and underscores."`
	From   string `placeholder:"TIME" help:"Hold what was committed from this moment on (default: from the beginning)."`
	To     string `placeholder:"TIME" help:"Hold it up to this moment (default: without an end)."`
	Reason string `required:"" help:"Why, for the record."`
}

// Run implements the command.
func (c *holdPlaceCmd) Run(a *app) error {
	h := archive.Hold{Name: c.Name, Reason: c.Reason, By: whoami()}
	if err := archive.CheckHoldName(c.Name); err != nil {
		return &usageError{err.Error()}
	}
	var err error
	now := time.Now()
	if c.From != "" {
		if h.From, err = parseTime(c.From, now); err != nil {
			return err
		}
	}
	if c.To != "" {
		if h.To, err = parseTime(c.To, now); err != nil {
			return err
		}
	}
	if h.To != 0 && h.To < h.From {
		return &usageError{fmt.Sprintf("the hold would end at %s, before it begins at %s", h.To, h.From)}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	if h, err = ar.PlaceHold(a.ctx, h); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "hold %s\n", holdText(&h))
	return err
}

type holdLiftCmd struct {
	archiveFlag
	Name   string `arg:"" help:"Name of the hold."`
	Reason string `required:"" help:"Why, for the record."`
}

// Run implements the command.
func (c *holdLiftCmd) Run(a *app) error {
	if err := archive.CheckHoldName(c.Name); err != nil {
		return &usageError{err.Error()}
	}
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	h, err := ar.LiftHold(a.ctx, c.Name, c.Reason, whoami())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no hold %q is in place: `txreel hold list` lists them", c.Name)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "hold %s\n", holdText(&h))
	return err
}

type holdListCmd struct {
	archiveFlag
	All  bool `help:"Those that were lifted, too."`
	JSON bool `help:"Print JSON."`
}

// Run implements the command.
func (c *holdListCmd) Run(a *app) error {
	ar, release, err := c.openArchive(a.ctx)
	if err != nil {
		return err
	}
	defer release()
	all, err := ar.Holds(a.ctx)
	if err != nil {
		return err
	}
	shown := []archive.Hold{}
	for _, h := range all {
		if c.All || !h.Lifted {
			shown = append(shown, h)
		}
	}
	if c.JSON {
		return writeJSON(a.stdout, shown)
	}
	for i := range shown {
		if _, err := fmt.Fprintln(a.stdout, holdText(&shown[i])); err != nil {
			return err
		}
	}
	return nil
}

// holdText says what a hold is.
func holdText(h *archive.Hold) string {
	var b strings.Builder
	b.WriteString(h.Name)
	if h.Lifted {
		fmt.Fprintf(&b, " lifted on %s by %s: %s", h.On, h.By, h.Reason)
		return b.String()
	}
	switch {
	case h.From == 0 && h.To == 0:
		b.WriteString(" keeps everything")
	case h.To == 0:
		fmt.Fprintf(&b, " keeps what was committed from %s on", h.From)
	case h.From == 0:
		fmt.Fprintf(&b, " keeps what was committed up to %s", h.To)
	default:
		fmt.Fprintf(&b, " keeps what was committed from %s to %s", h.From, h.To)
	}
	fmt.Fprintf(&b, ", placed on %s by %s: %s", h.On, h.By, h.Reason)
	return b.String()
}
