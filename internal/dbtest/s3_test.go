package dbtest

import (
	"net/http"
	"os"
	"testing"
	"time"
)

func TestGatewayLife(t *testing.T) {
	g := S3(t)
	answers := func() bool {
		client := http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(g.URL)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	}
	if !answers() {
		t.Fatal("a gateway that is ready does not answer")
	}
	if err := g.Pause(); err != nil || answers() {
		t.Fatalf("a paused gateway answers, or: %v", err)
	}
	if err := g.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := poll(t.Context(), "the gateway to go on", func() (bool, error) { return answers(), nil }); err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(); err != nil || answers() {
		t.Fatalf("a stopped gateway answers, or: %v", err)
	}
	if err := g.Start(t.Context()); err != nil || !answers() {
		t.Fatalf("a gateway started again does not answer, or: %v", err)
	}
	if err := g.Pause(); err != nil { // also a paused one can be closed
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.dir); !os.IsNotExist(err) {
		t.Errorf("the gateway's directory stayed: %v", err)
	}
}
