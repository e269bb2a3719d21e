package mysql

import (
	"fmt"
	"strings"
	"testing"

	"txreel/change"
	"txreel/restore"
	"txreel/sources/mysql/gtid"
)

const (
	ua = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	ub = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
)

func TestXID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flavor  gtid.Flavor
		typed   string
		xid     string
		want    restore.XIDMatch
		refused bool
	}{
		{gtid.MySQL, ua + ":23", ua + ":23", restore.ExactMatch, false},
		{gtid.MySQL, " " + strings.ToUpper(ua) + ":23\n", ua + ":23", restore.ExactMatch, false},
		{gtid.MySQL, ua + ":23", ua + ":2", restore.NoMatch, false},
		{gtid.MySQL, ua + ":23", ua + ":tag:23", restore.NoMatch, false},
		{gtid.MySQL, ua + ":Tag:23", ua + ":tag:23", restore.ExactMatch, false},
		{gtid.MySQL, "23", ua + ":23", restore.ShortMatch, false},
		{gtid.MySQL, "23", ua + ":tag:23", restore.ShortMatch, false},
		{gtid.MySQL, "23", ua + ":123", restore.NoMatch, false},
		{gtid.MySQL, "0", "", restore.NoMatch, true},
		{gtid.MySQL, "0-1-42", "", restore.NoMatch, true},
		{gtid.MySQL, ua + ":1-5", "", restore.NoMatch, true},
		{gtid.MySQL, "", "", restore.NoMatch, true},
		{gtid.MariaDB, "0-1-42", "0-1-42", restore.ExactMatch, false},
		{gtid.MariaDB, "0-1-42", "0-1-4", restore.NoMatch, false},
		{gtid.MariaDB, "42", "0-1-42", restore.ShortMatch, false},
		{gtid.MariaDB, "42", "0-1-142", restore.NoMatch, false},
		{gtid.MariaDB, ua + ":23", "", restore.NoMatch, true},
	} {
		match, err := Dialect{c.flavor}.XID(c.typed)
		if (err != nil) != c.refused {
			t.Errorf("%s %q: %v", c.flavor, c.typed, err)
		} else if err == nil && match(c.xid) != c.want {
			t.Errorf("%s %q with %q: %d, want %d", c.flavor, c.typed, c.xid, match(c.xid), c.want)
		}
	}
}

// txn makes a transaction of a record: its Seq, and "gtid position", or "" for a heartbeat.
func txns(lines ...string) []change.Txn {
	var out []change.Txn
	for i, line := range lines {
		t := change.Txn{Seq: change.Seq(i + 1), Kind: change.TxnHeartbeat}
		if xid, pos, ok := strings.Cut(line, " "); ok {
			t.Kind, t.XID, t.Position = change.TxnSource, xid, change.Position(pos)
		}
		out = append(out, t)
	}
	return out
}

func TestPosition(t *testing.T) {
	t.Parallel()
	one := txns("", ua+":5 b.000001:100", ua+":6 b.000001:200", ub+":1 b.000001:250", "", ua+":7 b.000002:200", ub+":2 b.000002:300", "")
	again := txns(ua+":5 b.000001:100", ub+":1 b.000002:100", ua+":6 b.000001:90")
	regrown := txns(ua+":5 b.000001:100", ub+":1 b.000001:90")
	maria := txns("0-1-5 b.000001:100", "1-1-3 b.000001:200", "0-2-6 b.000002:100", "1-1-9 b.000002:200", "")
	my, ma := gtid.MySQL, gtid.MariaDB
	for i, c := range []struct {
		flavor  gtid.Flavor
		record  []change.Txn
		base    string // where the record begins
		end     string
		typed   string
		before  bool
		cut     string // "-": none of those seen; otherwise a Seq, or what an error says
		refused string // at once: not covered, or before the base
	}{
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-6", false, "3", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-6", true, "2", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-6," + ub + ":1", false, "5", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-6," + ub + ":1", true, "3", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-7," + ub + ":1-2", false, "8", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-4", false, "1", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-4", true, "1", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-7", false, ub + ":1 (0000000000000004), which", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":1-8", false, "", "covered"},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", ua + ":5-6", false, "", "base"},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000001:200", false, "3", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000001:200", true, "2", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000001:249", true, "3", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000001:9999", false, "4", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000002:4", false, "5", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000002:300", false, "7", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000002:301", false, "complete up to b.000002:300", ""},
		{my, one, ua + ":1-4", ua + ":1-7," + ub + ":1-2", "b.000003:4", false, "from b.000001:100 to b.000002:300", ""},
		{my, again, ua + ":1-4", ua + ":1-6," + ub + ":1", "b.000001:100", false, "more than one file", ""},
		{my, again, ua + ":1-4", ua + ":1-6," + ub + ":1", "b.000002:100", false, "2", ""},
		{my, regrown, ua + ":1-4", ua + ":1-5," + ub + ":1", "b.000001:95", false, "more than one file", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-1-5,1-1-3", false, "2", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-1-5,1-1-3", true, "1", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-2-6,1-1-3", false, "3", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-1-5,1-1-5", false, "2", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-2-6,1-1-9", false, "5", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-2-6,1-1-2", false, "1-1-3 (0000000000000002), which", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-7-6,1-1-3", false, "holds 0-2-6 where", ""},
		{ma, maria, "0-1-4,1-1-2", "0-2-6,1-1-9", "0-1-5", false, "", "base"},
	} {
		f, err := Dialect{c.flavor}.Position(c.typed, c.before)
		if err != nil {
			t.Errorf("%d %q: %v", i, c.typed, err)
			continue
		}
		refused := ""
		if ok, err := f.Covered(change.Position(c.end)); err != nil || !ok {
			refused = "covered"
		} else if ok, err := f.From(change.Position(c.base)); err != nil || !ok {
			refused = "base"
		}
		if refused != c.refused {
			t.Errorf("%d %q: refused %q, want %q", i, c.typed, refused, c.refused)
		}
		if refused != "" {
			continue
		}
		for k := range c.record {
			more, err := f.Look(&c.record[k])
			if err != nil {
				t.Errorf("%d %q: %v", i, c.typed, err)
			}
			if !more {
				break
			}
		}
		cut, ok, err := f.Cut()
		got := "-"
		switch {
		case err != nil:
			got = err.Error()
		case ok:
			got = fmt.Sprint(uint64(cut))
		}
		if err == nil && got != c.cut || err != nil && (c.cut == "" || len(c.cut) < 3 || !strings.Contains(got, c.cut)) {
			t.Errorf("%d %q, before %t: cut %s, want %s", i, c.typed, c.before, got, c.cut)
		}
	}
	for _, bad := range []string{"", ",", "nonsense", "b.000001", "b.01:5", "0-1-5:7", ".000001:4", "b.000001:-4"} {
		if _, err := (Dialect{my}).Position(bad, false); err == nil {
			t.Errorf("position %q was accepted", bad)
		}
	}
}

func TestEventStatements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1":                                                                    "CREATE . e ",
		"CREATE DEFINER=`root`@`localhost` EVENT `a``b`.`E 1` ON SCHEDULE AT NOW() DISABLE DO SET @x=1":                         "CREATE a`b . E 1 DISABLED",
		"create or replace definer = current_user() event if not exists e on schedule every 1 day disable on slave do select 1": "CREATE . e SLAVESIDE_DISABLED unless",
		"CREATE DEFINER='a'@'%' EVENT e ON SCHEDULE EVERY 1 DAY ENABLE COMMENT 'DISABLE ''it'' \\' DO' DO DROP EVENT x":         "CREATE . e ENABLED",
		"/* c */ ALTER -- x\n EVENT /*!50106 d.e */ DISABLE ON REPLICA":                                                         "ALTER d . e SLAVESIDE_DISABLED",
		"/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`b`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1*/":         "CREATE . e DISABLED",
		"ALTER EVENT e RENAME TO d2.`f g` ENABLE":                                                                               "ALTER . e ENABLED to d2.f g",
		"DROP EVENT IF EXISTS d.e":          "DROP d . e ",
		"drop database if exists `d`":       "DROP DATABASE d .  ",
		"DROP SCHEMA d":                     "DROP DATABASE d .  ",
		"CREATE TABLE event (disable INT)":  "",
		"CREATE PROCEDURE p() DROP EVENT e": "",
		"CREATE DEFINER=`event`@`x` TRIGGER event AFTER INSERT ON t FOR EACH ROW SET @event=1": "",
		"DROP TABLE event":                    "",
		"ALTER EVENT":                         "",
		"CREATE EVENT `open":                  "CREATE . open ",
		"DROP DATABASE":                       "",
		"UPDATE event SET x='CREATE EVENT e'": "",
	} {
		s, ok := parseEventStatement([]byte(text))
		got := ""
		if ok {
			got = strings.TrimLeft(s.verb+" "+s.schema, " ")
			got = strings.TrimSpace(got) + " . " + s.name + " " + s.state
			if s.unless {
				got += " unless"
			}
			if s.toName != "" {
				got += " to " + s.toSchema + "." + s.toName
			}
		}
		if got != want {
			t.Errorf("%s:\n got %q\nwant %q", text, got, want)
		}
	}
}
