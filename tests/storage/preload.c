/*
 * Preloaded into the programs by the tests of the storage.
 *
 * POSTGREY_HANG names a file: while it is there, a flush of data.mdb does not
 * return. The file NAME.is made when the first one begins to wait.
 *
 * POSTGREY_CONTROL names a file of two numbers of 64 bits, which all processes
 * share. The second is the number of calls, so far, that change a name or a file
 * below POSTGREY_DBDIR. When it becomes the first, the process that makes the
 * call dies by SIGKILL: in front of it, but of a lock behind it, and of a write
 * of several pages in its middle.
 *
 * POSTGREY_BUFFERS is the size of the buffers of each socketpair of datagrams.
 *
 * POSTGREY_SYSLOG names a file to which the lines for syslog(3) are appended.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* A disk that hangs longer than this is a test that has gone wrong. */
#define LONGEST_HANG 3000

struct control {
    uint64_t kill_at, count;
};

static char *hang, *dbdir, *syslog_file;
static struct control *control;
static int buffers;

#define REAL(name)                                                          \
    static __typeof__(name) *real;                                          \
    if (!real)                                                              \
        real = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)

static char *text_of(const char *name)
{
    char *text = getenv(name);

    return text ? strdup(text) : NULL;
}

/* The server does not keep its environment. */
__attribute__((constructor)) static void remember_environment(void)
{
    char *path = getenv("POSTGREY_CONTROL"), *size = getenv("POSTGREY_BUFFERS");
    int file;
    void *at;

    hang = text_of("POSTGREY_HANG");
    dbdir = text_of("POSTGREY_DBDIR");
    syslog_file = text_of("POSTGREY_SYSLOG");
    buffers = size ? atoi(size) : 0;
    if (!path)
        return;
    if ((file = open(path, O_RDWR | O_CLOEXEC)) < 0)
        abort();
    at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        abort();
    close(file);
    control = at;
}

/* The path of an open file; false if there is none. */
static int path_of(int fd, char *path, size_t size)
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

static int is_below_dbdir(const char *path)
{
    return control && dbdir && strncmp(path, dbdir, strlen(dbdir)) == 0;
}

static int is_file_of_dbdir(int fd)
{
    char path[PATH_MAX];
    int saved = errno, found;

    if (!control)
        return 0;
    found = path_of(fd, path, sizeof path) && is_below_dbdir(path);
    errno = saved;
    return found;
}

/* Counts a call; true if it is the last one of this process. */
static int is_last_call(void)
{
    return __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST)
        == __atomic_load_n(&control->kill_at, __ATOMIC_SEQ_CST);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void count_call(void)
{
    if (is_last_call())
        die();
}

/* What creates a file is counted; the mode is the argument after the flags. */
#define COUNT_CREATION(path, flags, mode)                                   \
    do {                                                                    \
        if (flags & O_CREAT) {                                              \
            va_list rest;                                                   \
            va_start(rest, flags);                                          \
            mode = va_arg(rest, mode_t);                                    \
            va_end(rest);                                                   \
            if (is_below_dbdir(path))                                       \
                count_call();                                               \
        }                                                                   \
    } while (0)

#define WRAP_OPEN(name)                                                     \
    int name(const char *path, int flags, ...)                              \
    {                                                                       \
        mode_t mode = 0;                                                    \
        REAL(name);                                                         \
        COUNT_CREATION(path, flags, mode);                                  \
        return real(path, flags, mode);                                     \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

#define WRAP_OPENAT(name)                                                   \
    int name(int at, const char *path, int flags, ...)                      \
    {                                                                       \
        mode_t mode = 0;                                                    \
        REAL(name);                                                         \
        COUNT_CREATION(path, flags, mode);                                  \
        return real(at, path, flags, mode);                                 \
    }
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)

int rename(const char *from, const char *to)
{
    REAL(rename);
    if (is_below_dbdir(to))
        count_call();
    return real(from, to);
}

int link(const char *from, const char *to)
{
    REAL(link);
    if (is_below_dbdir(to))
        count_call();
    return real(from, to);
}

int unlink(const char *path)
{
    REAL(unlink);
    if (is_below_dbdir(path))
        count_call();
    return real(path);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    if (is_below_dbdir(path))
        count_call();
    return real(path, mode);
}

ssize_t write(int fd, const void *octets, size_t length)
{
    REAL(write);
    if (is_file_of_dbdir(fd) && is_last_call()) {
        if (length > 1 && real(fd, octets, length / 2) < 0)
            abort();
        die();
    }
    return real(fd, octets, length);
}

#define WRAP_PWRITE(name)                                                   \
    ssize_t name(int fd, const void *octets, size_t length, off_t offset)   \
    {                                                                       \
        REAL(name);                                                         \
        if (is_file_of_dbdir(fd) && is_last_call()) {                       \
            /* Some pages, but no part of one: that takes a power cut. */   \
            length = length / 2 / 4096 * 4096;                              \
            if (length > 0 && real(fd, octets, length, offset) < 0)         \
                abort();                                                    \
            die();                                                          \
        }                                                                   \
        return real(fd, octets, length, offset);                            \
    }
WRAP_PWRITE(pwrite)
WRAP_PWRITE(pwrite64)

#define WRAP_PWRITEV(name)                                                  \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    {                                                                       \
        REAL(name);                                                         \
        if (is_file_of_dbdir(fd) && is_last_call()) {                       \
            if (count > 1 && real(fd, parts, count / 2, offset) < 0)        \
                abort();                                                    \
            die();                                                          \
        }                                                                   \
        return real(fd, parts, count, offset);                              \
    }
WRAP_PWRITEV(pwritev)
WRAP_PWRITEV(pwritev64)

#define WRAP_TRUNCATE(name)                                                 \
    int name(int fd, off_t length)                                          \
    {                                                                       \
        REAL(name);                                                         \
        if (is_file_of_dbdir(fd))                                           \
            count_call();                                                   \
        return real(fd, length);                                            \
    }
WRAP_TRUNCATE(ftruncate)
WRAP_TRUNCATE(ftruncate64)

/* A try that does not get the lock changes nothing. */
#define WRAP_FCNTL(name)                                                    \
    int name(int fd, int command, ...)                                      \
    {                                                                       \
        va_list rest;                                                       \
        void *argument;                                                     \
        int result, saved;                                                  \
        REAL(name);                                                         \
        va_start(rest, command);                                            \
        argument = va_arg(rest, void *);                                    \
        va_end(rest);                                                       \
        result = real(fd, command, argument);                               \
        saved = errno;                                                      \
        if (result >= 0 && (command == F_SETLK || command == F_SETLKW)      \
            && is_file_of_dbdir(fd))                                        \
            count_call();                                                   \
        errno = saved;                                                      \
        return result;                                                      \
    }
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)

static int is_data_file(int fd)
{
    static const char name[] = "/data.mdb";
    char path[PATH_MAX];
    size_t length, end = sizeof name - 1;

    if (!path_of(fd, path, sizeof path))
        return 0;
    length = strlen(path);
    return length > end && strcmp(path + length - end, name) == 0;
}

static void wait_for_disk(int fd)
{
    struct timespec pause = { .tv_nsec = 10000000 };
    char path[PATH_MAX];
    int file, saved = errno, times = 0;

    if (!hang || access(hang, F_OK) < 0 || !is_data_file(fd))
        return;
    snprintf(path, sizeof path, "%s.is", hang);
    if ((file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) >= 0)
        close(file);
    while (access(hang, F_OK) == 0 && times++ < LONGEST_HANG)
        nanosleep(&pause, NULL);
    errno = saved;
}

#define WRAP_FLUSH(name)                                                    \
    int name(int fd)                                                        \
    {                                                                       \
        REAL(name);                                                         \
        wait_for_disk(fd);                                                  \
        if (is_file_of_dbdir(fd))                                           \
            count_call();                                                   \
        return real(fd);                                                    \
    }
WRAP_FLUSH(fdatasync)
WRAP_FLUSH(fsync)

int socketpair(int domain, int type, int protocol, int pair[2])
{
    int result, end;

    REAL(socketpair);
    result = real(domain, type, protocol, pair);
    if (result < 0 || buffers == 0 || (type & 0xf) != SOCK_DGRAM)
        return result;
    for (end = 0; end < 2; end++)
        if (setsockopt(pair[end], SOL_SOCKET, SO_SNDBUF, &buffers, sizeof buffers) < 0
            || setsockopt(pair[end], SOL_SOCKET, SO_RCVBUF, &buffers, sizeof buffers) < 0)
            abort();
    return result;
}

void syslog(int priority, const char *format, ...)
{
    char line[4096];
    va_list rest;
    int file, length;

    (void) priority;
    if (!syslog_file || (file = open(syslog_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0)
        return;
    va_start(rest, format);
    length = vsnprintf(line, sizeof line - 1, format, rest);
    va_end(rest);
    if (length > (int) sizeof line - 2)
        length = sizeof line - 2;
    line[length] = '\n';
    if (write(file, line, length + 1) < 0)
        abort();
    close(file);
}
