/* The time of day of a program that was started with this in LD_PRELOAD: the machine's, moved by so many nanoseconds
 * as the file that TXREEL_CLOCK names holds at that moment. Clocks that count from a start do not move. A wait until a
 * time of day ends at that time by the clock that was moved. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static int (*next)(clockid_t, struct timespec *);
static volatile const int64_t *shift;

__attribute__((constructor)) static void begin(void) {
	next = dlvsym(RTLD_NEXT, "clock_gettime", "GLIBC_2.17");
	const char *path = getenv("TXREEL_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		_exit(99); /* without its clock a program would prove nothing */
	void *p = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		_exit(99);
	shift = p;
}

static int64_t moved(void) { return shift ? *shift : 0; }

static void move(struct timespec *t, int64_t by) {
	int64_t n = t->tv_nsec + by % SECOND;
	t->tv_sec += by / SECOND;
	if (n < 0) {
		n += SECOND;
		t->tv_sec--;
	} else if (n >= SECOND) {
		n -= SECOND;
		t->tv_sec++;
	}
	t->tv_nsec = n;
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int r = next ? next(id, t) : (int)syscall(SYS_clock_gettime, id, t);
	if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		move(t, moved());
	return r;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	(void)zone;
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	tv->tv_sec = t.tv_sec;
	tv->tv_usec = t.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

/* deadline returns the clock of a time that a program waits for, and makes it the machine's. What counts from a start is
 * never as large as a time of day. */
static clockid_t deadline(struct timespec *t) {
	if (t->tv_sec < 1000000000)
		return CLOCK_MONOTONIC;
	move(t, -moved());
	return CLOCK_REALTIME;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict at) {
	struct timespec t = *at;
	clockid_t id = deadline(&t);
	return pthread_cond_clockwait(c, m, id, &t);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict at) {
	struct timespec t = *at;
	clockid_t id = deadline(&t);
	return pthread_mutex_clocklock(m, id, &t);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict at) {
	struct timespec t = *at;
	clockid_t id = deadline(&t);
	return sem_clockwait(s, id, &t);
}
