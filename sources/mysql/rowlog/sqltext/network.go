package sqltext

import (
	"encoding/hex"
	"strconv"
)

// AppendUUID appends a UUID.
func AppendUUID(dst []byte, v [16]byte) []byte {
	for i, at := range [...]int{0, 4, 6, 8, 10} {
		if i > 0 {
			dst = append(dst, '-')
		}
		end := [...]int{4, 6, 8, 10, 16}[i]
		dst = hex.AppendEncode(dst, v[at:end])
	}
	return dst
}

// AppendInet4 appends four bytes of an IPv4 address.
func AppendInet4(dst, v []byte) []byte {
	for i, b := range v {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return dst
}

// AppendInet6 appends an IPv6 address as MariaDB prints it: the first of the longest runs
// of zeros, even of one, is "::", and an address of IPv4 behind ::ffff or :: has dots.
func AppendInet6(dst []byte, v [16]byte) []byte {
	var words [8]uint64
	for i := range words {
		words[i] = BigUint(v[2*i : 2*i+2])
	}
	gap, length := -1, 0
	for i := 0; i < 8; i++ {
		j := i
		for j < 8 && words[j] == 0 {
			j++
		}
		if j-i > length {
			gap, length = i, j-i
		}
		i = max(i, j-1)
	}
	for i := 0; i < 8; i++ {
		if i == gap {
			dst = append(dst, ':')
			if i == 0 {
				dst = append(dst, ':')
			}
			i += length - 1
			if i == 7 {
				break
			}
			continue
		}
		if i == 6 && gap == 0 && (length == 6 || length == 5 && words[5] == 0xffff) {
			return AppendInet4(dst, v[12:])
		}
		dst = strconv.AppendUint(dst, words[i], 16)
		if i < 7 {
			dst = append(dst, ':')
		}
	}
	return dst
}
