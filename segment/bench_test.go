package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"txreel/change"
)

// bank makes transactions as pgoutput sends pgbench's: Begin, three updates with
// the new row only, an insert, Commit; numbers as text, balances and positions that move.
type bank struct {
	rnd      *rand.Rand
	lsn      uint64
	xid      uint32
	time     int64
	balances [3][]int
	tables   [4]*change.Table
	defs     [4]*change.Definition
	buf      []byte
}

func newBank() *bank {
	b := &bank{rnd: rand.New(rand.NewPCG(1, 2)), lsn: 0x1A_0000_0000, xid: 1_000_000, time: 800_000_000_000_000}
	for i, name := range []string{"pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history"} {
		b.tables[i] = &change.Table{Schema: "public", Name: name, Version: 1}
		b.defs[i] = &change.Definition{Messages: [][]byte{[]byte("R public " + name)}}
	}
	for i, n := range []int{1_000_000, 100, 10} {
		b.balances[i] = make([]int, n)
	}
	return b
}

func (b *bank) row(kind byte, relation uint32, columns ...any) []byte {
	b.buf = append(b.buf[:0], kind)
	b.buf = binary.BigEndian.AppendUint32(b.buf, relation)
	b.buf = append(b.buf, 'N')
	b.buf = binary.BigEndian.AppendUint16(b.buf, uint16(len(columns)))
	for _, c := range columns {
		switch c := c.(type) {
		case nil:
			b.buf = append(b.buf, 'n')
		default:
			text := fmt.Append(nil, c)
			b.buf = append(b.buf, 't')
			b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(text)))
			b.buf = append(b.buf, text...)
		}
	}
	return b.buf
}

// batch is how many transactions the bank's capture receives at once.
const batch = 400

// transaction calls add for each of the six messages of the next transaction.
func (b *bank) transaction(add func(table int, op change.Op, raw []byte)) {
	delta := b.rnd.IntN(10_001) - 5_000
	b.lsn += uint64(500 + b.rnd.IntN(400))
	b.xid++
	b.time += int64(100 + b.rnd.IntN(2000))
	begin := binary.BigEndian.AppendUint64(append(b.buf[:0], 'B'), b.lsn)
	add(-1, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(begin, uint64(b.time)), b.xid))
	var id [3]int
	for i := range b.balances {
		id[i] = b.rnd.IntN(len(b.balances[i]))
		b.balances[i][id[i]] += delta
	}
	filler := fmt.Sprintf("%-84s", "")
	add(0, change.OpUpdate, b.row('U', 16394, id[0]+1, id[0]/100_000+1, b.balances[0][id[0]], filler))
	add(1, change.OpUpdate, b.row('U', 16391, id[1]+1, id[1]/10+1, b.balances[1][id[1]], nil))
	add(2, change.OpUpdate, b.row('U', 16388, id[2]+1, b.balances[2][id[2]], nil))
	at := b.time
	add(3, change.OpInsert, b.row('I', 16385, id[1]+1, id[2]+1, id[0]+1, delta,
		fmt.Sprintf("2026-11-22 %02d:%02d:%02d.%06d", at/3_600_000_000%24, at/60_000_000%60, at/1_000_000%60, at%1_000_000), nil))
	commit := binary.BigEndian.AppendUint64(append(b.buf[:0], 'C', 0), b.lsn)
	add(-1, 0, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(commit, b.lsn+48), uint64(b.time)))
}

// planned is a transaction kept for writing again and again.
type planned struct {
	messages []change.Message
	commit   change.Message
}

func (b *bank) plan(n int) (txns []planned) {
	for range n {
		var p planned
		b.transaction(func(table int, op change.Op, raw []byte) {
			m := change.Message{Raw: bytes.Clone(raw)}
			if table >= 0 {
				m.Defs = []*change.Definition{b.defs[table]}
				m.Touched = []change.Touch{{Table: b.tables[table], Op: op, Rows: 1}}
			}
			p.messages = append(p.messages, m)
		})
		p.commit = change.Message{
			XID: fmt.Sprint(b.xid), Position: change.Position(fmt.Sprintf("%X/%X", b.lsn>>32, uint32(b.lsn+48))), CommitTime: change.Time(b.time + 946_684_800_000_000),
		}
		txns = append(txns, p)
	}
	for i := range txns {
		last := txns[min(i/batch*batch+batch, n)-1].commit.CommitTime
		txns[i].commit.Received = last + 2000
	}
	return txns
}

func writePlanned(b *testing.B, w *Writer, txns []planned) (messages, raw int) {
	for i := range txns {
		check(b, w.Begin(change.TxnSource))
		for j := range txns[i].messages {
			m := &txns[i].messages[j]
			messages++
			raw += len(m.Raw)
			if err := w.Write(m); err != nil {
				b.Fatal(err)
			}
		}
		check(b, w.Commit(&txns[i].commit))
	}
	return messages, raw
}

// BenchmarkWriter writes one large transaction of 120-byte rows that differ.
func BenchmarkWriter(b *testing.B) {
	w, err := NewWriter(discard{}, testHeader)
	check(b, err)
	rnd := rand.New(rand.NewPCG(1, 2))
	rows := make([]change.Message, 50_000)
	row := newBank()
	for i := range rows {
		rows[i] = change.Message{
			Raw:  bytes.Clone(row.row('I', 16394, i, rnd.Uint32(), rnd.Uint64(), "a text that stays the same, and", rnd.Uint64(), true)),
			Defs: row.defs[:1], Touched: []change.Touch{{Table: row.tables[0], Op: change.OpInsert, Rows: 1}},
		}
	}
	check(b, w.Begin(change.TxnSource))
	b.SetBytes(int64(len(rows[0].Raw)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := w.Write(&rows[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(rows) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkPgbench compares compression levels and frame sizes on pgbench's
// transactions, in segments of 20,000 transactions.
func BenchmarkPgbench(b *testing.B) {
	txns := newBank().plan(20_000)
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression} {
		for _, target := range []int{256 << 10, 1 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", level, target>>10), func(b *testing.B) {
				w, err := NewWriter(discard{}, testHeader)
				check(b, err)
				w.target = target
				w.pipe.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(pipeDepth), zstd.WithEncoderLevel(level), zstd.WithWindowSize(target), zstd.WithEncoderCRC(false))
				check(b, err)
				var messages, raw, stored int
				for b.Loop() {
					check(b, w.Reset(discard{}, testHeader))
					m, r := writePlanned(b, w, txns)
					sum, err := w.Close("end")
					check(b, err)
					messages, raw, stored = messages+m, raw+r, stored+int(sum.Size)
				}
				b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
				b.ReportMetric(float64(stored)/float64(b.N)/float64(len(txns)), "B/txn")
				b.ReportMetric(float64(raw)/float64(stored), "ratio")
			})
		}
	}
}

// BenchmarkReader reads such a segment from front to back.
func BenchmarkReader(b *testing.B) {
	var out memory
	w, err := NewWriter(&out, testHeader)
	check(b, err)
	writePlanned(b, w, newBank().plan(20_000))
	_, err = w.Close("end")
	check(b, err)
	r, err := NewReader(bytes.NewReader(out.b))
	check(b, err)
	records := 0
	for b.Loop() {
		check(b, r.Reset(bytes.NewReader(out.b)))
		for {
			if _, err := r.Next(); err != nil {
				break
			}
			records++
		}
		if r.Index() == nil {
			b.Fatal("not read to its end")
		}
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkIndex decodes the index of such a segment, which every plan and every restore does.
func BenchmarkIndex(b *testing.B) {
	var out memory
	w, err := NewWriter(&out, testHeader)
	check(b, err)
	txns := newBank().plan(20_000)
	writePlanned(b, w, txns)
	_, err = w.Close("end")
	check(b, err)
	frames, err := NewFrameReader()
	check(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if t, _, err := frames.Tail(out.b, int64(len(out.b))); err != nil || t == nil {
			b.Fatal("not decoded: ", err)
		}
	}
	b.ReportMetric(float64(b.N*len(txns))/b.Elapsed().Seconds(), "transactions/s")
}
