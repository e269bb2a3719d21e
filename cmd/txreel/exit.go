package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"txreel/archive"
	"txreel/audit"
	"txreel/capture"
	"txreel/restore"
	"txreel/segment"
)

// The exit codes. They are part of the interface: docs/operations.md lists them.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitGap         = 3
	exitCorrupt     = 4
	exitOtherWriter = 5
	exitNotFound    = 6
	exitUnreachable = 7
	exitDoctor      = 8
	exitInterrupted = 130
)

// errQuiet marks errors of which everything has been said already.
var errQuiet = errors.New("")

// usageError is a mistake on the command line that the parser could not see.
type usageError struct{ text string }

// Error implements error.
func (e *usageError) Error() string { return e.text }

// errProblems is returned by doctor.
var errProblems = errors.New("problems found")

// exitCode tells what an error means to a script.
func (a *app) exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, capture.ErrGap), errors.Is(err, audit.ErrGap):
		return exitGap
	case errors.Is(err, archive.ErrCorrupt), errors.Is(err, archive.ErrVersion), errors.Is(err, segment.ErrCorrupt), errors.Is(err, segment.ErrVersion):
		return exitCorrupt
	case errors.Is(err, capture.ErrOtherCapture), errors.Is(err, archive.ErrOtherWriter):
		return exitOtherWriter
	case errors.Is(err, restore.ErrNotInArchive), errors.Is(err, restore.ErrDefinitionChanged), errors.Is(err, archive.ErrPruned):
		return exitNotFound
	case errors.Is(err, errProblems):
		return exitDoctor
	case a.stopped() == os.Interrupt || errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, capture.ErrUnreachable), errors.Is(err, archive.ErrUnreachable), errors.Is(err, restore.ErrUnreachable):
		return exitUnreachable
	}
	return exitFailed
}

// sentence renders an error for a person, on as few lines as it has causes.
func sentence(err error) string { return strings.TrimSpace(err.Error()) }
