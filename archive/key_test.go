package archive

import "testing"

func TestKindOf(t *testing.T) {
	b := &Base{ID: "20260101T000000Z-00000000", Epoch: 7}
	for key, want := range map[string]KeyKind{
		identityKey:             KeyFree,
		epochJSON(7):            KeyOther,
		gapJSON(7):              KeyOther,
		markKey(7, "segments"):  KeyOther,
		SegmentKey(7, 1):        KeySegment,
		rollupKey(7, 1, 1, 32):  KeyRollup,
		b.Key(manifestName):     KeyOther,
		b.Key("schema.sql.zst"): KeyFree,
		b.Key("tables/1.zst"):   KeyFree,
		"probe":                 KeyOther,
		"epochs":                KeyOther,
		"epochs/segments":       KeyOther,
		"other/00000001/segments/0000000000000001.seg": KeyOther,
	} {
		if got := KindOf(key); got != want {
			t.Errorf("KindOf(%s) = %d, want %d", key, got, want)
		}
		end := ""
		if want == KeySegment || want == KeyRollup {
			end = gapJSON(7)
		}
		if got := EndKey(key); got != end {
			t.Errorf("EndKey(%s) = %q, want %q", key, got, end)
		}
	}
}
