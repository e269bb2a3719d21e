package postgres

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// dumpedBy returns the major version of the pg_dump that wrote a custom-format dump; 0 when the head of the file is in a
// form that is not known here.
func dumpedBy(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	version, err := dumpVersion(bufio.NewReader(f))
	if errors.Is(err, errDumpHead) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil // pg_restore will say more about it
	}
	if err != nil {
		return 0, err
	}
	digits, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(strings.TrimRightFunc(digits, func(r rune) bool { return r < '0' || r > '9' }))
	if err != nil {
		return 0, nil
	}
	return major, nil
}

// errDumpHead is returned for a dump whose head is not as expected.
var errDumpHead = errors.New("the head of the dump is in an unknown form")

const (
	dumpMagic = "PGDMP"
	// Since archive version 1.15 (pg_dump 16) the head names the method of compression in one byte, before that it gives
	// its level as an integer.
	dumpMethodSince = 15
	// dumpMoment is how many integers the moment of the dump takes.
	dumpMoment = 7
	// dumpTextMax bounds a text in the head, of which there are a database's name and two versions.
	dumpTextMax = 1 << 10
)

// dumpVersion reads the head of a dump up to the version of the pg_dump that wrote it: magic, version of the archive, sizes
// of an integer and an offset, format, compression, moment, database, version of the server, version of pg_dump. An
// integer is a byte for its sign and then its bytes, the least first; a text is its length and itself.
func dumpVersion(r *bufio.Reader) (string, error) {
	head := make([]byte, len(dumpMagic)+6)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	major, minor, size := head[5], head[6], int(head[8])
	if string(head[:5]) != dumpMagic || major != 1 || size < 1 || size > 8 {
		return "", errDumpHead
	}
	skip := dumpMoment
	if minor < dumpMethodSince {
		skip++
	} else if _, err := r.ReadByte(); err != nil {
		return "", err
	}
	if _, err := r.Discard(skip * (1 + size)); err != nil {
		return "", err
	}
	var text string
	for range 3 {
		n, err := dumpInt(r, size)
		if err != nil {
			return "", err
		}
		if n < 0 || n > dumpTextMax {
			return "", fmt.Errorf("%w: a text of %d bytes", errDumpHead, n)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		text = string(b)
	}
	return text, nil
}

func dumpInt(r *bufio.Reader, size int) (int64, error) {
	var b [9]byte
	if _, err := io.ReadFull(r, b[:1+size]); err != nil {
		return 0, err
	}
	var n int64
	for i := size; i > 0; i-- {
		n = n<<8 | int64(b[i])
	}
	if b[0] != 0 {
		n = -n
	}
	return n, nil
}
