package mysql

import (
	"slices"
	"testing"
	"time"

	"txreel/archive"
	"txreel/internal/dbtest"
)

// TestBaseWithoutPerformanceSchema takes bases of a busy MySQL that shows nothing of what it does, and finds in the record
// that they are exact.
func TestBaseWithoutPerformanceSchema(t *testing.T) {
	t.Parallel()
	my := dbtest.MyWith(t, dbtest.MySQLOptions{Flavor: "mysql", Settings: map[string]string{"performance_schema": "OFF"}})
	a := baseArchive(t, my)
	beat, _ := recordServer(t, my, a)
	stop := writers(t, my, "blind", 2, 5*time.Millisecond)
	for range 2 {
		b, err := TakeBase(t.Context(), a, 1, BaseOptions{URL: my.URL("")})
		if err == nil {
			err = FinishBase(t.Context(), a, b, beat)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(b.Tables, func(x archive.BaseTable) bool { return x.Schema == "blind" && x.Rows == 1 }) {
			t.Errorf("tables: %+v", b.Tables)
		}
	}
	stop()
}
