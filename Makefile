VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.PHONY: build demo test test-race test-matrix torture lint bench clean

build: ## bin/txreel, a static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o bin/txreel ./cmd/txreel

demo: ## the whole story on a throw-away database, in a minute
	scripts/setup
	$(MAKE) --no-print-directory build
	bin/txreel demo

# A test waits for its servers now and then: four packages keep two cores busy, when those that take longest begin
# first. Those run without the race detector, which makes them take twice as long; the captures that they kill, stop and set against each
# other are programs built with it all the same. make lint vets.
ONCE := -vet=off -count=1 -timeout 60m
RACE := -race $(ONCE)
LONGEST := ./internal/e2e ./sources/mysql ./restore/mysql ./internal/dbtest ./sources/postgres ./restore/postgres
# In these nothing runs beside anything else, and there is no race to look for.
ALONE := . ./sources/mysql/binlog ./sources/mysql/rowlog ./sources/mysql/rowlog/charset ./sources/mysql/rowlog/jsonb ./sources/mysql/rowlog/sqltext

test: ## every test, on real servers, and never from a cache: some build the program themselves
	scripts/setup test
	CGO_ENABLED=1 go test $(ONCE) -p 4 $(LONGEST) $(ALONE)
	CGO_ENABLED=1 go test $(RACE) -p 4 $(filter-out txreel $(LONGEST:./%=txreel/%) $(ALONE:./%=txreel/%),$(shell go list ./...))
	for v in $(ENDS); do export TXREEL_TEST_SERVERS=postgres-$$v; go test $(ONCE) -short -run '^TestDefinitions$$|^TestMajors$$' ./internal/e2e && \
		go test $(ONCE) -short -run '^(TestSetupRoundTrip|TestGeneratedColumns|TestBasesOnOneServer)$$/^exact_under_load$$' ./sources/postgres || exit; done

# The oldest and the newest PostgreSQL, of which there are servers for x86-64: make test runs on them what tells most, which is setup, definitions,
# types, streaming, bases under load and restores.
ENDS := $(if $(filter x86_64,$(shell uname -m)),14 18)

test-race: ## the same, all of it under the race detector
	scripts/setup test
	CGO_ENABLED=1 go test $(RACE) -p 4 $(LONGEST) ./...

# The packages that talk to a MySQL or MariaDB; of the black-box tests, those that do.
MY := ./internal/dbtest ./sources/mysql/... ./restore/mysql .

# The packages that talk to a PostgreSQL, and the versions of it that make test leaves out.
PG := ./sources/postgres/... ./restore/postgres .
MAJORS := 14 16 17 18
# The black-box tests of what differs between them.
PGE2E := TestDefinitions|TestRandomDefinitions|TestRewrites|TestSchemaUnlogged|TestSetupLeavesNothing|TestEverything|TestEncodings|TestGlobals|TestSequences|TestLargeObjects|TestRegressions

test-matrix: ## the tests on the versions that make test leaves out, and restores from each PostgreSQL to it and the next
	scripts/setup test
	for v in $(MAJORS); do scripts/setup postgres-$$v || exit; done
	for v in $(MAJORS); do TXREEL_TEST_SERVERS=postgres-$$v go test $(ONCE) $(PG) || exit; done
	for v in $(MAJORS); do TXREEL_TEST_SERVERS=postgres-$$v go test $(ONCE) -run '^($(PGE2E))$$' ./internal/e2e && \
		TXREEL_TEST_SERVERS=postgres-$$v go test $(ONCE) -run '^TestFailpoints$$/^on$$/^postgres$$' ./internal/e2e || exit; done
	go test $(ONCE) -run '^TestMajors$$' ./internal/e2e -args -e2e.long
	scripts/setup mariadb-11
	TXREEL_TEST_SERVERS=mariadb-11 CGO_ENABLED=1 go test $(RACE) $(MY)
	TXREEL_TEST_SERVERS=mariadb-11 CGO_ENABLED=1 go test $(RACE) -run '^TestMy' ./internal/e2e

FOR := 1h

torture: ## faults by the thousand on every engine, for FOR, and a table of what they did
	scripts/setup test
	go test -vet=off -count=1 -timeout 48h -parallel 3 -v -run '^TestTorture$$' ./internal/e2e -args -e2e.long -e2e.torture=$(FOR)

lint: ## style, mistakes and the direction of imports
	scripts/setup lint
	.tools/bin/golangci-lint run ./...

bench: ## ratios against named peers in one run, content compared
	scripts/setup bench
	$(MAKE) --no-print-directory build
	go run ./cmd/bench

clean:
	rm -rf bin
