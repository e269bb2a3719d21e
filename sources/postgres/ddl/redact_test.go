package ddl

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for _, text := range []string{
		`CREATE ROLE x PASSWORD 'geheim'; CREATE TABLE t ()`,
		`create user x encrypted password E'ge\'geheim'`,
		`ALTER ROLE x WITH PASSWORD $$geheim$$`,
		`ALTER ROLE x PASSWORD $q$geheim$q$ LOGIN`,
		`CREATE USER MAPPING FOR x SERVER s OPTIONS (user 'u', password 'geheim')`,
		`CREATE USER MAPPING FOR x SERVER s OPTIONS (ADD "sslpassword" 'it''s geheim')`,
		`CREATE SUBSCRIPTION s CONNECTION 'host=h password=geheim' PUBLICATION p`,
		`ALTER SUBSCRIPTION s
		   connection  'host=h password=geheim'`,
		`SET app.secret_token TO 'geheim'; CREATE TABLE t ()`,
		`SET app.api_key = 'geheim'`,
	} {
		if got := string(Redact([]byte(text))); strings.Contains(got, "geheim") || !strings.Contains(got, "<redacted>") {
			t.Errorf("%s\nbecomes %s", text, got)
		}
	}
	for _, text := range []string{
		`CREATE TABLE users (password text DEFAULT '', name text DEFAULT 'x')`, `COMMENT ON TABLE t IS 'no password here'`,
	} {
		if got := string(Redact([]byte(text))); got != text {
			t.Errorf("%s\nbecomes %s", text, got)
		}
	}
}
