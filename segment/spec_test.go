package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"txreel/change"
)

// specTables returns the tables of a section of docs/format.md, rows as cells, the
// line of dashes left out.
func specTables(t *testing.T, section string) (tables [][][]string) {
	t.Helper()
	b, err := os.ReadFile("../docs/format.md")
	check(t, err)
	_, text, ok := strings.Cut(string(b), "# "+section+"\n")
	if !ok {
		t.Fatalf("no section %q", section)
	}
	if i := strings.Index(text, "\n#"); i >= 0 {
		text = text[:i]
	}
	var table [][]string
	for line := range strings.Lines(text + "\n\n") {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			if table != nil {
				tables = append(tables, table)
			}
			table = nil
		case !strings.HasPrefix(line, "|---"):
			var row []string
			for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
				row = append(row, strings.TrimSpace(cell))
			}
			table = append(table, row)
		}
	}
	return tables
}

// TestSpecLayout compares the tables of offsets in docs/format.md with what the
// code writes.
func TestSpecLayout(t *testing.T) {
	t.Parallel()
	le := func(n int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:n] }
	h := Header{Archive: [16]byte{1, 2, 3, 15: 16}, Engine: "mariadb", Epoch: 0x1122334455667788, First: 0x99aabbccddeeff01, Prev: Hash{7, 31: 9}, Latest: -2}
	header := h.encode()
	engine := append([]byte("mariadb"), make([]byte, 9)...)
	latest := h.Latest
	compareLayout(t, "4.1 Header", header, map[string][]byte{
		"magic": []byte(headerMagic), "version": le(2, Version), "header size": le(2, headerSize), "header flags": le(4, 0), "archive": h.Archive[:],
		"epoch": le(8, h.Epoch), "first": le(8, uint64(h.First)), "prev": h.Prev[:], "engine": engine, "latest before": le(8, uint64(latest)),
		"header checksum": le(4, uint64(crcOf(header[:104]))),
	})

	f := footer{index: 0x1122334455, length: 0x66778899, size: 0xaabbccddee, hash: Hash{3, 31: 4}}
	foot := f.encode()
	compareLayout(t, "4.5 Footer", foot, map[string][]byte{
		"index offset": le(8, uint64(f.index)), "index size": le(8, uint64(f.length)), "segment size": le(8, uint64(f.size)), "hash": f.hash[:],
		"footer version": le(2, Version), "footer flags": le(2, 0), "footer checksum": le(4, uint64(crcOf(foot[:60]))), "end marker": []byte(footerMagic),
	})

	data := []byte("stored")
	fh := frameHeader{stored: uint32(len(data)), raw: 0x01020304, flags: flagDefinitions}
	fh.crc = fh.sum(data)
	frame := make([]byte, frameHeaderSize)
	fh.put(frame)
	frame = append(frame, data...)
	compareLayout(t, "4.2 Frame", frame, map[string][]byte{
		"stored": le(4, uint64(fh.stored)), "raw": le(4, uint64(fh.raw)), "frame flags": le(4, uint64(fh.flags)), "data": data,
		"frame checksum": le(4, uint64(crcOf(append(bytes.Clone(frame[:12]), data...)))),
	})
}

func compareLayout(t *testing.T, section string, b []byte, want map[string][]byte) {
	t.Helper()
	end := 0
	for _, row := range specTables(t, section)[0][1:] {
		offset, err := strconv.Atoi(row[0])
		check(t, err)
		size, err := strconv.Atoi(row[1])
		if row[1] == "stored" {
			size, err = len(b)-offset, nil
		}
		check(t, err)
		if offset != end {
			t.Errorf("%s: %s at %d, the field before ends at %d", section, row[2], offset, end)
		}
		end = offset + size
		if w, ok := want[row[2]]; !ok || !bytes.Equal(b[offset:end], w) {
			t.Errorf("%s: %s is %x, the code writes %x", section, row[2], b[offset:end], w)
		}
		delete(want, row[2])
	}
	if end != len(b) || len(want) > 0 {
		t.Errorf("%s ends at %d of %d bytes and leaves out %v", section, end, len(b), want)
	}
}

// TestSpecConstants compares the numbers in docs/format.md with the code's.
func TestSpecConstants(t *testing.T) {
	t.Parallel()
	compareNumbers(t, specTables(t, "4.2 Frame")[1], map[string]int64{"none": 0, "definitions": flagDefinitions, "index": flagIndex})
	records := specTables(t, "4.3 Records")
	compareNumbers(t, records[1], map[string]int64{"definition": recordDefinition, "begin": recordBegin, "message": recordMessage, "commit": recordCommit})
	compareNumbers(t, records[2], map[string]int64{"source": int64(change.TxnSource), "heartbeat": int64(change.TxnHeartbeat)})
	compareNumbers(t, specTables(t, "4.6 Limits")[0], map[string]int64{
		"raw size of a frame": maxRaw, "stored size of a frame, frame header not counted": maxStored, "raw bytes for each stored byte of a frame": maxRatio,
		"raw size of an index": maxIndex, "length of a transaction's id": maxXID, "length of a position": maxPosition, "length of a note": change.MaxNote,
		"ids, positions and notes of a segment's transactions together": maxNames,
	})
	versions := specTables(t, "4.8 Versions")[0]
	if last := versions[len(versions)-1][0]; last != strconv.Itoa(Version) {
		t.Errorf("the newest version in the document is %s, the code's %d", last, Version)
	}
}

func compareNumbers(t *testing.T, table [][]string, want map[string]int64) {
	t.Helper()
	for _, row := range table[1:] {
		w, ok := want[row[0]]
		if !ok || row[1] != fmt.Sprint(w) {
			t.Errorf("%s is %s, the code says %d (known: %t)", row[0], row[1], w, ok)
		}
		delete(want, row[0])
	}
	if len(want) > 0 {
		t.Errorf("the document leaves out %v", want)
	}
}

// TestSpecExample compares the worked example with the vector it speaks of.
func TestSpecExample(t *testing.T) {
	t.Parallel()
	v := readVector(t, vectorDir+"/v2-one-insert.txt")
	b, err := os.ReadFile("../docs/format.md")
	check(t, err)
	_, dump, _ := strings.Cut(string(b), "## 6. Worked example")
	_, dump, _ = strings.Cut(dump, "```\n")
	dump, _, _ = strings.Cut(dump, "```")
	var got []byte
	for line := range strings.Lines(dump) {
		line, _, _ = strings.Cut(line, "|")
		p, err := hex.DecodeString(strings.Join(strings.Fields(line)[1:], ""))
		check(t, err)
		got = append(got, p...)
	}
	if !bytes.Equal(got, v.data) {
		t.Error("the dump is not the vector's")
	}

	parts := split(t, v.data)
	for i, want := range [][]byte{v.data, parts.frames[0].raw, parts.index} {
		end, skipped := 0, false
		for _, row := range specTables(t, "6. Worked example")[i][1:] {
			offset, err := strconv.Atoi(row[0])
			check(t, err)
			if offset != end && !skipped {
				t.Errorf("table %d: a row at %d, the one before ends at %d", i, offset, end)
			}
			if end, skipped = offset, row[1] == "…"; skipped {
				continue
			}
			p, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(row[1], "`"), " ", ""))
			check(t, err)
			if !bytes.HasPrefix(want[offset:], p) {
				t.Errorf("table %d: %s at %d is not what stands there", i, row[1], offset)
			}
			end += len(p)
		}
		if end != len(want) {
			t.Errorf("table %d ends at %d of %d", i, end, len(want))
		}
	}
}
