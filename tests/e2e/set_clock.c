// Sets the wall clock of one process, as far as it can see: CLOCK_REALTIME is ahead by as many
// seconds as the file $SET_CLOCK holds (a long); no other clock changes, as when a clock is set.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long system_call(long n, long a, long b, long c, long d, long e, long f) {
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return n;
}

static long ahead(void) {
	static volatile long *held;
	if (!held) {
		const char *path = getenv("SET_CLOCK");
		int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		void *map = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
		close(file);
		if (map == MAP_FAILED)
			abort();
		held = map;
	}
	return *held;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
	if (system_call(SYS_clock_gettime, clock, (long)at, 0, 0, 0, 0))
		return -1;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		at->tv_sec += ahead();
	return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	*at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *at) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return at ? *at = now.tv_sec : now.tv_sec;
}
