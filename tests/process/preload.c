/*
 * Preloaded into the server by the tests: what else would take minutes.
 *
 * POSTGREY_TROUBLE names a file. While it holds the word "fork", fork(2) fails.
 * If it holds "loop", the next process to accept a connection removes the file
 * and loops for ever. What takes 30 seconds takes one: an alarm of 60 comes
 * after two, a wait of 20 is over after 0.7; and the clock that is never set goes
 * 20 times as fast.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char *trouble;
static struct timespec begun;

static int real_clock(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);

    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, now);
}

/* The server does not keep its environment. */
__attribute__((constructor)) static void remember(void)
{
    trouble = getenv("POSTGREY_TROUBLE");
    trouble = trouble ? strdup(trouble) : NULL;
    real_clock(CLOCK_MONOTONIC, &begun);
}

static int is_in_trouble(const char *wanted)
{
    char word[16] = "";
    FILE *file = trouble ? fopen(trouble, "re") : NULL;

    if (!file)
        return 0;
    if (fscanf(file, "%15s", word) != 1)
        word[0] = 0;
    fclose(file);
    return strcmp(word, wanted) == 0;
}

pid_t fork(void)
{
    static pid_t (*real)(void);

    if (!real)
        real = dlsym(RTLD_NEXT, "fork");
    if (is_in_trouble("fork")) {
        errno = EAGAIN;
        return -1;
    }
    return real();
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    int result;

    if (!real)
        real = dlsym(RTLD_NEXT, "accept4");
    result = real(fd, address, length, flags);
    if (result >= 0 && is_in_trouble("loop") && unlink(trouble) == 0)
        for (;;)
            ;
    return result;
}

unsigned alarm(unsigned seconds)
{
    static unsigned (*real)(unsigned);

    if (!real)
        real = dlsym(RTLD_NEXT, "alarm");
    return real(seconds >= 30 ? seconds / 30 : seconds);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    static int (*real)(struct pollfd *, nfds_t, int);

    if (!real)
        real = dlsym(RTLD_NEXT, "poll");
    return real(fds, count, timeout >= 15000 ? timeout / 30 : timeout);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = real_clock(clock, now);
    long long passed;

    if (result == 0 && clock == CLOCK_MONOTONIC && trouble) {
        passed = (now->tv_sec - begun.tv_sec) * 1000000000LL + now->tv_nsec - begun.tv_nsec;
        passed = passed * 20 + begun.tv_nsec;
        now->tv_sec = begun.tv_sec + passed / 1000000000LL;
        now->tv_nsec = passed % 1000000000LL;
    }
    return result;
}
