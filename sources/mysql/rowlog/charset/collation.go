package charset

// Of returns the name of the character set that a collation belongs to by the number
// both servers give it: "binary" for bytes, "" for a number that neither has.
//
// Source: information_schema.COLLATIONS of MySQL 9.7 and
// COLLATION_CHARACTER_SET_APPLICABILITY of MariaDB 10.11 and 11.8, where a collation without
// padding has 1024 more than the one with it.
func Of(collation uint64) string {
	if collation > 1024 && collation < 2048 {
		collation -= 1024
	}
	switch c := collation; {
	case c >= 2048:
		return uca1400(c)
	case c >= 101 && c <= 124, c >= 672 && c <= 674:
		return "utf16"
	case c >= 128 && c <= 151, c >= 640 && c <= 642:
		return "ucs2"
	case c >= 160 && c <= 183, c >= 736 && c <= 738:
		return "utf32"
	case c >= 192 && c <= 215, c >= 576 && c <= 579:
		return "utf8mb3"
	case c >= 224 && c <= 247, c >= 255 && c <= 323, c >= 608 && c <= 611:
		return "utf8mb4"
	}
	return low(collation)
}

// uca1400 tells apart MariaDB's collations from 10.10 on.
func uca1400(collation uint64) string {
	switch (collation - 2048) / 256 {
	case 0:
		return "utf8mb3"
	case 1:
		return "utf8mb4"
	case 2:
		return "ucs2"
	case 3:
		return "utf16"
	case 4:
		return "utf32"
	}
	return ""
}

// low tells apart the collations whose numbers have no order.
func low(collation uint64) string {
	switch collation {
	case 32, 64:
		return "armscii8"
	case 11, 65:
		return "ascii"
	case 1, 84:
		return "big5"
	case 63:
		return "binary"
	case 26, 34, 44, 66, 99:
		return "cp1250"
	case 14, 23, 50, 51, 52:
		return "cp1251"
	case 57, 67:
		return "cp1256"
	case 29, 58, 59:
		return "cp1257"
	case 4, 80:
		return "cp850"
	case 40, 81:
		return "cp852"
	case 36, 68:
		return "cp866"
	case 95, 96:
		return "cp932"
	case 3, 69:
		return "dec8"
	case 97, 98:
		return "eucjpms"
	case 19, 85:
		return "euckr"
	case 248, 249, 250:
		return "gb18030"
	case 24, 86:
		return "gb2312"
	case 28, 87:
		return "gbk"
	case 92, 93:
		return "geostd8"
	case 25, 70:
		return "greek"
	case 16, 71:
		return "hebrew"
	case 6, 72:
		return "hp8"
	case 37, 73:
		return "keybcs2"
	case 7, 74:
		return "koi8r"
	case 22, 75:
		return "koi8u"
	case 5, 8, 15, 31, 47, 48, 49, 94:
		return "latin1"
	case 2, 9, 21, 27, 77:
		return "latin2"
	case 30, 78:
		return "latin5"
	case 20, 41, 42, 79:
		return "latin7"
	case 38, 43:
		return "macce"
	case 39, 53:
		return "macroman"
	case 13, 88:
		return "sjis"
	case 10, 82:
		return "swe7"
	case 18, 89:
		return "tis620"
	case 35, 90, 159:
		return "ucs2"
	case 12, 91:
		return "ujis"
	case 54, 55:
		return "utf16"
	case 56, 62:
		return "utf16le"
	case 60, 61:
		return "utf32"
	case 33, 76, 83, 223:
		return "utf8mb3"
	case 45, 46:
		return "utf8mb4"
	}
	return ""
}
