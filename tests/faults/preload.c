/*
 * Preloaded into the server by the tests: lets the calls that write its
 * database fail, and keeps an image of the database at each flush.
 *
 * POSTGREY_FAULTS names a file that may hold a line "data ERRNO", "meta ERRNO"
 * or "sync ERRNO": while it does, pages of data or of meta data are not
 * written, or not flushed, and with "map ERRNO" the data file cannot be
 * mapped. POSTGREY_IMAGES names a directory; the file
 * "answered" in it holds the number of requests answered so far, which becomes
 * a part of an image's name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char *faults, *images;

/* The server does not keep its environment. */
__attribute__((constructor)) static void remember_environment(void)
{
    faults = getenv("POSTGREY_FAULTS");
    faults = faults ? strdup(faults) : NULL;
    images = getenv("POSTGREY_IMAGES");
    images = images ? strdup(images) : NULL;
}

/* The two meta pages of an environment lie in front. */
#define META_END 8192

static int is_data_file(int fd)
{
    static const char name[] = "/data.mdb";
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    return length > (ssize_t) sizeof name
        && memcmp(path + length - (sizeof name - 1), name, sizeof name - 1) == 0;
}

/* The errno a call shall fail with, or 0. */
static int fault_of(const char *call)
{
    char word[16];
    int number, found = 0;
    FILE *file = faults ? fopen(faults, "re") : NULL;

    if (!file)
        return 0;
    while (fscanf(file, "%15s %d", word, &number) == 2)
        if (strcmp(word, call) == 0)
            found = number;
    fclose(file);
    return found;
}

static int fails(int fd, off_t offset)
{
    int saved = errno, number = 0;

    if (is_data_file(fd))
        number = fault_of(offset < META_END ? "meta" : "data");
    errno = number ? number : saved;
    return number;
}

#define WRAP_PWRITE(name)                                                   \
    ssize_t name(int fd, const void *octets, size_t length, off_t offset)   \
    {                                                                       \
        static ssize_t (*real)(int, const void *, size_t, off_t);           \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        return fails(fd, offset) ? -1 : real(fd, octets, length, offset);   \
    }
WRAP_PWRITE(pwrite)
WRAP_PWRITE(pwrite64)

#define WRAP_PWRITEV(name)                                                  \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    {                                                                       \
        static ssize_t (*real)(int, const struct iovec *, int, off_t);      \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        return fails(fd, offset) ? -1 : real(fd, parts, count, offset);     \
    }
WRAP_PWRITEV(pwritev)
WRAP_PWRITEV(pwritev64)

#define WRAP_MMAP(name)                                                     \
    void *name(void *at, size_t length, int protection, int flags, int fd,  \
        off_t offset)                                                       \
    {                                                                       \
        static void *(*real)(void *, size_t, int, int, int, off_t);         \
        int number;                                                         \
        if (!real)                                                          \
            real = dlsym(RTLD_NEXT, #name);                                 \
        if (fd >= 0 && is_data_file(fd) && (number = fault_of("map"))) {    \
            errno = number;                                                 \
            return MAP_FAILED;                                              \
        }                                                                   \
        return real(at, length, protection, flags, fd, offset);             \
    }
WRAP_MMAP(mmap)
WRAP_MMAP(mmap64)

/* Images are numbered in their order by whoever makes the next file. */
static void keep_image(int fd)
{
    const char *folder = images;
    char path[4096], temporary[4200], text[32] = "0", octets[65536];
    static int next;
    int image, from;
    ssize_t length;
    off_t offset = 0;

    if (!folder)
        return;
    snprintf(path, sizeof path, "%s/answered", folder);
    if ((from = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
        length = read(from, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(from);
    }
    snprintf(temporary, sizeof temporary, "%s/temporary.%d", folder, (int) getpid());
    image = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (image < 0)
        return;
    while ((length = pread(fd, octets, sizeof octets, offset)) > 0) {
        if (write(image, octets, length) != length)
            break;
        offset += length;
    }
    close(image);
    do {
        snprintf(path, sizeof path, "%s/image.%06d", folder, next++);
    } while (link(temporary, path) < 0 && errno == EEXIST);
    unlink(temporary);
    snprintf(temporary, sizeof temporary, "%s.answered", path);
    if ((image = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) >= 0) {
        length = write(image, text, strlen(text));
        close(image);
    }
}

int fdatasync(int fd)
{
    static int (*real)(int);
    int number, result, saved;

    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    if (!is_data_file(fd))
        return real(fd);
    if ((number = fault_of("sync")) != 0) {
        errno = number;
        return -1;
    }
    result = real(fd);
    saved = errno;
    keep_image(fd);
    errno = saved;
    return result;
}
