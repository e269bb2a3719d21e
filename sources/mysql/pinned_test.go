package mysql

import (
	"testing"

	"txreel/internal/dbtest"
)

// TestSessionsLimitNothing connects to servers that limit what sessions are shown and how long they may take.
func TestSessionsLimitNothing(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			limits := map[string]string{"sql_select_limit": "1", "sql_big_selects": "0", "max_execution_time": "1000"}
			want := map[string]string{"sql_select_limit": "18446744073709551615", "sql_big_selects": "1", "max_execution_time": "0"}
			if flavor == "mariadb" {
				for _, m := range []map[string]string{limits, want} {
					delete(m, "max_execution_time")
				}
				limits["max_statement_time"], want["max_statement_time"] = "1", "0.000000"
				for _, name := range []string{"idle_transaction_timeout", "idle_readonly_transaction_timeout", "idle_write_transaction_timeout"} {
					limits[name], want[name] = "1", "0"
				}
			}
			my := dbtest.My(t, flavor)
			for name, v := range limits {
				my.MustExec(t, "", "SET GLOBAL "+name+" = "+v)
			}
			c, err := Connect(t.Context(), my.URL(""))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for name, v := range want {
				row, err := c.QueryRow(t.Context(), "SELECT @@SESSION."+name)
				if err != nil || row[0].String() != v {
					t.Errorf("%s is %v, want %s: %v", name, row, v, err)
				}
			}
		})
	}
}
