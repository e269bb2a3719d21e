package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"txreel/internal/dbtest"
)

type demoCmd struct {
	Seconds int    `default:"8" help:"How long the application writes before and after the accident, together."`
	Engine  string `enum:"all,postgres,mysql,mariadb" default:"all" help:"all (PostgreSQL, then MySQL), postgres, mysql or mariadb."`
}

// shop is the application's database in the demonstration: a live server of one engine,
// and throw-away servers to restore into.
type shop interface {
	name() string   // of the engine, for people
	source() string // URL of the live database
	secret() string // the variable that gives commands its password
	// payments is how `txreel log` names the table of payments.
	payments() string
	create(ctx context.Context) error // the tables, with their first rows
	// client opens a session that moves money between two accounts in one transaction.
	client(ctx context.Context) (pay func(from, to int) error, done func(), err error)
	exec(ctx context.Context, sql string) error
	// state returns what the database holds, and the server's time.
	state(ctx context.Context) (snapshot, string, error)
	fresh(ctx context.Context, name string) (*freshTarget, error)
	close() error
}

// freshTarget is an empty database, or server, to restore into.
type freshTarget struct {
	url, secret string
	read        func() (snapshot, error)
}

// snapshot is what a database held at a moment.
type snapshot interface {
	// differs says in words how other differs from it; "" means not at all.
	differs(other snapshot) string
}

// demo is one run of the demonstration: real servers, real commands, and a
// comparison at the end that decides the exit code.
type demo struct {
	*app
	shop    shop
	store   *dbtest.Gateway
	program string
	env     []string
	archive string

	commits atomic.Int64
	pause   sync.RWMutex // held for writing while nobody may commit
}

// Run implements the command.
func (c *demoCmd) Run(a *app) error {
	started := time.Now()
	engines := []string{c.Engine}
	if c.Engine == "all" {
		engines = []string{enginePostgres, engineMySQL}
	}
	for _, engine := range engines {
		if err := c.show(a, engine); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stdout, "\nDone in %s; everything the demo started is gone.\n", time.Since(started).Round(time.Second))
	return nil
}

// show tells the story for one engine.
func (c *demoCmd) show(a *app, engine string) (err error) {
	d := &demo{app: a}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(engine); err != nil {
		return err
	}
	return d.story(time.Duration(c.Seconds) * time.Second)
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.stdout, format+"\n", args...) }

func (d *demo) start(engine string) (err error) {
	if d.program, err = os.Executable(); err != nil {
		return err
	}
	if engine == enginePostgres {
		d.shop, err = newPostgresShop(d.ctx)
	} else {
		d.shop, err = newMySQLShop(d.ctx, engine)
	}
	if err != nil {
		return err
	}
	d.say("\nA throw-away %s with a shop in it, and an S3 gateway.", d.shop.name())
	if d.store, err = dbtest.StartGateway(d.ctx, ""); err != nil {
		return err
	}
	d.archive = d.store.ArchiveURL("shop")
	d.env = append(os.Environ(), d.store.Env()...)
	d.env = append(d.env, "TXREEL_ARCHIVE="+d.archive)
	return d.shop.create(d.ctx)
}

func (d *demo) close() error {
	var errs []error
	if d.shop != nil {
		errs = append(errs, d.shop.close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}

// txreel runs a command of this program, with the password in secret, and shows it and so
// many lines of its output.
func (d *demo) txreel(secret string, show int, args ...string) ([]byte, error) {
	d.say("\n$ txreel %s", strings.Join(args, " "))
	cmd := exec.CommandContext(d.ctx, d.program, args...)
	cmd.Env = append(d.env, secret)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	for i, line := range lines {
		if i == show {
			d.say("  … %d lines more", len(lines)-show)
			break
		}
		d.say("  %.160s", line)
	}
	if err != nil {
		return nil, fmt.Errorf("txreel %s: %w\n%s", args[0], err, errOut.String())
	}
	return out.Bytes(), nil
}

// story tells it from the first command to the comparison.
func (d *demo) story(writing time.Duration) error {
	if _, err := d.txreel(d.shop.secret(), 6, "setup", "--source", d.shop.source(), "--apply"); err != nil {
		return err
	}
	stop, err := d.capture()
	if err != nil {
		return err
	}
	defer stop()
	d.say("\nFour clients write; a base snapshot is taken meanwhile.")
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	clients := d.clients(ctx, 4)
	if err := d.wait(writing / 2); err != nil {
		return err
	}
	calm, calmAt, err := d.state()
	if err != nil {
		return err
	}
	rpo, err := d.measureRPO()
	if err != nil {
		return err
	}
	if err := d.wait(writing / 4); err != nil {
		return err
	}
	d.say("\nThe accident: DELETE FROM payment, with the wrong WHERE.")
	before, err := d.accident()
	if err != nil {
		return err
	}
	if err := d.wait(writing / 4); err != nil {
		return err
	}
	cancel()
	if err := clients(); err != nil {
		return err
	}
	if _, err := d.txreel(d.shop.secret(), 3, "mark", "end-of-demo", "--source", d.shop.source()); err != nil {
		return err
	}

	out, err := d.txreel(d.shop.secret(), 12, "log", "--table", d.shop.payments(), "--op", "delete", "--min-rows", "100", "--json")
	if err != nil {
		return err
	}
	var found struct {
		Seq string `json:"seq"`
		XID string `json:"xid"`
	}
	if err := json.Unmarshal(bytes.SplitN(out, []byte("\n"), 2)[0], &found); err != nil {
		return fmt.Errorf("find the accident in the log: %w", err)
	}
	rto, err := d.restore("before", before, 40, "--to-txn", found.XID, "--before")
	if err != nil {
		return err
	}
	if _, err := d.restore("moment", calm, 3, "--to-time", calmAt); err != nil {
		return err
	}
	if _, err := d.txreel(d.shop.secret(), 3, "audit", "export", "--from", found.Seq, "--to", found.Seq); err != nil {
		return err
	}
	if _, err := d.txreel(d.shop.secret(), 10, "verify", "--full"); err != nil {
		return err
	}
	if _, err := d.txreel(d.shop.secret(), 30, "status", "--source", d.shop.source()); err != nil {
		return err
	}
	d.say("\nBoth restored databases equal what the source held at those points, row for row.")
	d.say("  transactions the application committed   %d", d.commits.Load())
	d.say("  commit to durable, worst of five (RPO)   %s", rpo.Round(time.Millisecond))
	d.say("  restore to just before the accident (RTO) %s", rto.Round(time.Millisecond))
	return nil
}

// capture starts `txreel capture` and waits until it has its first base.
func (d *demo) capture() (stop func(), err error) {
	args := []string{"capture", "--source", d.shop.source(), "--log-format", "json"}
	d.say("\n$ txreel %s &", strings.Join(args, " "))
	cmd := exec.Command(d.program, args...)
	cmd.Env = append(d.env, d.shop.secret())
	var log lockedBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var exit error // set before exited is closed
	exited := make(chan struct{})
	go func() { // ends with the process, which stop ends
		defer close(exited)
		exit = cmd.Wait()
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	}
	for !strings.Contains(log.String(), `"base finished"`) {
		select {
		case <-exited:
			return nil, fmt.Errorf("capture ended: %w", errors.Join(exit, errors.New(log.String())))
		case <-d.ctx.Done():
			stop()
			return nil, d.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return stop, nil
}

// clients starts writers and returns what waits for them.
func (d *demo) clients(ctx context.Context, n int) (wait func() error) {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- d.client(ctx, i) }() // joined by wait
	}
	return func() error {
		var all []error
		for range n {
			all = append(all, <-errs)
		}
		return errors.Join(all...)
	}
}

// client moves money until ctx ends, and finishes the transaction it is in.
func (d *demo) client(ctx context.Context, seed int) error {
	pay, done, err := d.shop.client(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer done()
	for i := seed; ctx.Err() == nil; i++ {
		if err := d.commit(func() error { return pay(i*7%accounts+1, i*13%accounts+1) }); err != nil {
			return fmt.Errorf("demo client: %w", err)
		}
	}
	return nil
}

// accounts is how many customers the shop has.
const accounts = 5000

func (d *demo) commit(do func() error) error {
	d.pause.RLock()
	defer d.pause.RUnlock()
	err := do()
	if err == nil {
		d.commits.Add(1)
	}
	return err
}

// state holds the writers still and notes what the database holds, and when.
func (d *demo) state() (snapshot, string, error) {
	d.pause.Lock()
	defer d.pause.Unlock()
	return d.shop.state(d.ctx)
}

// accident deletes the wrong rows; what it returns is the state just before.
func (d *demo) accident() (snapshot, error) {
	d.pause.Lock()
	defer d.pause.Unlock()
	before, _, err := d.shop.state(d.ctx)
	if err != nil {
		return nil, err
	}
	d.commits.Add(1)
	return before, d.shop.exec(d.ctx, `delete from payment where id % 2 = 0 or note = 'out'`)
}

// measureRPO commits five marks and returns the longest time one took to be
// durable, the start of a process included.
func (d *demo) measureRPO() (worst time.Duration, err error) {
	for i := range 5 {
		cmd := exec.CommandContext(d.ctx, d.program, "mark", fmt.Sprintf("rpo-%d", i), "--source", d.shop.source())
		cmd.Env = append(d.env, d.shop.secret())
		begun := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("mark: %w: %s", err, out)
		}
		worst = max(worst, time.Since(begun))
	}
	return worst, nil
}

// restore restores into an empty target and compares.
func (d *demo) restore(name string, want snapshot, show int, point ...string) (time.Duration, error) {
	target, err := d.shop.fresh(d.ctx, name)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := d.txreel(target.secret, show, append([]string{"restore", "--target", target.url}, point...)...); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	got, err := target.read()
	if err != nil {
		return 0, err
	}
	if diff := want.differs(got); diff != "" {
		return 0, fmt.Errorf("the restored database differs from what the source held:\n%s", diff)
	}
	return took, nil
}

func (d *demo) wait(span time.Duration) error {
	select {
	case <-d.ctx.Done():
		return d.ctx.Err()
	case <-time.After(span):
		return nil
	}
}

// lockedBuffer is a buffer that one goroutine writes and another reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
