package e2e

import (
	"fmt"
	"testing"
	"time"

	"txreel/internal/dbtest"
)

// TestMyHugeTransaction records one transaction that is larger than the memory allowed, and restores it. Some of its
// rows are larger than a packet of the protocol.
func TestMyHugeTransaction(t *testing.T) {
	t.Parallel()
	for _, flavor := range dbtest.Flavors() {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := newMySite(t, flavor, nil, "max_allowed_packet=1G")
			s.exec("create table huge (id int auto_increment primary key, note longblob)")
			capture := s.start("capture", "--heartbeat", "500ms")
			a := s.waitArchive()
			s.waitBases(a, 1, 1)

			conn, err := s.my.Session(t.Context(), "shop")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			// Random bytes, so that nothing becomes small on the way: a MiB of them, and then rows made of it.
			sql := "begin; set session group_concat_max_len = 2000000; set @chaff = (select group_concat(random_bytes(1000) separator '') from (with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000) select i from n) numbers);"
			for i := range times(200, 1200) {
				if i%100 == 50 { // 20 and 40 MB
					sql += fmt.Sprintf("insert into huge (note) values (repeat(@chaff, %d));", 20+i%40)
					continue
				}
				sql += fmt.Sprintf("insert into huge (note) select concat(%d, @chaff);", i)
			}
			if err := conn.Exec(t.Context(), sql+"commit"); err != nil {
				t.Fatal(err)
			}
			s.waitPast(a, s.here())
			peak := capture.peakRSS()
			t.Logf("the capture had %d MiB resident at most", peak>>20)
			if peak > memoryLimit {
				t.Errorf("the capture had %d MiB resident", peak>>20)
			}
			capture.signal(terminate)
			if code := capture.wait(time.Minute); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			target := s.target("max_allowed_packet=1G")
			s.hidden = append(s.hidden, target.Password())
			r := s.must("restore", "--target", target.URL(""))
			t.Logf("the restore had %d MiB resident at most", r.rss>>20)
			if r.rss > memoryLimit {
				t.Errorf("the restore had %d MiB resident", r.rss>>20)
			}
			equal(t, dumpOf(t, s.my), target)
		})
	}
}
