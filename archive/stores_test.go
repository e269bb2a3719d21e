package archive_test

import (
	"testing"

	"txreel/archive"
	"txreel/internal/dbtest"
	"txreel/sink/dir"
	"txreel/sink/s3"
)

func TestInDirectory(t *testing.T) {
	t.Parallel()
	st, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	archive.Life(t, st)
}

func TestInS3(t *testing.T) {
	t.Parallel()
	g := dbtest.S3(t)
	st, err := s3.Open(t.Context(), s3.Options{Bucket: g.Bucket, Prefix: "shop", Endpoint: g.URL, Region: g.Region,
		AccessKey: g.AccessKey, SecretKey: g.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	archive.Life(t, st)
}
