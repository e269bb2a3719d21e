package archive

import (
	"os"
	"regexp"
	"testing"
)

// The examples of docs/format.md are whole objects: they decode, and this build
// writes the same bytes.
func TestSpecExamples(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []struct {
		key *regexp.Regexp
		v   any
	}{
		{regexp.MustCompile(`^archive\.json$`), &Identity{}},
		{regexp.MustCompile(`/epoch\.json$`), &Epoch{}},
		{regexp.MustCompile(`/gap\.json$`), &Gap{}},
		{regexp.MustCompile(`/manifest\.json$`), &Base{}},
		{regexp.MustCompile(`/marks/`), &Mark{}},
		{regexp.MustCompile(`/choices/`), &Choice{}},
		{regexp.MustCompile(`/protection/`), &Protection{}},
		{regexp.MustCompile(`/globals/`), &Globals{}},
		{regexp.MustCompile(`/pruned/`), &Pruned{}},
		{regexp.MustCompile(`^holds/`), &Hold{}},
		{regexp.MustCompile(`^pins/`), &Pin{}},
	}
	examples := regexp.MustCompile("(?s)```json (\\S+)\n(.*?)```").FindAllSubmatch(b, -1)
	found := 0
	for _, k := range kinds {
		for _, m := range examples {
			key := string(m[1])
			if !k.key.MatchString(key) {
				continue
			}
			found++
			if err := decodeJSON(key, m[2], k.v); err != nil {
				t.Error(err)
			}
			if again, err := encodeJSON(key, k.v); err != nil || string(again) != string(m[2]) {
				t.Errorf("%s: this build writes\n%s", key, again)
			}
		}
	}
	if found != len(kinds) || len(examples) != len(kinds) {
		t.Errorf("%d of %d examples match %d kinds", found, len(examples), len(kinds))
	}
}
