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

	"github.com/jackc/pgx/v5"

	"txreel/internal/dbtest"
)

type demoCmd struct {
	Seconds int `default:"8" help:"How long the application writes before and after the accident, together."`
}

// demo is one run of the demonstration: real servers, real commands, and a
// comparison at the end that decides the exit code.
type demo struct {
	*app
	source, target *dbtest.Postgres
	store          *dbtest.Gateway
	program        string
	env            []string
	url            string // of the source
	archive        string

	commits atomic.Int64
	pause   sync.RWMutex // held for writing while nobody may commit
}

// Run implements the command.
func (c *demoCmd) Run(a *app) (err error) {
	d := &demo{app: a}
	started := time.Now()
	defer func() { err = errors.Join(err, d.close()) }()
	d.say("Starting a throw-away PostgreSQL, an empty second one, and an S3 gateway …")
	if err := d.start(); err != nil {
		return err
	}
	if err := d.story(time.Duration(c.Seconds) * time.Second); err != nil {
		return err
	}
	d.say("\nDone in %s; everything the demo started is gone.", time.Since(started).Round(time.Second))
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.stdout, format+"\n", args...) }

func (d *demo) start() (err error) {
	if d.program, err = os.Executable(); err != nil {
		return err
	}
	if d.source, err = dbtest.StartPostgres(d.ctx, dbtest.PostgresOptions{Durable: true}); err != nil {
		return err
	}
	if d.target, err = dbtest.StartPostgres(d.ctx, dbtest.PostgresOptions{}); err != nil {
		return err
	}
	if d.store, err = dbtest.StartGateway(d.ctx, ""); err != nil {
		return err
	}
	if _, err := d.source.CreateDB(d.ctx, "shop"); err != nil {
		return err
	}
	d.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/shop", d.source.Port)
	d.archive = d.store.ArchiveURL("shop")
	d.env = append(os.Environ(), d.store.Env()...)
	d.env = append(d.env, "TXREEL_ARCHIVE="+d.archive)
	return d.source.Exec(d.ctx, "shop", `
		create table account (id int primary key, owner text not null, balance numeric(12,2) not null);
		insert into account select i, 'customer ' || i, 1000 from generate_series(1, 5000) i;
		create table payment (id bigint generated always as identity primary key, account int not null references account,
			amount numeric(12,2) not null, note text, at timestamptz not null default clock_timestamp());
		create index payment_account on payment (account);`)
}

func (d *demo) close() error {
	var errs []error
	if d.source != nil {
		errs = append(errs, d.source.Close())
	}
	if d.target != nil {
		errs = append(errs, d.target.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}

// txreel runs a command of this program and shows it; password is that of the
// server it talks to.
func (d *demo) txreel(password string, show int, args ...string) ([]byte, error) {
	d.say("\n$ txreel %s", strings.Join(args, " "))
	cmd := exec.CommandContext(d.ctx, d.program, args...)
	cmd.Env = append(d.env, "PGPASSWORD="+password)
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
	password := d.source.Password()
	if _, err := d.txreel(password, 6, "setup", "--source", d.url, "--apply"); err != nil {
		return err
	}
	stop, err := d.capture(password)
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
	if _, err := d.txreel(password, 3, "mark", "end-of-demo", "--source", d.url); err != nil {
		return err
	}

	out, err := d.txreel(password, 12, "log", "--table", "public.payment", "--op", "delete", "--min-rows", "100", "--json")
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
	if _, err := d.txreel(password, 3, "audit", "export", "--from", found.Seq, "--to", found.Seq); err != nil {
		return err
	}
	if _, err := d.txreel(password, 10, "verify", "--full"); err != nil {
		return err
	}
	if _, err := d.txreel(password, 30, "status", "--source", d.url); err != nil {
		return err
	}
	d.say("\nBoth restored databases equal what the source held at those points, row for row.")
	d.say("  transactions the application committed   %d", d.commits.Load())
	d.say("  commit to durable, worst of five (RPO)   %s", rpo.Round(time.Millisecond))
	d.say("  restore to just before the accident (RTO) %s", rto.Round(time.Millisecond))
	return nil
}

// capture starts `txreel capture` and waits until it has its first base.
func (d *demo) capture(password string) (stop func(), err error) {
	args := []string{"capture", "--source", d.url, "--log-format", "json"}
	d.say("\n$ txreel %s &", strings.Join(args, " "))
	cmd := exec.Command(d.program, args...)
	cmd.Env = append(d.env, "PGPASSWORD="+password)
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
	conn, err := d.source.Conn(context.WithoutCancel(ctx), "shop")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for i := seed; ctx.Err() == nil; i++ {
		from, to := i*7%5000+1, i*13%5000+1
		err := d.commit(func() error {
			return pgx.BeginFunc(context.WithoutCancel(ctx), conn, func(tx pgx.Tx) error {
				// Always in the same order, so that clients never deadlock.
				_, err := tx.Exec(context.WithoutCancel(ctx), `update account set balance = balance + case id when $1 then -1 else 1 end
					where id in (select id from account where id in ($1, $2) order by id for update)`, from, to)
				if err == nil {
					_, err = tx.Exec(context.WithoutCancel(ctx), `insert into payment (account, amount, note) values ($1, -1, 'out'), ($2, 1, 'in')`, from, to)
				}
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("demo client: %w", err)
		}
	}
	return nil
}

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
func (d *demo) state() (map[string]dbtest.TableDump, string, error) {
	d.pause.Lock()
	defer d.pause.Unlock()
	rows, err := d.source.Query(d.ctx, "shop", `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`)
	if err != nil {
		return nil, "", err
	}
	dump, err := dbtest.Dump(d.ctx, d.source.URL("shop"))
	return dump, rows[0][0], err
}

// accident deletes the wrong rows; what it returns is the state just before.
func (d *demo) accident() (map[string]dbtest.TableDump, error) {
	d.pause.Lock()
	defer d.pause.Unlock()
	dump, err := dbtest.Dump(d.ctx, d.source.URL("shop"))
	if err != nil {
		return nil, err
	}
	d.commits.Add(1)
	return dump, d.source.Exec(d.ctx, "shop", `delete from payment where id % 2 = 0 or note = 'out'`)
}

// measureRPO commits five marks and returns the longest time one took to be
// durable, the start of a process included.
func (d *demo) measureRPO() (worst time.Duration, err error) {
	for i := range 5 {
		cmd := exec.CommandContext(d.ctx, d.program, "mark", fmt.Sprintf("rpo-%d", i), "--source", d.url)
		cmd.Env = append(d.env, "PGPASSWORD="+d.source.Password())
		begun := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("mark: %w: %s", err, out)
		}
		worst = max(worst, time.Since(begun))
	}
	return worst, nil
}

// restore restores into a new database of the second server and compares.
func (d *demo) restore(db string, want map[string]dbtest.TableDump, show int, point ...string) (time.Duration, error) {
	if _, err := d.target.CreateDB(d.ctx, db); err != nil {
		return 0, err
	}
	args := append([]string{"restore", "--target", fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s", d.target.Port, db)}, point...)
	begun := time.Now()
	if _, err := d.txreel(d.target.Password(), show, args...); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	got, err := dbtest.Dump(d.ctx, d.target.URL(db))
	if err != nil {
		return 0, err
	}
	if diff := dbtest.Diff(want, got); diff != "" {
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
