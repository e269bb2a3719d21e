package sqltext

// AppendDate appends YYYY-MM-DD, zeros as they are.
func AppendDate(dst []byte, year, month, day uint64) []byte {
	dst = pad(dst, year, 4)
	dst = pad(append(dst, '-'), month, 2)
	return pad(append(dst, '-'), day, 2)
}

// appendClock appends HH:MM:SS with as many digits of a fraction in microseconds as asked
// for.
func appendClock(dst []byte, hour, minute, second, micros uint64, digits int) []byte {
	dst = pad(dst, hour, 2)
	dst = pad(append(dst, ':'), minute, 2)
	dst = pad(append(dst, ':'), second, 2)
	if digits > 0 && digits <= 6 {
		for range 6 - digits {
			micros /= 10
		}
		dst = pad(append(dst, '.'), micros, digits)
	}
	return dst
}

// pad appends v with at least n digits.
func pad(dst []byte, v uint64, n int) []byte {
	var b [20]byte
	i := len(b)
	for v > 0 || n > 0 {
		i--
		b[i] = '0' + byte(v%10)
		v /= 10
		n--
	}
	return append(dst, b[i:]...)
}

// AppendUnix appends seconds and microseconds since 1970 as a date and time in UTC: zero
// seconds without a fraction are the servers' zero date.
func AppendUnix(dst []byte, seconds, micros uint64, digits int) []byte {
	if seconds == 0 && micros == 0 {
		return appendClock(append(AppendDate(dst, 0, 0, 0), ' '), 0, 0, 0, 0, digits)
	}
	days, rest := seconds/86400, seconds%86400
	year, month, day := civil(days)
	return appendClock(append(AppendDate(dst, year, month, day), ' '), rest/3600, rest/60%60, rest%60, micros, digits)
}

// civil converts days since 1970 to a date of the Gregorian calendar, counting in years
// that begin in March and so end with the day that only some of them have.
func civil(days uint64) (year, month, day uint64) {
	days += 719468 // since 0000-03-01
	era, d := days/146097, days%146097
	y := (d - d/1460 + d/36524 - d/146096) / 365
	d -= 365*y + y/4 - y/100
	m := (5*d + 2) / 153
	year, month, day = era*400+y, m+3, d-(153*m+2)/5+1
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

// AppendDatetime appends what DATETIME stores since MySQL 5.6: from the top a sign, year
// times 13 plus month, day, hour, minute and second, with microseconds beside it.
func AppendDatetime(dst []byte, packed, micros uint64, digits int) []byte {
	days := packed >> 17
	dst = AppendDate(dst, days>>5/13, days>>5%13, days&31)
	return appendClock(append(dst, ' '), packed>>12&31, packed>>6&63, packed&63, micros, digits)
}

// AppendTime appends what TIME stores since MySQL 5.6: a count in which hour, minute and
// second have ten, six and six bits and the fraction, in microseconds, 24. It is negative as
// a whole.
func AppendTime(dst []byte, packed int64, digits int) []byte {
	if packed < 0 {
		packed = -packed
		dst = append(dst, '-')
	}
	v := uint64(packed)
	return appendClock(dst, v>>36&1023, v>>30&63, v>>24&63, v&0xffffff, digits)
}

// AppendOldDatetime appends what DATETIME stored before: the digits of YYYYMMDDhhmmss as
// one number.
func AppendOldDatetime(dst []byte, v, micros uint64, digits int) []byte {
	date, clock := v/1000000, v%1000000
	dst = AppendDate(dst, date/10000, date/100%100, date%100)
	return appendClock(append(dst, ' '), clock/10000, clock/100%100, clock%100, micros, digits)
}

// AppendOldTime appends what TIME stored before: the digits of hhhmmss as one number.
func AppendOldTime(dst []byte, v int64) []byte {
	if v < 0 {
		v = -v
		dst = append(dst, '-')
	}
	n := uint64(v)
	return appendClock(dst, n/10000, n/100%100, n%100, 0, 0)
}

// AppendYear appends a YEAR, which counts from 1900; zero is 0000.
func AppendYear(dst []byte, v byte) []byte {
	if v == 0 {
		return append(dst, "0000"...)
	}
	return pad(dst, 1900+uint64(v), 4)
}
