package dbtest

import (
	"strings"
	"testing"
)

func TestMySQLStarts(t *testing.T) {
	t.Parallel()
	for _, flavor := range Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			m := My(t, flavor, "binlog_row_image=MINIMAL")
			got := m.MustQuery(t, "", "SELECT @@binlog_row_image, @@log_bin; SELECT NULL")
			if got[0][0] != "MINIMAL" || got[0][1] != "1" || got[1][0] != Null {
				t.Errorf("settings: %q", got)
			}
			if m.Flavor != flavor || strings.Contains(m.Version, "MariaDB") != (flavor == "mariadb") {
				t.Errorf("a %s of version %s", m.Flavor, m.Version)
			}
		})
	}
}
