package charset

// big5 lays over p what the servers convert otherwise than others do: signs, and the
// rows that are not part of the standard.
func big5(p *pairs) {
	for code, text := range map[int]string{
		0xa145: "•", 0xa14e: "､", 0xa15a: " ", 0xa1c2: "‾ ", 0xa1c5: " ", 0xa1e3: "∼", 0xa1f2: "♁☉",
		0xa1fe: " ", 0xa240: " ／＼", 0xa244: "¥", 0xa246: "¢£", 0xa2cc: " ", 0xa2ce: " ",
		0xc6a1: "ヾゝゞ々ぁあぃいぅうぇえぉおかがきぎくぐけげこごさざしじすずせぜそぞただちぢっつづてでとどなに" +
			"ぬねのはばぱひびぴふぶぷへべぺほぼぽまみむめもゃやゅゆょよらりるれろゎわゐゑをんァアィイゥウェ",
		0xc740: "エォオカガキギクグケゲコゴサザシジスズセゼソゾタダチヂッツヅテデトドナニヌネノハバパヒビピフブプヘベペホボポマミムメモャヤュユ",
		0xc7a1: "ョヨラリルレロヮワヰヱヲンヴヵヶДЕЁЖЗИЙКЛМУФХЦЧШЩЪЫЬЭЮЯабвгдеё" +
			"жзийклмнопрстуфхцчшщъыьэюя①②③④⑤⑥⑦⑧⑨⑩⑴⑵⑶⑷⑸⑹⑺⑻⑼⑽",
	} {
		p.set(code, text)
	}
}

// eucjp lays over p what the servers' two sets of the family of EUC-JP have of their
// own: ujis some signs of JIS, eucjpms characters of IBM behind 0x8f, both more
// characters for private use.
func eucjp(p *pairs, name string) {
	for code, r := 0xf5a1, uint16(0xe3ac); code <= 0xfea1; code += 0x100 {
		for cell := range 94 {
			p.three[code+cell] = r
			r++
		}
	}
	if name == "ujis" {
		for code, text := range jis() {
			p.set(int(code)|0x8080, text)
		}
		p.three[0xa2b7] = '~'
		return
	}
	p.three[0xa2c3] = '￤'
	for i, r := range []rune("ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡ") {
		p.three[0xf3f3+i] = uint16(r)
	}
	for i, r := range []rune("ⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡炻仼僴凬匇匤﨎咊坙﨏塚增寬峵嵓﨑德悅愠敎昻晥晴朗栁﨓﨔橫櫢淸淲瀨凞猪" +
		"甁皂皞益礰礼神祥福竧靖精綠緖羽荢﨟薰蘒﨡蠇諸譿賴赶﨣﨤逸郞都鄕﨧﨨閒隆﨩霻靍靑飯飼館馞髙魲鶴黑") {
		p.three[0xf4a1+i] = uint16(r)
	}
}

// gb18030 lays over p the characters for private use, whole rows of them and the single
// places that the standard of 2000 left to them.
func gb18030(p *pairs) {
	p.set(0xa8bc, "ḿ")
	p.set(0xa8bf, "ǹ")
	p.private(0xaaa1, 0xafa1, 0xa1, 0xfe, 0xe000)
	p.private(0xf8a1, 0xfea1, 0xa1, 0xfe, 0xe234)
	p.private(0xa140, 0xa740, 0x40, 0xa0, 0xe4c6)
	for _, run := range [][3]uint16{ // from this code, this character, so many
		{0xa2ab, 0xe766, 6}, {0xa2e4, 0xe76d, 1}, {0xa2ef, 0xe76e, 2}, {0xa2fd, 0xe770, 2}, {0xa4f4, 0xe772, 11},
		{0xa5f7, 0xe77d, 8}, {0xa6b9, 0xe785, 8}, {0xa6d9, 0xe78d, 7}, {0xa6ec, 0xe794, 2}, {0xa6f3, 0xe796, 1},
		{0xa6f6, 0xe797, 9}, {0xa7c2, 0xe7a0, 15}, {0xa7f2, 0xe7af, 13}, {0xa896, 0xe7bc, 11}, {0xa8c1, 0xe7c9, 4},
		{0xa8ea, 0xe7cd, 21}, {0xa958, 0xe7e2, 1}, {0xa95b, 0xe7e3, 1}, {0xa95d, 0xe7e4, 3}, {0xa997, 0xe7f4, 13},
		{0xa9f0, 0xe801, 15}, {0xd7fa, 0xe810, 5}, {0xfe51, 0xe816, 3}, {0xfe59, 0xe81e, 1}, {0xfe61, 0xe826, 1},
		{0xfe66, 0xe82b, 2}, {0xfe6c, 0xe831, 2}, {0xfe76, 0xe83b, 1}, {0xfe7e, 0xe843, 1}, {0xfe90, 0xe854, 2},
		{0xfea0, 0xe864, 1},
	} {
		for i := range run[2] {
			p.two[run[0]+i] = run[1] + i
		}
	}
}
