// Command bench measures txreel against named peers on one machine in one run, and
// prints a table. The figures that count are ratios and medians: machines differ, and
// shared ones differ from minute to minute, so the machine's load stands beside each.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	b := &bench{}
	engine := flag.String("engine", "all", "what to measure: all, postgres, mysql or mariadb")
	steps := flag.String("steps", "base,catchup,live,replay,points,history,partial,beside", "which measurements to take, of those that an engine has; dump is base without loading it, live, history, partial and beside are PostgreSQL's, base is MySQL's and MariaDB's")
	flag.StringVar(&b.workload, "workload", "", "the workload of points to measure: hot, altered, tpcb or bulk of PostgreSQL, hot or sysbench of the others; all of them if it is empty")
	flag.StringVar(&b.program, "txreel", "bin/txreel", "the program to measure")
	flag.IntVar(&b.runs, "runs", 3, "times each measurement is repeated")
	flag.Float64Var(&b.calm, "calm", 4, "the load of the machine above which a measurement waits")
	flag.DurationVar(&b.patience, "patience", 5*time.Minute, "how long it waits for that in all")
	flag.IntVar(&b.rows, "rows", 1_000_000, "PostgreSQL: inserted rows of the backlog")
	flag.IntVar(&b.txns, "transactions", 50_000, "transactions of the replay; PostgreSQL: also of the backlog and of the archive's size")
	flag.IntVar(&b.small, "small", 200_000, "MySQL and MariaDB: transactions of one row in the backlog")
	flag.IntVar(&b.tens, "tens", 40_000, "MySQL and MariaDB: transactions of ten rows in the backlog")
	flag.IntVar(&b.bulk, "bulk", 2_000_000, "MySQL and MariaDB: rows of the backlog that INSERT ... SELECT made")
	flag.IntVar(&b.tableRows, "table-rows", 250_000, "MySQL and MariaDB: rows of each of sysbench's four tables")
	flag.StringVar(&b.dir, "dir", "", "where archives lie, such as on another disk than that of the servers (default: the system's temporary folder, as theirs)")
	restoring := flag.String("restore-flags", "", "PostgreSQL: more flags for txreel restore in points")
	flag.Parse()
	b.flags = strings.Fields(*restoring)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, *engine, strings.Split(*steps, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements of all engines share.
type bench struct {
	program           string
	runs, rows, txns  int
	small, tens, bulk int
	tableRows         int
	calm              float64
	patience          time.Duration
	dir               string
	table             []string
	workload          string   // of points: the one that is measured
	flags             []string // of points: more for txreel restore
}

// db is the database that is measured.
const db = "bench"

func (b *bench) run(ctx context.Context, engine string, steps []string) (err error) {
	if b.runs < 1 {
		return errors.New("-runs must be 1 or more")
	}
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "txreel-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	known := []string{"base", "dump", "catchup", "live", "replay", "points", "history", "partial", "beside"}
	for _, name := range steps {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-steps names %q, which is none of %s", name, strings.Join(known, ", "))
		}
	}
	engines := []string{engine}
	if engine == "all" {
		engines = []string{"postgres", "mysql", "mariadb"}
	}
	for _, engine := range engines {
		switch engine {
		case "postgres":
			err = (&postgresBench{bench: b}).run(ctx, steps)
		case "mysql", "mariadb":
			err = (&mysqlBench{bench: b, flavor: engine}).run(ctx, steps)
		default:
			err = fmt.Errorf("-engine %s is none of all, postgres, mysql, mariadb", engine)
		}
		if err != nil {
			break
		}
	}
	if len(b.table) > 0 { // also of a run that was cut short
		fmt.Printf("\n| measurement | txreel | peer | ratio | load |\n| --- | --- | --- | --- | --- |\n%s\n", strings.Join(b.table, "\n"))
	}
	return err
}

// row adds a line to the table.
func (b *bench) row(what, ours, peer, ratio string, l loads) {
	line := fmt.Sprintf("| %s | %s | %s | %s | %s |", what, ours, peer, ratio, l)
	fmt.Println(line)
	b.table = append(b.table, line)
}

func median[T cmp.Ordered](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// seconds prints a measured time.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// times prints by how much a peer takes longer.
func times(peer, ours time.Duration) string {
	return fmt.Sprintf("%.2f ×", peer.Seconds()/ours.Seconds())
}
