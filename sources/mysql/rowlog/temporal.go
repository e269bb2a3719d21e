package rowlog

import (
	"txreel/sources/mysql/rowlog/sqltext"
)

// Offsets that make stored dates and times unsigned, so that their bytes sort.
const (
	timeOffset     = 0x800000
	datetimeOffset = 0x8000000000
	// hiresOffset is in seconds: one more than the largest TIME.
	hiresOffset = 838*3600 + 59*60 + 59 + 1
)

// temporal writes a date or time. It reports whether v is one that the server can have
// meant: the older formats do not say how many digits of a fraction they have, and a wrong
// guess shows here.
func (d *Decoder) temporal(c *column, v []byte) bool {
	switch c.kind {
	case kindDate:
		n := sqltext.Uint(v)
		d.text = sqltext.AppendDate(d.text, n>>9, n>>5&15, n&31)
	case kindTime:
		d.text = sqltext.AppendTime(d.text, packedTime(v), c.frac)
	case kindDatetime:
		packed := sqltext.BigUint(v[:5])
		if packed < datetimeOffset {
			return false
		}
		d.text = sqltext.AppendDatetime(d.text, packed-datetimeOffset, micros(v[5:]), c.frac)
	case kindTimestamp:
		d.text = sqltext.AppendUnix(d.text, sqltext.BigUint(v[:4]), micros(v[4:]), c.frac)
	case kindHiresTimestamp:
		d.text = sqltext.AppendUnix(d.text, sqltext.BigUint(v[:4]), sqltext.BigUint(v[4:])*uint64(pow10(6-c.frac)), c.frac)
	case kindOldTimestamp:
		d.text = sqltext.AppendUnix(d.text, sqltext.Uint(v), 0, 0)
	case kindOldTime:
		n := sqltext.Int(v)
		d.text = sqltext.AppendOldTime(d.text, n)
		n = max(n, -n)
		return n%100 < 60 && n/100%100 < 60 && n/10000 < 839
	case kindOldDatetime:
		n := sqltext.Uint(v)
		d.text = sqltext.AppendOldDatetime(d.text, n, 0, 0)
		return n%100 < 60 && n/100%100 < 60 && n/10000%100 < 24 && n/1000000%100 < 32 && n/100000000%100 < 13 && n < 1e14
	case kindHiresTime:
		d.hiresTime(int64(sqltext.BigUint(v)), c.frac)
	case kindHiresDatetime:
		d.hiresDatetime(sqltext.BigUint(v), c.frac)
	default:
		return false
	}
	return true
}

// micros reads the fraction of a second, of two digits a byte, in microseconds.
func micros(v []byte) uint64 {
	n := sqltext.BigUint(v)
	switch len(v) {
	case 1:
		return n * 10000
	case 2:
		return n * 100
	}
	return n
}

// packedTime reads a TIME into the form of sqltext.AppendTime. The fraction of a
// negative one counts up from the whole second below.
func packedTime(v []byte) int64 {
	whole := int64(sqltext.BigUint(v[:3])) - timeOffset
	fraction, unit := int64(sqltext.BigUint(v[3:])), int64(1)<<(8*(len(v)-3))
	if whole < 0 && fraction > 0 {
		whole++
		fraction -= unit
	}
	switch len(v) {
	case 4:
		fraction *= 10000
	case 5:
		fraction *= 100
	}
	return whole<<24 + fraction
}

func pow10(n int) (p int64) {
	for p = 1; n > 0; n-- {
		p *= 10
	}
	return p
}

// hiresSize returns the bytes that MariaDB's own TIME, and DATETIME, take by the digits of
// their fraction.
func hiresSize(k kind, digits int) int {
	if k == kindHiresTime {
		return [...]int{3, 4, 4, 5, 5, 5, 6}[digits]
	}
	return [...]int{5, 6, 6, 7, 7, 7, 8}[digits]
}

// hiresTime writes a TIME that counts the smallest units it can hold.
func (d *Decoder) hiresTime(n int64, digits int) {
	unit := pow10(digits)
	n -= hiresOffset * unit
	sign := int64(1)
	if n < 0 {
		sign, n = -1, -n
	}
	seconds, fraction := n/unit, n%unit*pow10(6-digits)
	packed := (seconds/3600<<12|seconds/60%60<<6|seconds%60)<<24 + fraction
	if sign < 0 && packed == 0 {
		sign = 1
	}
	d.text = sqltext.AppendTime(d.text, sign*packed, digits)
}

// hiresDatetime writes a DATETIME that counts the smallest units it can hold, as if all
// months had 32 days and all years 13 months.
func (d *Decoder) hiresDatetime(n uint64, digits int) {
	unit := uint64(pow10(digits))
	seconds, fraction := n/unit, n%unit*uint64(pow10(6-digits))
	days := seconds / 86400
	seconds %= 86400
	packed := days<<17 | seconds/3600<<12 | seconds/60%60<<6 | seconds%60
	d.text = sqltext.AppendDatetime(d.text, packed, fraction, digits)
}
